"""choose_action, guard, and the three levers: from an incident to a receipt.

The order is the safety: plan into the ledger, guards, intent with the old values into the ledger (which claims the
service), then the change, then the receipt. A step that is run again finds its own records and does nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from detection.errors import Permanent, SlotuneError
from detection.model import Incident, Mode, Service, make_id
from tuning.errors import ClaimRefused, NotApplied, OutcomeUnknown, QuantizationRefused
from tuning.guards import (
    GuardFacts,
    Truth,
    Unreadable,
    caps_of,
    effective_mode,
    foreign_since,
    guard,
    last_written,
)
from tuning.loop import canary, records
from tuning.loop.learn import drift_figures
from tuning.loop.observe import look_back, observe, past
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Canary, Change, Knob, OpenChange, Plan, Receipt, Refusal, Setting
from tuning.policies.promotion import settle_s
from tuning.ports import PerReplica
from tuning.query import Query

_log = logging.getLogger(__name__)
QUALITY = ("accuracy", "agreement")
"""Signals whose drift says that the inputs changed; the amount of traffic says nothing about them."""


def choose_action(
    parts: Parts,
    incident: Incident,
    at_s: float,
    *,
    attempt: int = 1,
    lever: str | None = None,
    dry_run: bool = False,
) -> Plan:
    """The plan for one attempt at an incident, in the ledger. `lever`: the only lever that may be used (by hand)."""
    plan_id = make_id(incident.id, "plan", attempt)
    if parts.ledger.get(plan_id) is not None:
        return records.load(parts.ledger, plan_id, Plan)
    service = parts.service(incident.service)
    if lever is not None:
        service = _only(service, lever)
    since_s = incident.opened_at_s if incident.anomalies else None
    observation = replace(observe(parts, service, at_s), since_s=since_s)
    plan = parts.planner.propose(incident, observation, past(parts, service.name, incident.id, at_s))
    plan = plan.model_copy(
        update={
            "id": plan_id,
            "attempt": attempt,
            "dry_run": dry_run,
            "mode": mode_of(service, plan),
            "settle_s": max(plan.settle_s, _least_settle_s(parts, service, plan, observation.window.percentile_source)),
        }
    )
    parts.ledger.put(records.plan_record(plan))
    _log.info("choose_action %s: %s (%s)", service.name, plan.chosen.text(), plan.reason or plan.chosen.reason)
    return plan


def mode_of(service: Service, plan: Plan) -> Mode:
    """The most careful mode among those of the levers that the plan uses; the service's where it uses none."""
    return effective_mode(service, plan.chosen.levers, "act") if plan.chosen.changes else service.mode


def guard_plan(parts: Parts, plan: Plan, at_s: float, *, approved: bool = False) -> Refusal | None:
    """Run every guard on fresh facts; a refusal is in the ledger. None: nothing speaks against the change.

    The levers are read again: between the plan and the change somebody may have moved them.
    """
    service = parts.service(plan.service)
    kinds = (*LEVER_STEPS.values(), "roll_back", "guard")
    own = parts.ledger.find(Query(kinds=kinds, services=(service.name,), phase="result"))
    caps = caps_of(parts.settings.safety, service, plan.chosen.levers)
    window = parts.source.read([service], ("p95_ms", "error_rate"), look_back(parts, at_s)).get(service.name)
    facts = GuardFacts(
        at_s=at_s,
        service=service,
        safety=parts.settings.safety,
        settings_now=truth(parts, plan),
        standing=parts.ledger.standing(at_s, caps.memory_s),
        last_written=last_written(own, service.name),
        foreign_since_s=foreign_since(own, service.name),
        stale_s=window.stale_s.get("p95_ms") if window is not None else None,
        error_rate=window.last("error_rate", within_s=120.0) if window is not None else None,
        approved=approved,
    )
    refusal = guard(plan, facts)
    if refusal is not None:
        parts.ledger.put(records.refusal_record(refusal, plan))
    return refusal


def truth(parts: Parts, plan: Plan) -> Truth:
    """What the levers of a plan really stand at, or why that cannot be told."""
    service = parts.service(plan.service)
    found: dict[str, Setting | Unreadable] = {}
    for change in plan.chosen.changes:
        try:
            found[change.lever] = parts.actuator(service, change.lever).read(service)
        except SlotuneError as error:
            found[change.lever] = Unreadable(str(error))
    return found


def _least_settle_s(parts: Parts, service: Service, plan: Plan, percentile_source: str) -> float:
    """Before this has passed, P95 still mixes the old setting with the new."""
    levers = [service.levers[c.lever] for c in plan.chosen.changes if c.lever in service.levers]
    waits = [settle_s(parts.settings.verification, lever, percentile_source) for lever in levers]
    return max([parts.settings.prometheus.rate_window_s, *waits])


def _only(service: Service, lever: str) -> Service:
    if lever not in service.levers:
        known = ", ".join(sorted(service.levers)) or "none"
        raise Permanent(f"service {service.name!r} has no lever {lever!r} in services.yaml; configured: {known}")
    return service.model_copy(update={"levers": {lever: service.levers[lever]}})


def hold(parts: Parts, plan: Plan, at_s: float, reason: str = "") -> str:
    """Nothing is changed, and the ledger says why."""
    text = reason or plan.reason or plan.chosen.reason
    parts.ledger.put(records.hold_record(plan, text, at_s))
    return text


def pull_lever(
    parts: Parts, plan: Plan, lever: str, at_s: float, *, run: str = "", now: Callable[[], float] | None = None
) -> Receipt:
    """Make one change of a plan, on one replica first where the lever can. Idempotent: a receipt that says "applied"
    is the end of it; after a canary that did well, the next call brings the other replicas.

    now: epoch seconds when it is asked: an INT8 build may be refused long after `at_s`, when the task began.

    Raises ClaimRefused, LedgerUnavailable (nothing was changed), and OutcomeUnknown or another Temporary when
    the fate of the change is not known: the intent stays open, and the next try or the reconciliation settles it.
    A permanent refusal becomes a receipt with applied False.
    """
    change = next(c for c in plan.chosen.changes if c.lever == lever)
    receipt_id = make_id(plan.id, lever, "receipt")
    if parts.ledger.get(receipt_id) is not None:
        return records.load(parts.ledger, receipt_id, Receipt)
    service = parts.service(plan.service)
    earlier = next((c for c in parts.ledger.open_changes() if c.plan_id == plan.id), None)
    began = canary.stage(parts.ledger, plan)
    first, note = (began.first, "") if began is not None else (None, "")
    if began is None and earlier is None:
        first, note = canary.begin(parts, service, plan, lever, at_s)
    earlier_s = None if earlier is None else earlier.opened_at_s
    if first is not None and (began is None or began.alone):
        verdict = canary.last_outcome(parts.ledger, plan.id)
        if verdict is None or verdict[0].verdict != "improved":
            return _pull_first(parts, service, plan, change, first, at_s, earlier_s, run=run)
    if first is not None:
        earlier_s = canary.follow(parts.ledger, plan, lever, at_s, "the first replica did better than its peers")
    claim(parts, plan, at_s, run=run)
    receipt = _applied(parts, service, plan, change, now or (lambda: at_s), earlier_s)
    if first is not None and receipt.applied:
        receipt = receipt.model_copy(update={"before": {**receipt.before, **_moved(change)}, "changed": True})
    if note:
        receipt = receipt.model_copy(update={"reason": f"{receipt.reason}; {note}"})
    receipt = receipt.model_copy(update={"id": receipt_id, "plan_id": plan.id, "service": plan.service})
    parts.ledger.update_change(plan.id, "made", records.receipt_record(receipt, plan))
    return receipt


def _pull_first(
    parts: Parts,
    service: Service,
    plan: Plan,
    change: Change,
    first: Canary,
    at_s: float,
    earlier_s: float | None,
    *,
    run: str,
) -> Receipt:
    """Change the first replica alone."""
    receipt_id = canary.receipt_id(first)
    if parts.ledger.get(receipt_id) is not None:
        return records.load(parts.ledger, receipt_id, Receipt)
    claim(parts, plan, at_s, run=run)
    receipt = _applied(parts, service, plan, change, lambda: at_s, earlier_s, replica=first.replica)
    receipt = receipt.model_copy(
        update={"id": receipt_id, "plan_id": plan.id, "service": plan.service, "replica": first.replica}
    )
    parts.ledger.update_change(plan.id, "made", records.receipt_record(receipt, plan))
    return receipt


def _applied(
    parts: Parts,
    service: Service,
    plan: Plan,
    change: Change,
    now: Callable[[], float],
    earlier_s: float | None,
    *,
    replica: str = "",
) -> Receipt:
    """The actuator's receipt for all replicas or one; a permanent refusal is a receipt too."""
    actuator, key = parts.actuator(service, change.lever), f"{plan.id}:{change.lever}"
    service = with_drift(service, drift_figures(parts.ledger))
    try:
        if replica and isinstance(actuator, PerReplica):
            receipt = actuator.apply_to(service, change, replica, key=f"{key}:{replica}")
        else:
            receipt = actuator.apply(service, change, key=key)
    except Permanent as error:
        receipt = _refused(parts, service, plan, change, error, now())
    return receipt if earlier_s is None else _made_earlier(receipt, change, earlier_s)


def _moved(change: Change) -> dict[str, Knob]:
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


def _made_earlier(receipt: Receipt, change: Change, opened_at_s: float) -> Receipt:
    """An earlier try of this plan had claimed the service, and the new value is there: that try made it, and died
    before it could say so. Its change is proven like any other, as if made when it was claimed."""
    moved = _moved(change)
    if receipt.changed or not receipt.applied or all(receipt.before.get(k) == v for k, v in moved.items()):
        return receipt
    return receipt.model_copy(
        update={
            "before": {**receipt.before, **moved},
            "changed": True,
            "at_s": opened_at_s,
            "reason": f"made by an earlier try that ended before it could write this down; {receipt.reason}",
        }
    )


def claim(parts: Parts, plan: Plan, at_s: float, *, run: str = "", counted: bool = True) -> None:
    """The intent with its old values into the ledger, counted against the caps in the same transaction.

    counted False: for a change that is in force already. ClaimRefused, with the refusal in the ledger, when a cap is
    reached; ChangeAlreadyOpen when another plan holds the service.
    """
    opened = OpenChange(
        plan_id=plan.id,
        service=plan.service,
        incident_id=plan.incident_id,
        state="intended",
        plan=plan,
        opened_at_s=at_s,
        run=run,
    )
    caps = caps_of(parts.settings.safety, parts.service(plan.service), plan.chosen.levers) if counted else None
    try:
        parts.ledger.open_change(opened, records.intent_record(plan, at_s), caps)
    except ClaimRefused as error:
        refusal = Refusal(
            id=make_id(plan.id, "refusal", error.guard, at_s),
            plan_id=plan.id,
            service=plan.service,
            guard=error.guard,
            reason=str(error),
            at_s=at_s,
            until_s=error.until_s,
        )
        parts.ledger.put(records.refusal_record(refusal, plan))
        raise


def _refused(parts: Parts, service: Service, plan: Plan, change: Change, error: Permanent, at_s: float) -> Receipt:
    """What is true after a refusal is read, not assumed. OutcomeUnknown where it cannot be read."""
    stood = dict(change.old)
    if isinstance(error, NotApplied) and error.after:  # what the actuator saw at the replica that took another value
        stood, truth = stood | error.before, error.after
    else:
        try:
            shown = parts.actuator(service, change.lever).read(service).values
        except SlotuneError as unread:
            raise OutcomeUnknown(f"{error}; what stands there now cannot be read ({unread})") from error
        truth = {k: v for k, v in shown.items() if k in change.new}
    return Receipt(
        id="",
        plan_id=plan.id,
        service=plan.service,
        lever=change.lever,
        before=stood,
        after=truth,
        applied=False,
        changed=any(truth.get(k) != stood.get(k) for k in change.new),
        at_s=at_s,
        reason=str(error),
        evidence=error.evidence if isinstance(error, QuantizationRefused) else {},
    )
