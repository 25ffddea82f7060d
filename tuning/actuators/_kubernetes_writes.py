"""One guarded write to an owner's fields: optimistic lock, bounded retry, and no answer settled by reading back.

Once a patch may have landed, only a read-back tells. An API server that is just starting answers 403 and 404 for a
while, so after a write these are no refusals: the object is read again for READ_BACK_S, and then nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_owners import Owner, refetch, workload_ref
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._kubernetes_stand_down import stand_down, writer_of
from tuning.actuators._options import agrees
from tuning.errors import Conflict, NotApplied, NotOwner, OutcomeUnknown, SlotuneError
from tuning.knobs import same
from tuning.model import Change, Knob

T = TypeVar("T")
TRIES = 6
FIRST_PAUSE_S = 0.05
READ_BACK_S = 30.0
"""A restarted kube-apiserver answered 403 two or three times, a second apart, until its caches were filled."""
LONGEST_PAUSE_S = 4.0


def write(cluster: Cluster, owner: Owner, change: Change, sleep: Callable[[float], None]) -> Owner:
    """Set the knobs that the change moves, if they still are at change.old; the owner as read back.

    A conflict is re-read and tried again as long as our fields still hold the old values (only the status, or
    somebody else's fields, moved). A write without an answer is sent again under the same resource version: if the
    first landed the second conflicts, and the read-back tells. Raises NotOwner, NotApplied, OutcomeUnknown, Conflict,
    ControlUnreachable, ControlRefused (the last two only when nothing can have landed).
    """
    wanted = moved(owner, change)
    lost: Unanswered | None = None
    for attempt in range(TRIES):
        if attempt:
            sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        try:
            cluster.patch(owner.ref, owner.body(wanted, owner.version))
        except Unanswered as error:
            lost = error
        except Conflict:
            pass
        except SlotuneError:
            if lost is None:
                raise
        else:
            return _confirmed(cluster, owner, wanted, sleep)
        owner = refetch(cluster, owner) if lost is None else read_back(cluster, owner, sleep, str(lost))
        if agrees(owner.values(), wanted):
            return owner
        check_old(owner, change)
    if lost is not None:
        raise OutcomeUnknown(f"{lost}; reading back shows {show(owner.values())}, and it may still land") from lost
    raise Conflict(f"{owner.name} changes faster than slotune can write it ({TRIES} tries)", delay_s=15.0)


def moved(owner: Owner, change: Change) -> dict[str, Knob]:
    """The new values of the owner's knobs that a change really moves (all of them in a change that moves none)."""
    named = {knob: change.new[knob] for knob in owner.fields if knob in change.new}
    return {knob: value for knob, value in named.items() if not same(change.old.get(knob), value)} or named


def check_old(owner: Owner, change: Change) -> None:
    """NotOwner when a knob that the change moves does not hold its old value (somebody else was faster)."""
    values, old = owner.values(), {knob: change.old[knob] for knob in moved(owner, change) if knob in change.old}
    if not agrees(values, old):
        raise NotOwner(
            f"{owner.name} shows {show(values)}, not {show(old)}: somebody else changed it; slotune stands down"
        )


def check_owner(cluster: Cluster, owner: Owner, change: Change, at_s: float, stand_down_s: float) -> None:
    """NotOwner with the reason when slotune has to keep its hands off a knob that the change moves."""
    reason = stand_down(owner, holder_of(cluster, owner), at_s, stand_down_s, moved(owner, change))
    if reason is not None:
        raise NotOwner(f"{reason}; slotune stands down")


def holder_of(cluster: Cluster, owner: Owner) -> Object:
    """The object whose metadata tell who manages the fields: the workload itself for a scale subresource."""
    return cluster.get(workload_ref(owner.ref)) if owner.ref.sub else owner.obj


def show(values: Mapping[str, Knob]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in sorted(values)) or "nothing"


def read_back(cluster: Cluster, owner: Owner, sleep: Callable[[float], None], what: str) -> Owner:
    """The owner, read after a write that may have landed. OutcomeUnknown when it cannot be read for READ_BACK_S."""

    def read() -> Owner:
        shown = refetch(cluster, owner)
        shown.values()  # an answer without usable numbers is none
        return shown

    return until_read(read, sleep, what)


def until_read(read: Callable[[], T], sleep: Callable[[float], None], what: str) -> T:
    """What `read` gives, asked again for READ_BACK_S whatever it raises; then OutcomeUnknown, beginning with `what`."""
    waited_s, pause_s = 0.0, 0.5
    while True:
        try:
            return read()
        except SlotuneError as error:
            if waited_s >= READ_BACK_S:
                raise OutcomeUnknown(f"{what}; the read-back got no answer that counts ({error})") from error
        sleep(pause_s)
        waited_s += pause_s
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


def _confirmed(cluster: Cluster, owner: Owner, wanted: Mapping[str, Knob], sleep: Callable[[float], None]) -> Owner:
    shown = read_back(cluster, owner, sleep, f"{owner.name} was patched")
    if not agrees(shown.values(), wanted):
        stood, stands = ({k: v for k, v in each.values().items() if k in wanted} for each in (owner, shown))
        raise NotApplied(
            f"{owner.name} accepted {show(wanted)}, but the read-back shows {show(shown.values())}"
            f" (last written by {writer_of(shown, shown.obj) or 'somebody unknown'})",
            before=stood,
            after=stands,
        )
    return shown
