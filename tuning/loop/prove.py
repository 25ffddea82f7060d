"""settle, verify_p95, keep and roll_back: what was changed is proven, or it is undone and that is proven."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from detection.errors import Permanent, Temporary
from detection.model import MetricWindow, Objective, Reading, Service, make_id
from tuning import attempt as attempts
from tuning import cost
from tuning.attempt import Attempt, value
from tuning.errors import NotApplied
from tuning.guards import clocks_apart
from tuning.loop import canary, records
from tuning.loop.call import another_value
from tuning.loop.evidence import before_from_s, evidence, grid, old_setting
from tuning.loop.observe import REPLICA_SIGNALS
from tuning.loop.parts import Parts
from tuning.loop.standing import is_back, is_somebodys, not_ours_any_more, set_again, stands
from tuning.model import Applied, Change, Decision, Outcome, Plan, Receipt
from tuning.planning.expected import expected_p95_ms, unhelped_p95_ms
from tuning.policies import timing
from tuning.policies.promotion import decide, decide_canary
from tuning.ports import Concluding
from tuning.verification import draining
from tuning.verification.restarted import with_replica

_log = logging.getLogger(__name__)
CLOCK_TOLERANCE_S = 60.0
"""A change that was made further than this in the future was made before the clock stepped back."""

_SET_AGAIN = "It was put back, and somebody has set it again, which is final"
_THEIRS = Decision(step="keep", next="ask_person", reason="", theirs=True)


def look_until_s(parts: Parts, plan: Plan | Attempt, *, look: int = 1, now_s: float | None = None) -> float:
    """When the first (1) or the longer, second (2) look at a change is over; now_s: the clock of whoever waits."""
    return timing.look_until_s(attempts.of(parts.ledger, plan), parts.settings.verification, look, now_s)


def settle(parts: Parts, plan: Plan | Attempt, at_s: float) -> float:
    """Until when to look, now that the first wait is over: later where the queue was (or is) still draining.

    Bounded by verification.drain_max; what was found is in the ledger, so that a run that is killed waits no longer.
    """
    return look_until_s(parts, settled(parts, attempts.of(parts.ledger, plan), at_s))


def settled(parts: Parts, attempt: Attempt, at_s: float) -> Attempt:
    """As `settle`: the attempt with the settle time that the queue asks for."""
    plan, made = attempt.plan, attempt.made_s
    if made is None or at_s < look_until_s(parts, attempt) - 1.0:
        return attempt
    service, planned_s = parts.service(plan.service), attempt.settle_s
    span = grid(made, at_s, parts.settings.prometheus.step_s)
    window = parts.source.read([service], ("queue_depth", "qps"), span).get(service.name)
    if window is None or "queue_depth" not in window.values:
        return attempt
    verification = parts.settings.verification
    found = draining.settled(
        window.span.times() - made,
        window.values["queue_depth"],
        settle_s=planned_s,
        rate_window_s=parts.settings.prometheus.rate_window_s,
        floor=_no_queue(plan.objective or service.slo.main, window),
        bound_s=plan.settle_s + verification.drain_max_s,
    )
    # A wait that is hardly longer is not worth another: the look itself reaches beyond it.
    if found.settle_s <= planned_s + verification.look_s / 4:
        return attempt
    record = records.settle_record(plan, found.settle_s, found.reason, at_s)
    parts.ledger.put(record)
    _log.info("settle %s: %s; looking from %.0f s after the change", plan.service, found.reason, found.settle_s)
    return attempt.plus(record)


def _no_queue(promise: Objective, window: MetricWindow) -> float:
    """Waiting requests that cost a quarter of the limit (Little's law): a queue no longer than that is no backlog."""
    rates = window.values.get("qps")
    known = rates[np.isfinite(rates)] if rates is not None else np.empty(0)
    return max(2.0, float(known.mean()) * promise.limit_ms / 4e3 if known.size else 0.0)


def verify_p95(parts: Parts, plan: Plan | Attempt, at_s: float, *, look: int = 1) -> tuple[Outcome, Decision]:
    """The verdict on a plan (or on a roll-back) and what follows from it; both are in the ledger, and whoever carries
    the decision out does not take it again.

    While one replica alone is changed, the verdict is on it, beside its unchanged peers.
    """
    outcome, decision, _ = judged(parts, attempts.of(parts.ledger, plan), at_s, look=look)
    return outcome, decision


def judged(parts: Parts, attempt: Attempt, at_s: float, *, look: int = 1) -> tuple[Outcome, Decision, Attempt]:
    """As `verify_p95`, with the attempt as it then stands."""
    plan, stage = attempt.plan, attempt.stage if attempt.plan.rollback_of is None else None
    if stage is not None and stage.widening and (last := attempt.last_verdict(alone=True)) is not None:
        return _decided(parts, attempt, last[0], last[1], alone=True)
    alone = stage is not None and stage.alone
    outcome = attempt.verdict(look, alone=alone)
    if outcome is None:
        outcome_id = attempts.outcome_id(plan.id, look, alone=alone)
        if not alone and (theirs := not_ours_any_more(parts, attempt)) is not None:
            attempt = decide_otherwise(parts, attempt, _THEIRS.model_copy(update={"reason": theirs}), outcome_id, at_s)
            outcome = _untold(plan, at_s, theirs)
        else:
            outcome = _judge(parts, attempt, at_s)
        identity = {"id": outcome_id, "plan_id": plan.id, "service": plan.service, "at_s": at_s}
        outcome = outcome.model_copy(update=identity)
        record = records.outcome_record(outcome, plan)
        if parts.ledger.put(record):
            _log.info("verify_p95 %s: %s, %s", plan.service, outcome.verdict, outcome.reason)
        else:
            # Judged at the same time by a run that was taken for dead: one plan has one verdict, the first.
            outcome = records.load(parts.ledger, outcome.id, Outcome)
            record = records.outcome_record(outcome, plan)
        attempt = attempt.plus(record)
    return _decided(parts, attempt, outcome, look, alone=alone)


def _decided(
    parts: Parts, attempt: Attempt, outcome: Outcome, look: int, *, alone: bool = False
) -> tuple[Outcome, Decision, Attempt]:
    """What follows from a verdict: as it was written down, or decided now and written down."""
    name = f"{outcome.id}:decision"
    known = next((value(r, Decision) for r in attempt.records if r.id == name), None)
    if known is not None:
        return outcome, known, attempt
    safety, plan = parts.settings.safety, attempt.plan
    twice = look > 1 or clock_went_back(attempt, outcome.at_s)
    if alone:
        decision = decide_canary(outcome, attempt.tries, safety, twice)
    else:
        decision = decide(outcome, plan, attempt.tries, safety, twice)
    record = records.decision_record(decision, plan, outcome.id, outcome.at_s)
    if not parts.ledger.put(record):
        decision = records.load(parts.ledger, name, Decision)
        record = records.decision_record(decision, plan, outcome.id, outcome.at_s)
    return outcome, decision, attempt.plus(record)


def decide_otherwise(parts: Parts, attempt: Attempt, decision: Decision, decided_by: str, at_s: float) -> Attempt:
    """A decision that rests on no verdict: the others could not follow, a person's value is in force."""
    record = records.decision_record(decision, attempt.plan, decided_by, at_s)
    parts.ledger.put(record)
    return attempt.plus(record)


def clock_went_back(attempt: Attempt, at_s: float) -> bool:
    return attempt.made_s is not None and at_s < attempt.made_s - CLOCK_TOLERANCE_S


def _judge(parts: Parts, attempt: Attempt, at_s: float) -> Outcome:
    plan, service, made, first = attempt.plan, parts.service(attempt.plan.service), attempt.made_s, attempt.first_made_s
    if made is None or first is None:
        raise Permanent(f"plan {plan.id} has no change to verify")
    if clock_went_back(attempt, at_s):
        back_s = made - at_s
        reason = f"the clock stepped back by {back_s:.0f} s since the change: before and after cannot be told apart"
        return _untold(plan, at_s, reason)
    if (apart := _clocks_apart(parts, service, at_s)) is not None:
        return _untold(plan, at_s, apart)
    stage = attempt.stage
    if stage is not None and stage.alone:
        step_s = parts.settings.prometheus.step_s
        spans = (
            grid(before_from_s(parts, plan, first), first, step_s),
            grid(made + plan.settle_s, at_s, step_s),
        )
        (own, peers), (own_after, peers_after) = (
            canary.sides(parts, service, stage.first, span, plan.objective) for span in spans
        )
        outcome = parts.verifier.judge(plan, own, own_after, (peers, peers_after))
        return outcome.model_copy(update={"resolved": None})  # one replica does not tell for the service
    before = evidence(parts, service, plan, before_from_s(parts, plan, first), first, history=True)
    after = evidence(parts, service, plan, made + attempt.settle_s, at_s, history=False)
    old = old_setting(parts, service, plan, first)
    planning = parts.settings.planning
    expected = [None if old is None else expected_p95_ms(old, planning, side.window) for side in (before, after)]
    same_model = not {"precision", "release", "variant"} & set(plan.chosen.levers)
    unhelped = None if old is None else unhelped_p95_ms(old, planning, after.window, same_model=same_model)
    outcome = parts.verifier.judge(
        plan,
        replace(before, expected_p95_ms=expected[0]),
        replace(after, expected_p95_ms=expected[1], unhelped_p95_ms=unhelped),
    )
    price = cost.price_of(service)
    costs = {name: cost.cost_of(side.window, price) for name, side in (("cost_before", before), ("cost_after", after))}
    outcome = outcome.model_copy(update=costs)
    sick = plan.diagnosis.sick
    if sick is None or not plan.one_way:
        return outcome
    step_s = parts.settings.prometheus.step_s
    spans = grid(before_from_s(parts, plan, first), first, step_s), grid(made + attempt.settle_s, at_s, step_s)
    then, now = (parts.source.read_replicas([service], REPLICA_SIGNALS, span).get(service.name, {}) for span in spans)
    return with_replica(outcome, sick, then, now, service.slo)


def _clocks_apart(parts: Parts, service: Service, at_s: float) -> str | None:
    step_s = parts.settings.prometheus.step_s
    seen = parts.source.read([service], (service.slo.main.signal,), grid(at_s - 2 * step_s, at_s, step_s))
    skew_s = seen.clock_skew_s if isinstance(seen, Reading) else None
    return clocks_apart(skew_s, parts.settings.safety.clock_tolerance_s)


def _untold(plan: Plan, at_s: float, reason: str) -> Outcome:
    return Outcome(
        id="", plan_id=plan.id, service=plan.service, verdict="inconclusive", resolved=None, at_s=at_s, reason=reason
    )


def last_verdict(parts: Parts, plan: Plan | Attempt) -> tuple[Outcome, Decision]:
    """The newest outcome of a plan and what was decided then; Permanent when it was never judged."""
    outcome, decision, _ = last_judged(parts, attempts.of(parts.ledger, plan))
    return outcome, decision


def last_judged(parts: Parts, attempt: Attempt) -> tuple[Outcome, Decision, Attempt]:
    """As `last_verdict`. A verdict whose task died before it decided is decided here, once."""
    found = attempt.last_verdict()
    alone = found is None
    found = found or attempt.last_verdict(alone=True)
    if found is None:
        raise Permanent(f"plan {attempt.plan.id} was never judged")
    outcome, decision, attempt = _decided(parts, attempt, found[0], found[1], alone=alone)
    return outcome, attempt.final_decision or decision, attempt


def nothing_changed(parts: Parts, plan: Plan | Attempt) -> bool:
    """Whether every lever of a plan has its receipt and none of them moved anything."""
    return attempts.of(parts.ledger, plan).nothing_changed


def keep(parts: Parts, plan: Plan, outcome: Outcome, decision: Decision, at_s: float) -> Decision:
    """The change stays: the service is free again, or the change is leased until it can be handed back."""
    conclude(parts, plan)
    leased = plan.lease_s is not None and not decision.theirs
    if leased and plan.lease_s is not None:
        body: dict[str, object] = {"plan_id": plan.id, "leased": True, "reason": decision.reason}
        record = records.noted(plan, f"{plan.id}:leased", "keep", body, at_s)
        parts.ledger.update_change(plan.id, "leased", record, expires_at_s=at_s + plan.lease_s)
    else:
        parts.ledger.update_change(plan.id, "closed", records.closing_of(plan, at_s, "keep", decision.reason))
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


def roll_back(parts: Parts, plan: Plan | Attempt, outcome: Outcome, decision: Decision, at_s: float) -> list[Receipt]:
    """Put the old values back: the same actuator calls with the inverse plan. Idempotent; the service stays claimed.

    Raises a Temporary when the fate of a call is unknown: the next try, or the reconciliation, goes on from there.
    """
    return undo(parts, plan, at_s)


def undo(parts: Parts, plan: Plan | Attempt, at_s: float) -> list[Receipt]:
    """Put back what stood before, by the receipts. Where a person has set another value meanwhile, it is final: the
    change is closed, nothing is touched, and the list is empty."""
    attempt = attempts.of(parts.ledger, plan)
    done = attempt.plan
    service = parts.service(done.service)
    if done.one_way:
        close(parts, attempt, at_s, "hold", f"There is nothing to undo after the {done.chosen.text()}.")
        return []
    found, words = stands(parts, attempt)
    if found == "foreign":
        close(parts, attempt, at_s, "hold", f"Not undone, somebody else changed it meanwhile: {words}")
        return []
    stage, undoing = attempt.stage, attempt.undo
    again = is_back(attempt, found)
    theirs = set_again(parts, attempt) if again else frozenset()
    if again and is_somebodys(parts, attempt, found, theirs):
        close(parts, attempt, at_s, "hold", f"{_SET_AGAIN}: {words}")
        return []
    before = {r.lever: r.before for r in reversed(attempt.receipts) if r.changed}
    left = {lever: knobs for lever in done.chosen.levers if (knobs := attempt.left(lever)) is not None}
    inverse = undoing.plan if undoing is not None else _inverse(parts, service, done.inverse(before, left, at_s))
    begun = not parts.ledger.put(records.plan_record(inverse))
    receipts = []
    for change in inverse.chosen.changes:
        if (before and change.lever not in before) or change.lever in theirs:
            continue
        known = undoing.receipt(change.lever) if undoing is not None and not again else None
        if known is None:
            applied = _put_back(parts, service, attempt, inverse, change, at_s)
            if applied.changed and stage is not None:  # most replicas stood at the old value all the time
                applied = applied.model_copy(update={"before": {**applied.before, **change.old}})
            if begun and applied.applied and not applied.changed:
                # An earlier try put it back and died before it could write that down: still a change to be proven.
                applied = applied.model_copy(update={"changed": True, "reason": "put back by an earlier try"})
            name = attempts.receipt_id(inverse.id, change.lever)
            known = Receipt.of(applied, id=make_id(name, "again", at_s) if again else name, plan=inverse)
            if not parts.ledger.put(records.receipt_record(known, inverse)):
                known = records.load(parts.ledger, known.id, Receipt)
        receipts.append(known)
    return receipts


def _inverse(parts: Parts, service: Service, inverse: Plan) -> Plan:
    settle_s = timing.undo_s(parts.settings.verification, service.levers, inverse)
    return inverse.model_copy(update={"settle_s": settle_s})


def _put_back(parts: Parts, service: Service, attempt: Attempt, inverse: Plan, change: Change, at_s: float) -> Applied:
    """The call that puts a lever back. Where the endpoint makes another value of it, that value is slotune's doing: it
    is in the ledger before NotApplied is raised, and the next try starts from it."""
    left = attempt.left(change.lever)
    if attempt.undo is not None and left is not None:
        change = change.model_copy(update={"old": {**change.old, **left}})
    try:
        return parts.actuator(service, change.lever).apply(service, change, key=f"{inverse.id}:{change.lever}")
    except NotApplied as error:
        if (made := another_value(service, change, error, at_s)) is not None:
            name = make_id(attempts.receipt_id(inverse.id, change.lever), "another value", at_s)
            parts.ledger.put(records.receipt_record(Receipt.of(made, id=name, plan=inverse), inverse))
        raise


def close_rolled_back(parts: Parts, plan: Plan | Attempt, at_s: float) -> Outcome | None:
    """After the roll-back has settled: verify it as well, and free the service. None where nothing was to be judged."""
    attempt = attempts.of(parts.ledger, plan)
    if attempt.closed is not None:
        return None
    if attempt.undo is None:
        raise Permanent(f"plan {attempt.plan.id} was not rolled back")
    found, words = stands(parts, attempt)
    if is_back(attempt, found):
        if not is_somebodys(parts, attempt, found, set_again(parts, attempt)):
            raise Temporary(f"it was put back, and is in force again: {words}; the next sweep puts it back")
        close(parts, attempt, at_s, "hold", f"{_SET_AGAIN}: {words}")
        return None
    outcome = None
    if attempt.undo.made_s is not None:
        outcome, _ = verify_p95(parts, attempt.undo, at_s)
    reason = outcome.reason if outcome else "the old setting was in force already"
    # Where every call was answered nothing is on its way: what stands there later, somebody has set.
    close(parts, attempt, at_s, "roll_back", f"rolled back: {reason}", unmade=not attempt.answered)
    return outcome


def close(parts: Parts, plan: Plan | Attempt, at_s: float, kind: str, reason: str, *, unmade: bool = False) -> None:
    """Free the service, with the reason in the ledger. unmade: the old setting is in force, by what was read
    back, and the change may still land."""
    attempt = attempts.of(parts.ledger, plan)
    if attempt.claimed_s is None and not attempt.receipts_changed and attempt.plan.id not in _open(parts, attempt.plan):
        parts.ledger.put(records.hold_record(attempt.plan, reason, at_s))
        return
    if not attempt.nothing_changed:
        conclude(parts, attempt.plan)
    record = records.closing_of(attempt.plan, at_s, kind, reason, unmade=unmade)
    parts.ledger.update_change(attempt.plan.id, "closed", record)


def _open(parts: Parts, plan: Plan) -> set[str]:
    return {change.plan_id for change in parts.ledger.open_changes(plan.service)}
