"""One guarded write to an owner's fields: optimistic lock, bounded retry, and no answer settled by reading back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_owners import Owner, refetch, stand_down
from tuning.actuators._options import agrees
from tuning.errors import Conflict, ControlUnreachable, NotApplied, NotOwner, OutcomeUnknown
from tuning.model import Change, Knob

TRIES = 6
FIRST_PAUSE_S = 0.05


def write(cluster: Cluster, owner: Owner, change: Change, sleep: Callable[[float], None]) -> Owner:
    """Set the owner's knobs to change.new, if they still are at change.old; the owner as read back.

    A conflict is re-read and tried again as long as our fields still hold the old values (only the status, or
    somebody else's fields, moved). A write without an answer is sent again under the same resource version: if the
    first landed the second conflicts, and the read-back tells. Raises NotOwner, NotApplied, OutcomeUnknown, Conflict,
    ControlUnreachable, ControlRefused.
    """
    lost: Unanswered | None = None
    for attempt in range(TRIES):
        if attempt:
            sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        try:
            cluster.patch(owner.ref, owner.body(change.new, owner.version))
        except Conflict:
            owner = _again(cluster, owner, lost)
        except Unanswered as error:
            lost = error
            owner = _again(cluster, owner, lost)
        except ControlUnreachable as error:
            if lost is not None:
                raise OutcomeUnknown(f"{lost}; then {error}") from error
            raise
        else:
            return _confirmed(cluster, owner, change)
        if agrees(owner.values(), _own(owner, change.new)):
            return owner
        check_old(owner, change)
    if lost is not None:
        raise OutcomeUnknown(f"{lost}; reading back shows {show(owner.values())}, and it may still land") from lost
    raise Conflict(f"{owner.name} changes faster than slotune can write it ({TRIES} tries)", delay_s=15.0)


def check_old(owner: Owner, change: Change) -> None:
    """NotOwner when the owner's fields hold neither the old values (somebody else was faster)."""
    values = owner.values()
    if not agrees(values, _own(owner, change.old)):
        raise NotOwner(
            f"{owner.name} shows {show(values)}, not {show(_own(owner, change.old))}: "
            "somebody else changed it; slotune stands down"
        )


def check_owner(cluster: Cluster, owner: Owner, at_s: float, stand_down_s: float) -> None:
    """NotOwner with the reason when slotune has to stand down."""
    reason = stand_down(owner, holder_of(cluster, owner), at_s, stand_down_s)
    if reason is not None:
        raise NotOwner(f"{reason}; slotune stands down")


def holder_of(cluster: Cluster, owner: Owner) -> dict[str, object]:
    """The object whose metadata tell who manages the fields: the workload itself for a scale subresource."""
    if not owner.ref.sub:
        return owner.obj
    ref = owner.ref
    return cluster.get(type(ref)(ref.group, ref.version, ref.plural, ref.namespace, ref.name))


def show(values: Mapping[str, Knob]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in sorted(values)) or "nothing"


def _own(owner: Owner, values: Mapping[str, Knob]) -> dict[str, Knob]:
    return {knob: values[knob] for knob in owner.fields if knob in values}


def _again(cluster: Cluster, owner: Owner, lost: Unanswered | None) -> Owner:
    """The owner read again. A write without an answer and no read-back either: nobody knows."""
    try:
        return refetch(cluster, owner)
    except ControlUnreachable as error:
        if lost is None:
            raise
        raise OutcomeUnknown(f"{lost}; the read-back got no answer either ({error})") from error


def _confirmed(cluster: Cluster, owner: Owner, change: Change) -> Owner:
    try:
        shown = refetch(cluster, owner)
    except ControlUnreachable as error:
        raise OutcomeUnknown(f"{owner.name} was patched, but the read-back got no answer ({error})") from error
    if not agrees(shown.values(), _own(owner, change.new)):
        raise NotApplied(
            f"{owner.name} accepted {show(_own(owner, change.new))}, but the read-back shows {show(shown.values())}"
        )
    return shown
