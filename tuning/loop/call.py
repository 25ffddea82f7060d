"""One call of a lever, and what is true after it: made, refused, made by an earlier try, or another value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detection.errors import Permanent, SlotuneError
from detection.model import Service
from tuning.errors import NotApplied, OutcomeUnknown, QuantizationRefused
from tuning.knobs import same_knobs
from tuning.loop.inputs import DRIFT_SIGNAL
from tuning.loop.learn import drift_figures
from tuning.loop.parts import Parts
from tuning.model import Applied, Change, Knob, Plan
from tuning.ports import PerReplica

QUALITY = ("accuracy", "agreement", DRIFT_SIGNAL)


"""Signals whose drift says that the inputs changed; the amount of traffic says nothing about them."""


def call(
    parts: Parts,
    service: Service,
    plan: Plan,
    change: Change,
    now: Callable[[], float],
    earlier_s: float | None,
    *,
    replica: str = "",
) -> Applied:
    """What the actuator did to all replicas or one; a permanent refusal is told like a change that was not made."""
    actuator, key = parts.actuator(service, change.lever), f"{plan.id}:{change.lever}"
    if "precision" in service.levers:
        service = with_drift(service, drift_figures(parts.ledger))
    applied: Applied
    try:
        if replica and isinstance(actuator, PerReplica):
            applied = actuator.apply_to(service, change, replica, key=f"{key}:{replica}")
        else:
            applied = actuator.apply(service, change, key=key)
    except Permanent as error:
        applied = _refused(parts, service, change, error, now())
    return applied if earlier_s is None else _made_earlier(applied, change, earlier_s)


def moved(change: Change) -> dict[str, Knob]:
    """The old values of the knobs that a change moves."""
    return {k: v for k, v in change.old.items() if k in change.new and change.new[k] != v}


def with_drift(service: Service, figures: Sequence[Mapping[str, Any]]) -> Service:
    """The service with what is known about the drift of its answers in the precision lever's options: calibration data
    from before the drift no longer look like the traffic."""
    lever = service.levers.get("precision")
    found = [f for f in figures if f.get("service") == service.name and f.get("signal") in QUALITY]
    if lever is None or not found:
        return service
    worst = max(found, key=_psi)
    told = lever.model_copy(update={"options": {**lever.options, "drift": dict(worst)}})
    return service.model_copy(update={"levers": {**service.levers, "precision": told}})


def _psi(figure: Mapping[str, Any]) -> float:
    return float(figure.get("psi") or 0.0)


def _made_earlier(applied: Applied, change: Change, opened_at_s: float) -> Applied:
    """An earlier try of this plan had claimed the service, and the new value is there: that try made it, and died
    before it could say so. Its change is proven like any other, as if made when it was claimed."""
    old = moved(change)
    if applied.changed or not applied.applied or all(applied.before.get(k) == v for k, v in old.items()):
        return applied
    return applied.model_copy(
        update={
            "before": {**applied.before, **old},
            "changed": True,
            "at_s": opened_at_s,
            "reason": f"made by an earlier try that ended before it could write this down; {applied.reason}",
        }
    )


def _refused(parts: Parts, service: Service, change: Change, error: Permanent, at_s: float) -> Applied:
    """What is true after a refusal is read, not assumed. OutcomeUnknown where it cannot be read."""
    if isinstance(error, NotApplied) and error.after:
        return _left_by(service, change, error, error.before, error.after, at_s)
    try:
        shown = parts.actuator(service, change.lever).read(service).at(change.new)
    except SlotuneError as unread:
        raise OutcomeUnknown(f"{error}; what stands there now cannot be read ({unread})") from error
    return _left_by(service, change, error, {}, {k: v for k, v in shown.items() if k in change.new}, at_s)


def another_value(service: Service, change: Change, error: NotApplied, at_s: float) -> Applied | None:
    """What an endpoint made of a change when it took a value of its own; None where it took none."""
    made = _left_by(service, change, error, error.before, error.after, at_s) if error.after else None
    return made if made is not None and made.changed else None


def _left_by(
    service: Service, change: Change, error: Permanent, before: Mapping[str, Knob], after: dict[str, Knob], at_s: float
) -> Applied:
    """before: as the actuator saw it, at the replica that took another value."""
    stood, found = {**change.old, **before}, after
    return Applied(
        service=service.name,
        lever=change.lever,
        before=stood,
        after=found,
        applied=False,
        changed=not same_knobs({k: v for k, v in stood.items() if k in found}, found),
        at_s=at_s,
        reason=str(error),
        evidence=error.evidence if isinstance(error, QuantizationRefused) else {},
    )
