"""How each step is written down: one function per record, so that every writer and every reader mean the same.

Ids depend on the plan and the step only: writing the same step again is no new record, whoever repeats it.

    open_incidents  result  body Incident
    choose_action   result  body Plan
    guard           result  body Refusal                        (only when a guard refuses)
    <lever step>    intent  body Plan                           committed BEFORE the change; carries the old values
    <lever step>    result  body Receipt                        one per change of the plan
    settle          result  body {"until_s"}
    verify_p95      result  body Outcome                        look 1, and look 2 when the first could not tell
    keep            result  body Decision
    roll_back       intent  body Plan (the inverse)             committed BEFORE the roll-back
    roll_back       result  body Receipt                        one per change
    email_report    result  body {"id", "sent", ...}
"""

from __future__ import annotations

from typing import Literal

from detection.model import Incident, Value, make_id
from tuning.model import LEVER_STEPS, Decision, Outcome, Plan, Receipt, Record, Refusal


def record(
    kind: str,
    value: Value | dict[str, object],
    *,
    service: str,
    at_s: float,
    incident_id: str | None,
    parent_id: str | None,
    phase: Literal["intent", "result"] = "result",
    key: object = "",
) -> Record:
    """A record whose id is made from its parent, kind, phase and `key`."""
    body = value.model_dump(mode="json") if isinstance(value, Value) else dict(value)
    return Record(
        id=make_id("record", parent_id, incident_id, kind, phase, key),
        kind=kind,
        phase=phase,
        service=service,
        parent_id=parent_id,
        incident_id=incident_id,
        at_s=at_s,
        body=body,
    )


def incident(value: Incident) -> Record:
    return record(
        "open_incidents",
        value,
        service=value.service,
        at_s=value.detected_at_s,
        incident_id=value.id,
        parent_id=None,
        key=value.attempt,
    )


def plan(value: Plan) -> Record:
    return _of_plan(value, "choose_action", value, value.decided_at_s)


def refusal(value: Refusal, of: Plan) -> Record:
    return _of_plan(of, "guard", value, value.at_s, key=value.id)


def intent(value: Plan, at_s: float) -> Record:
    """Before the change. kind: the first lever's step; hold when the plan changes nothing."""
    return _of_plan(value, _step(value), value, at_s, phase="intent")


def receipt(value: Receipt, of: Plan) -> Record:
    return _of_plan(of, LEVER_STEPS.get(value.lever, value.lever), value, value.at_s, key=value.lever)


def outcome(value: Outcome, of: Plan, look: int = 1) -> Record:
    return _of_plan(of, "verify_p95", value, value.at_s, key=look)


def decision(value: Decision, of: Plan, at_s: float) -> Record:
    """What follows from an outcome. A decision to roll back is a `guard`-free intent of its own: see `rollback`."""
    return _of_plan(of, value.step, value, at_s, key=("decision", value.step))


def rollback(of: Plan, at_s: float, why: str = "") -> Record:
    """Before a roll-back: the intent to undo `of`. body: the inverse plan, and why."""
    inverse = of.inverse()
    return _of_plan(of, "roll_back", inverse.model_copy(update={"reason": why or inverse.reason}), at_s, phase="intent")


def rollback_receipt(value: Receipt, of: Plan) -> Record:
    return _of_plan(of, "roll_back", value, value.at_s, key=("receipt", value.lever))


def closing(of: Plan, at_s: float, why: str, how: str) -> Record:
    """The last record of a change that ends without a decision of its own. how: a recovery action or "handed_back"."""
    kind = "keep" if how in ("kept", "handed_back") else "hold"
    return _of_plan(of, kind, {"step": kind, "how": how, "reason": why}, at_s, key=("closing", how))


def _step(value: Plan) -> str:
    return LEVER_STEPS[value.chosen.levers[0]] if value.chosen.changes else "hold"


def _of_plan(
    of: Plan,
    kind: str,
    value: Value | dict[str, object],
    at_s: float,
    *,
    phase: Literal["intent", "result"] = "result",
    key: object = "",
) -> Record:
    return record(
        kind, value, service=of.service, at_s=at_s, incident_id=of.incident_id, parent_id=of.id, phase=phase, key=key
    )
