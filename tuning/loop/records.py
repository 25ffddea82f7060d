"""How the loop's values become lines of the ledger, and how they are found again. Ids come from the values alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

from detection.model import Incident, Value, make_id
from tuning.errors import Permanent
from tuning.model import LEVER_STEPS, Decision, Outcome, Plan, Receipt, Record, Refusal, Report
from tuning.ports import Ledger
from tuning.query import Query

V = TypeVar("V", bound=Value)


def incident_record(incident: Incident, before: Incident | None = None) -> Record:
    """The opening of an incident, or (with its last version `before`) what is new about it: tier, symptom, signals.

    The same news give the same id, so that a sweep that is run again, or saw nothing new, adds nothing.
    """
    record_id, parent = incident.id, None
    if before is not None:
        news = make_id(incident.tier, incident.severity, incident.symptom, *sorted(incident.signals))
        known = make_id(before.tier, before.severity, before.symptom, *sorted(before.signals))
        record_id, parent = (incident.id, None) if news == known else (f"{incident.id}:{news}", incident.id)
    at_s = incident.detected_at_s
    return _record("open_incidents", record_id, incident, incident.service, parent, incident.id, at_s)


def closing_record(incident: Incident, at_s: float, reason: str) -> Record:
    return Record(
        id=f"{incident.id}:closed",
        kind="open_incidents",
        service=incident.service,
        parent_id=incident.id,
        incident_id=incident.id,
        at_s=at_s,
        body={"closed": True, "reason": reason},
    )


def plan_record(plan: Plan) -> Record:
    """A plan; an undoing plan is the intent of a roll-back, and follows from the plan that it undoes."""
    if plan.rollback_of is None:
        return _record(
            "choose_action", plan.id, plan, plan.service, plan.incident_id, plan.incident_id, plan.decided_at_s
        )
    at_s, parent = plan.decided_at_s, plan.rollback_of
    return _record("roll_back", plan.id, plan, plan.service, parent, plan.incident_id, at_s, phase="intent")


def refusal_record(refusal: Refusal, plan: Plan) -> Record:
    return _record("guard", refusal.id, refusal, plan.service, plan.id, plan.incident_id, refusal.at_s)


def hold_record(plan: Plan, reason: str, at_s: float) -> Record:
    body: dict[str, object] = {"plan_id": plan.id, "reason": reason}
    return Record(
        id=f"{plan.id}:hold",
        kind="hold",
        service=plan.service,
        parent_id=plan.id,
        incident_id=plan.incident_id,
        at_s=at_s,
        body=body,
    )


def intent_record(plan: Plan, at_s: float) -> Record:
    """The change with its old values, written before anything is touched."""
    step = LEVER_STEPS[plan.chosen.changes[0].lever]
    return _record(step, f"{plan.id}:intent", plan, plan.service, plan.id, plan.incident_id, at_s, phase="intent")


def receipt_record(receipt: Receipt, plan: Plan) -> Record:
    step = LEVER_STEPS[receipt.lever] if plan.rollback_of is None else "roll_back"
    return _record(step, receipt.id, receipt, plan.service, plan.id, plan.incident_id, receipt.at_s)


def settle_record(plan: Plan, settle_s: float, reason: str, at_s: float) -> Record:
    """A longer settle time than planned, found out after the change."""
    return Record(
        id=make_id(plan.id, "settle", round(settle_s, 3)),
        kind="settle",
        service=plan.service,
        parent_id=plan.id,
        incident_id=plan.incident_id,
        at_s=at_s,
        body={"plan_id": plan.id, "settle_s": settle_s, "reason": reason},
    )


def outcome_record(outcome: Outcome, plan: Plan) -> Record:
    return _record("verify_p95", outcome.id, outcome, plan.service, plan.id, plan.incident_id, outcome.at_s)


def decision_record(decision: Decision, plan: Plan, outcome: Outcome) -> Record:
    name = f"{outcome.id}:{decision.step}"
    return _record(decision.step, name, decision, plan.service, plan.id, plan.incident_id, outcome.at_s)


def decisions(records: Iterable[Record]) -> list[Decision]:
    """The decisions among records, oldest first: keep and roll_back also hold receipts and closings."""
    found = [r for r in records if r.kind in ("keep", "roll_back") and "next" in r.body]
    return [Decision.model_validate(r.body) for r in sorted(found, key=lambda r: (r.at_s, r.id))]


def pulled(history: Iterable[Record]) -> int:
    """How many plans of an incident really changed something (roll-backs excluded)."""
    steps = set(LEVER_STEPS.values())
    return len({r.parent_id for r in history if r.kind in steps and r.phase == "result" and r.body.get("changed")})


def report_record(report: Report, phase: Literal["intent", "result"], at_s: float, note: str = "") -> Record:
    """intent: the report as it is to be sent. result: it was sent (or never will be: `note` says why)."""
    service, incident_id = report.incident.service, report.incident.id
    if phase == "intent":
        return _record("email_report", report.id, report, service, report.plan.id, incident_id, at_s, phase="intent")
    return Record(
        id=f"{report.id}:sent",
        kind="email_report",
        service=service,
        parent_id=report.id,
        incident_id=incident_id,
        at_s=at_s,
        body={"note": note},
    )


def _record(
    kind: str,
    record_id: str,
    value: Value,
    service: str,
    parent_id: str | None,
    incident_id: str | None,
    at_s: float,
    phase: Literal["intent", "result"] = "result",
) -> Record:
    return Record(
        id=record_id,
        kind=kind,
        phase=phase,
        service=service,
        parent_id=parent_id,
        incident_id=incident_id,
        at_s=at_s,
        body=value.model_dump(mode="json"),
    )


def load(ledger: Ledger, record_id: str, cls: type[V]) -> V:
    """The value of a record; Permanent when the ledger does not hold it."""
    record = ledger.get(record_id)
    if record is None:
        raise Permanent(f"the ledger holds no {cls.__name__.lower()} {record_id!r}; was it moved or emptied?")
    return cls.model_validate(record.body)


def find(
    ledger: Ledger, kind: str, cls: type[V], *, parent_id: str, phase: Literal["intent", "result"] = "result"
) -> list[V]:
    """The values of one kind that follow from a parent, oldest first."""
    records = ledger.find(Query(kinds=(kind,), parent_ids=(parent_id,), phase=phase))
    return [cls.model_validate(r.body) for r in sorted(records, key=lambda r: (r.at_s, r.id))]


def receipts(ledger: Ledger, plan: Plan) -> list[Receipt]:
    kinds = {LEVER_STEPS[change.lever] for change in plan.chosen.changes}
    if plan.rollback_of is not None:
        kinds = {"roll_back"}
    found = ledger.find(Query(kinds=tuple(sorted(kinds)), parent_ids=(plan.id,), phase="result"))
    return [Receipt.model_validate(r.body) for r in sorted(found, key=lambda r: (r.at_s, r.id))]


def newest(values: Sequence[V]) -> V | None:
    return values[-1] if values else None
