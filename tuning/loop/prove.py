"""settle, verify_p95, keep and roll_back: what was changed is proven, or it is undone and that is proven."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from detection.errors import Permanent
from detection.model import Incident, MetricWindow, Service, Span, make_id
from detection.signals import SIGNALS
from tuning.loop import canary, records
from tuning.loop.observe import buckets_beside, latency_model, look_back
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Decision, Observation, Outcome, Plan, Receipt, Record, Setting
from tuning.planning.expected import expected_p95_ms
from tuning.policies.promotion import decide, decide_canary
from tuning.ports import Concluding, Evidence
from tuning.query import Query
from tuning.verification import draining

_log = logging.getLogger(__name__)
_HISTORY_S = 4 * 3600.0
_HISTORY_POINTS = 5000


def made_at_s(parts: Parts, plan: Plan) -> float | None:
    """When the last change of a plan was made; None when none was."""
    return max((r.at_s for r in records.receipts(parts.ledger, plan) if r.changed), default=None)


def look_until_s(parts: Parts, plan: Plan, *, look: int = 1) -> float:
    """When the first (1) or the longer, second (2) look at a change is over; absolute, so that a restart waits on."""
    verification = parts.settings.verification
    made = made_at_s(parts, plan)
    start = plan.decided_at_s if made is None else made
    longer = verification.longer_look_s if look > 1 else 0.0
    return start + settle_s(parts, plan) + verification.look_s + longer


def settle_s(parts: Parts, plan: Plan) -> float:
    """How long a plan's change settles: as planned, or what `settle` found out since."""
    found = parts.ledger.find(Query(kinds=("settle",), parent_ids=(plan.id,)))
    return max([plan.settle_s, *(s for r in found if isinstance(s := r.body.get("settle_s"), float))])


def settle(parts: Parts, plan: Plan, at_s: float) -> float:
    """Until when to look, now that the first wait is over: later where the queue was (or is) still draining.

    Bounded by verification.drain_max; what was found is in the ledger, so that a run that is killed waits no longer.
    """
    made, until_s = made_at_s(parts, plan), look_until_s(parts, plan)
    if made is None or at_s < until_s - 1.0:
        return until_s
    service, planned_s = parts.service(plan.service), settle_s(parts, plan)
    span = _grid(made, at_s, parts.settings.prometheus.step_s)
    window = parts.source.read([service], ("queue_depth", "qps"), span).get(service.name)
    if window is None or "queue_depth" not in window.values:
        return until_s
    verification = parts.settings.verification
    found = draining.settled(
        window.span.times() - made,
        window.values["queue_depth"],
        settle_s=planned_s,
        rate_window_s=parts.settings.prometheus.rate_window_s,
        floor=_no_queue(service, window),
        bound_s=plan.settle_s + verification.drain_max_s,
    )
    # A wait that is hardly longer is not worth another: the look itself reaches beyond it.
    if found.settle_s > planned_s + verification.look_s / 4:
        parts.ledger.put(records.settle_record(plan, found.settle_s, found.reason, at_s))
        _log.info("settle %s: %s; looking from %.0f s after the change", plan.service, found.reason, found.settle_s)
    return look_until_s(parts, plan)


def _no_queue(service: Service, window: MetricWindow) -> float:
    """Waiting requests that cost a quarter of the SLO (Little's law): a queue no longer than that is no backlog."""
    rates = window.values.get("qps")
    known = rates[np.isfinite(rates)] if rates is not None else np.empty(0)
    return max(2.0, float(known.mean()) * service.slo.p95_ms / 4e3 if known.size else 0.0)


def verify_p95(parts: Parts, plan: Plan, at_s: float, *, look: int = 1) -> tuple[Outcome, Decision]:
    """The verdict on a plan (or on a roll-back) and what follows from it; the outcome is in the ledger.

    While one replica alone is changed, the verdict is on it, beside its unchanged peers.
    """
    stage = canary.stage(parts.ledger, plan) if plan.rollback_of is None else None
    if stage is not None and stage.widening and (last := canary.last_outcome(parts.ledger, plan.id)) is not None:
        return last[0], _follow(parts, last[0], plan, last[1], alone=True)
    alone = stage is not None and stage.alone
    outcome_id = canary.outcome_id(plan.id, look) if alone else make_id(plan.id, "outcome", look)
    if parts.ledger.get(outcome_id) is not None:
        outcome = records.load(parts.ledger, outcome_id, Outcome)
    else:
        outcome = _judge(parts, plan, at_s).model_copy(
            update={"id": outcome_id, "plan_id": plan.id, "service": plan.service, "at_s": at_s}
        )
        if parts.ledger.put(records.outcome_record(outcome, plan)):
            _log.info("verify_p95 %s: %s, %s", plan.service, outcome.verdict, outcome.reason)
        else:
            # Judged at the same time by a run that was taken for dead: one plan has one verdict, the first.
            outcome = records.load(parts.ledger, outcome_id, Outcome)
    return outcome, _follow(parts, outcome, plan, look, alone=alone)


def _follow(parts: Parts, outcome: Outcome, plan: Plan, look: int, *, alone: bool = False) -> Decision:
    steps = Query(kinds=tuple(LEVER_STEPS.values()), incident_ids=(plan.incident_id,), phase="result")
    pulled = records.pulled(parts.ledger.find(steps))
    if alone:
        decision = decide_canary(outcome, pulled, parts.settings.safety, look > 1)
        refused = next((r for r in records.receipts(parts.ledger, plan) if not r.replica and not r.applied), None)
        if refused is None or decision.step in ("settle", "roll_back"):
            return decision
        return Decision(
            step="roll_back", next="ask_person", reason=f"The other replicas could not follow: {refused.reason}"
        )
    return decide(outcome, plan, pulled, parts.settings.safety, look > 1)


def _judge(parts: Parts, plan: Plan, at_s: float) -> Outcome:
    service = parts.service(plan.service)
    made = made_at_s(parts, plan)
    if made is None:
        raise Permanent(f"plan {plan.id} has no change to verify")
    first = min(r.at_s for r in records.receipts(parts.ledger, plan) if r.changed)
    stage = canary.stage(parts.ledger, plan)
    if stage is not None and stage.alone:
        step_s = parts.settings.prometheus.step_s
        spans = (
            _grid(_before_from_s(parts, plan, first), first, step_s),
            _grid(made + plan.settle_s, at_s, step_s),
        )
        (own, peers), (own_after, peers_after) = (canary.sides(parts, service, stage.first, s) for s in spans)
        outcome = parts.verifier.judge(plan, own, own_after, (peers, peers_after))
        return outcome.model_copy(update={"resolved": None})  # one replica does not tell for the service
    before = _evidence(parts, service, _before_from_s(parts, plan, first), first, history=True)
    after = _evidence(parts, service, made + settle_s(parts, plan), at_s, history=False)
    expected = [_expected_p95_ms(parts, service, plan, first, side.window) for side in (before, after)]
    return parts.verifier.judge(
        plan, replace(before, expected_p95_ms=expected[0]), replace(after, expected_p95_ms=expected[1])
    )


def _expected_p95_ms(
    parts: Parts, service: Service, plan: Plan, changed_s: float, window: MetricWindow
) -> float | None:
    """What the latency model expects of the OLD setting at the load of `window`; None where it cannot tell."""
    span = look_back(parts, changed_s)
    past = parts.source.read([service], tuple(SIGNALS), span).get(service.name)
    if past is None:
        return None
    old = Observation(
        service=service,
        window=past,
        at_s=changed_s,
        settings={c.lever: Setting(lever=c.lever, values=c.old) for c in plan.chosen.changes},
        latency_model=latency_model(parts, service),
    )
    return expected_p95_ms(old, parts.settings.planning, window)


def _before_from_s(parts: Parts, plan: Plan, first_s: float) -> float:
    """Where the look before the change begins: not before the incident, when P95 was still well."""
    start_s = first_s - parts.settings.verification.look_s
    if plan.rollback_of is not None:
        return start_s
    incident = records.load(parts.ledger, plan.incident_id, Incident)
    onset_s = incident.opened_at_s if incident.anomalies else start_s
    return min(max(start_s, onset_s), first_s - 2 * parts.settings.prometheus.step_s)


def _evidence(parts: Parts, service: Service, start_s: float, end_s: float, *, history: bool) -> Evidence:
    step_s = parts.settings.prometheus.step_s
    span = _grid(start_s, end_s, step_s)
    signals = ("p95_ms", "p50_ms", "qps", "error_rate", "queue_ms", "queue_depth", "accuracy", "agreement", "busy",
               "rows_per_batch")  # fmt: skip
    window = parts.source.read([service], signals, span).get(service.name) or MetricWindow(service.name, span, {})
    past = None
    if history:
        # At the very step of the look: autocorrelation belongs to a step.
        past_span = _grid(start_s - min(_HISTORY_S, _HISTORY_POINTS * step_s), start_s, step_s)
        past = parts.source.read([service], ("p95_ms", "qps"), past_span).get(service.name)
    lever = service.levers.get("precision")
    asked = lever.options.get("min_agreement") if lever is not None else None
    return Evidence(
        window=window,
        buckets=buckets_beside(parts, service, window),
        history=past,
        slo=service.slo,
        min_agreement=float(asked) if isinstance(asked, (int, float)) else None,
    )


def _grid(start_s: float, end_s: float, step_s: float) -> Span:
    first, last = -(-start_s // step_s) * step_s, end_s // step_s * step_s
    return Span(first, max(first, last), step_s)


def last_verdict(parts: Parts, plan: Plan) -> tuple[Outcome, Decision]:
    """The newest outcome of a plan and what follows from it; Permanent when it was never judged."""
    for look in (2, 1):
        outcome_id = make_id(plan.id, "outcome", look)
        if parts.ledger.get(outcome_id) is not None:
            outcome = records.load(parts.ledger, outcome_id, Outcome)
            return outcome, _follow(parts, outcome, plan, look)
    if (last := canary.last_outcome(parts.ledger, plan.id)) is not None:
        return last[0], _follow(parts, last[0], plan, last[1], alone=True)
    raise Permanent(f"plan {plan.id} was never judged")


def nothing_changed(parts: Parts, plan: Plan) -> bool:
    """Whether every lever of a plan has its receipt and none of them moved anything."""
    receipts = records.receipts(parts.ledger, plan)
    return len(receipts) == len(plan.chosen.changes) and not any(r.changed for r in receipts)


def keep(parts: Parts, plan: Plan, outcome: Outcome, decision: Decision, at_s: float) -> Decision:
    """The change stays: the service is free again, or the change is leased until it can be handed back."""
    conclude(parts, plan)
    record = records.decision_record(decision, plan, outcome)
    if plan.lease_s is not None:
        parts.ledger.update_change(plan.id, "leased", record, expires_at_s=at_s + plan.lease_s)
    else:
        parts.ledger.update_change(plan.id, "closed", record)
    return decision


def conclude(parts: Parts, plan: Plan) -> None:
    """End what a change kept running until its verdict, before its end is written down: a process that dies in
    between leaves the change open, and whoever closes it does this again. Raises a Temporary where a replica may
    still be at it."""
    service = parts.service(plan.service)
    for change in plan.chosen.changes:
        try:
            actuator = parts.actuator(service, change.lever)
            if isinstance(actuator, Concluding):
                actuator.conclude(service)
        except Permanent as error:
            _log.warning("%s: %s after the verdict: %s", plan.service, change.lever, error)


def roll_back(parts: Parts, plan: Plan, outcome: Outcome, decision: Decision, at_s: float) -> list[Receipt]:
    """Put the old values back: the same actuator calls with `plan.inverse()`. Idempotent; the service stays claimed.

    Raises a Temporary when the fate of a call is unknown: the next try, or the reconciliation, goes on from there.
    """
    parts.ledger.put(records.decision_record(decision, plan, outcome))
    return undo(parts, plan, at_s)


def undo(parts: Parts, plan: Plan, at_s: float) -> list[Receipt]:
    service = parts.service(plan.service)
    stage = canary.stage(parts.ledger, plan)
    inverse = plan.inverse().model_copy(update={"decided_at_s": at_s})
    begun = not parts.ledger.put(records.plan_record(inverse))
    touched = {r.lever for r in records.receipts(parts.ledger, plan) if r.changed}
    if not touched:
        touched = {change.lever for change in plan.chosen.changes}
    done = []
    for change in inverse.chosen.changes:
        if change.lever not in touched:
            continue
        receipt_id = make_id(inverse.id, change.lever, "receipt")
        if parts.ledger.get(receipt_id) is None:
            receipt = parts.actuator(service, change.lever).apply(service, change, key=f"{inverse.id}:{change.lever}")
            if receipt.changed and stage is not None:  # most replicas stood at the old value all the time
                receipt = receipt.model_copy(update={"before": {**receipt.before, **change.old}})
            if begun and receipt.applied and not receipt.changed:
                # An earlier try put it back and died before it could write that down: still a change to be proven.
                receipt = receipt.model_copy(update={"changed": True, "reason": "put back by an earlier try"})
            receipt = receipt.model_copy(
                update={"id": receipt_id, "plan_id": inverse.id, "service": plan.service}
            )
            parts.ledger.put(records.receipt_record(receipt, inverse))
        done.append(records.load(parts.ledger, receipt_id, Receipt))
    return done


def close_rolled_back(parts: Parts, plan: Plan, at_s: float) -> Outcome | None:
    """After the roll-back has settled: verify it as well, and free the service."""
    inverse = records.load(parts.ledger, plan.inverse().id, Plan)
    outcome = None
    if made_at_s(parts, inverse) is not None:
        outcome, _ = verify_p95(parts, inverse, at_s)
    reason = outcome.reason if outcome else "the old setting was in force already"
    close(parts, plan, at_s, "roll_back", f"rolled back: {reason}", unmade=True)
    return outcome


def close(parts: Parts, plan: Plan, at_s: float, kind: str, reason: str, *, unmade: bool = False) -> None:
    """Free the service, with the reason in the ledger. unmade: the old setting is in force, by what was read back."""
    if not nothing_changed(parts, plan):
        conclude(parts, plan)
    body: dict[str, object] = {"plan_id": plan.id, "closed": True, "reason": reason, "unmade": unmade}
    record = Record(
        id=f"{plan.id}:closed",
        kind=kind,
        service=plan.service,
        parent_id=plan.id,
        incident_id=plan.incident_id,
        at_s=at_s,
        body=body,
    )
    parts.ledger.update_change(plan.id, "closed", record)

