"""How the loop's values become lines of the ledger, and how they are found again. Ids come from the values alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

from detection.model import Incident, Value, make_id
from tuning.attempt import call_id, of, receipt_id, value
from tuning.errors import Permanent
from tuning.model import LEVER_STEPS, Change, Decision, Outcome, Plan, Receipt, Record, Refusal, Report
from tuning.orders import ORDER, Order, orders_of
from tuning.ports import Ledger
from tuning.query import Query

V = TypeVar("V", bound=Value)
BEGUN = "begun"
"""The kind of the line by which a loop without a scheduler begins an attempt; a scheduler has its runs for that."""


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


def begun_record(run_id: str, number: int, incident: Incident, attempt: int, run: str, at_s: float) -> Record:
    """That an attempt has begun, and by which run: of two loops that want to begin it, one writes this line.

    number: how many runs have begun it and died of it before.
    """
    return Record(
        id=f"{run_id}:begun:{number}",
        kind=BEGUN,
        service=incident.service,
        parent_id=incident.id,
        incident_id=incident.id,
        at_s=at_s,
        body={"run": run, "attempt": attempt},
    )


def run_of(record: Record) -> str:
    """Which run began an attempt, by its line; "" where the line does not say."""
    return str(record.body.get("run", ""))


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
    return noted(plan, f"{plan.id}:hold", "hold", {"plan_id": plan.id, "reason": reason}, at_s)


def intent_record(plan: Plan, at_s: float) -> Record:
    """The change with its old values, written before anything is touched."""
    step = LEVER_STEPS[plan.chosen.changes[0].lever]
    return _record(step, f"{plan.id}:intent", plan, plan.service, plan.id, plan.incident_id, at_s, phase="intent")


def call_record(plan: Plan, lever: str, at_s: float) -> Record:
    """The call of one lever of several begins: what is read of this lever later may be this call's doing."""
    body: dict[str, object] = {"lever": lever, "reason": f"{lever} is being set"}
    record = noted(plan, call_id(plan.id, lever), LEVER_STEPS[lever], body, at_s)
    return record.model_copy(update={"phase": "intent"})


def receipt_record(receipt: Receipt, plan: Plan) -> Record:
    step = LEVER_STEPS[receipt.lever] if plan.rollback_of is None else "roll_back"
    return _record(step, receipt.id, receipt, plan.service, plan.id, plan.incident_id, receipt.at_s)


def found_record(plan: Plan, change: Change, at_s: float, reason: str) -> Record:
    """The receipt of a change that is in force and that nobody wrote down: the read-back is the receipt."""
    receipt = Receipt(
        id=receipt_id(plan.id, change.lever),
        plan_id=plan.id,
        service=plan.service,
        lever=change.lever,
        before=change.old,
        after=change.new,
        applied=True,
        changed=True,
        at_s=at_s,
        reason=reason,
        answered=False,
    )
    return receipt_record(receipt, plan)


def settle_record(plan: Plan, settle_s: float, reason: str, at_s: float) -> Record:
    """A longer settle time than planned, found out after the change."""
    body: dict[str, object] = {"plan_id": plan.id, "settle_s": settle_s, "reason": reason}
    return noted(plan, make_id(plan.id, "settle", round(settle_s, 3)), "settle", body, at_s)


def outcome_record(outcome: Outcome, plan: Plan) -> Record:
    return _record("verify_p95", outcome.id, outcome, plan.service, plan.id, plan.incident_id, outcome.at_s)


def decision_record(decision: Decision, plan: Plan, decided_by: str, at_s: float) -> Record:
    """What follows, under the step that carries it out; one verdict (`decided_by`, an id) has one decision, the first.

    That the other replicas follow the first is an intent of their change.
    """
    phase: Literal["intent", "result"] = "intent" if decision.step in LEVER_STEPS.values() else "result"
    record_id = f"{decided_by}:decision"
    return _record(decision.step, record_id, decision, plan.service, plan.id, plan.incident_id, at_s, phase=phase)


def closing_of(plan: Plan, at_s: float, kind: str, reason: str, *, unmade: bool = False) -> Record:
    """The end of a change. unmade: the old setting is in force, as was read back, and the change may still land."""
    body: dict[str, object] = {"plan_id": plan.id, "closed": True, "reason": reason, "unmade": unmade}
    return noted(plan, f"{plan.id}:closed", kind, body, at_s)


def noted(plan: Plan, record_id: str, kind: str, body: dict[str, object], at_s: float) -> Record:
    """A record about a plan whose body is no value of the flow."""
    return Record(
        id=record_id,
        kind=kind,
        service=plan.service,
        parent_id=plan.id,
        incident_id=plan.incident_id,
        at_s=at_s,
        body=body,
    )


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
    """The value of a record; Permanent when the ledger does not hold it, or holds what cannot be read."""
    record = ledger.get(record_id)
    if record is None:
        raise Permanent(f"the ledger holds no {cls.__name__.lower()} {record_id!r}; was it moved or emptied?")
    found = value(record, cls)
    if found is None:
        raise Permanent(f"the {cls.__name__.lower()} {record_id!r} in the ledger cannot be read by this version")
    return found


def receipts(ledger: Ledger, plan: Plan) -> list[Receipt]:
    """The receipts of a plan, oldest first."""
    return list(of(ledger, plan).receipts)


def orders(ledger: Ledger, service: str) -> list[Order]:
    """What people said about a service, or about all of them; oldest first."""
    return orders_of(ledger.find(Query(kinds=(ORDER,), services=(service, ""), order="written")))
