"""choose_action, guard, and the three levers: from an incident to a receipt.

The order is the safety: plan into the ledger, guards, intent with the old values into the ledger (which claims the
service), then the change, then the receipt. A step that is run again finds its own records and does nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from detection.errors import Permanent, SlotuneError
from detection.model import Incident, Reading, Service, make_id
from tuning import attempt as attempts
from tuning.attempt import Attempt, value
from tuning.errors import ClaimRefused
from tuning.guards import (
    GuardFacts,
    Truth,
    Unreadable,
    caps_of,
    foreign_since,
    guard,
    last_written,
    stopped,
    taken_away,
)
from tuning.knobs import same_knobs
from tuning.loop import by_hand, canary, coverage, records
from tuning.loop.call import call, moved
from tuning.loop.observe import look_back, observe, past
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Applied, Change, OpenChange, Plan, Receipt, Record, Refusal, Setting
from tuning.orders import ORDER, orders_of
from tuning.policies.timing import settle_s
from tuning.query import Query
from tuning.releases import releases_of

_log = logging.getLogger(__name__)
_GUARDED_S = 300.0
"""A lever task that comes later than this after its plan asks the guards again."""


def choose_action(
    parts: Parts,
    incident: Incident,
    at_s: float,
    *,
    attempt: int = 1,
    lever: str | None = None,
    asked: int | None = None,
    dry_run: bool = False,
) -> Plan:
    """The plan for one attempt at an incident, in the ledger as the planner made it.

    lever: the only lever that may be used, asked: the value that it is to be set to (both by hand).
    """
    plan_id = make_id(incident.id, "plan", attempt)
    known = past(parts, incident.service, incident.id, at_s)
    made = next((plan for record in known if record.id == plan_id and (plan := value(record, Plan)) is not None), None)
    if made is not None:
        return made
    service = parts.service(incident.service)
    service, held = coverage.asking_first(parts, service, at_s)
    if lever is not None:
        service = _only(service, lever)
    if asked is not None:
        if lever is None:
            raise Permanent("a value was given without its lever: choose the lever, or leave the value empty")
        by_hand.check_value(service.levers[lever], asked)
    seen = observe(parts, service, at_s)
    observation = replace(
        seen,
        since_s=incident.opened_at_s if incident.anomalies else None,
        settle_s=_least_settle_s(parts, service, seen.window.percentile_source),
        dry_run=dry_run,
        releases=releases_of(known),
        tries=records.pulled(record for record in known if record.incident_id == incident.id),
    )
    plan = parts.planner.propose(incident.model_copy(update={"attempt": attempt}), observation, known)
    if lever is not None and asked is not None:
        plan = by_hand.with_value(plan, observation, service.levers[lever], asked, observation.settle_s[lever])
    if said := coverage.because(plan.chosen.levers, held):
        plan = plan.model_copy(update={"reason": f"{plan.reason or plan.chosen.reason}; {said}"})
    if not parts.ledger.put(records.plan_record(plan)):
        return records.load(parts.ledger, plan.id, Plan)  # planned at the same time elsewhere: the first plan holds
    _log.info("choose_action %s: %s (%s)", service.name, plan.chosen.text(), plan.reason or plan.chosen.reason)
    return plan


def guard_plan(parts: Parts, plan: Plan, at_s: float, *, approved: bool = False) -> Refusal | None:
    """Run every guard on fresh facts; a refusal is in the ledger. None: nothing speaks against the change.

    The levers are read again: between the plan and the change somebody may have moved them.
    """
    service = parts.service(plan.service)
    now = truth(parts, plan)
    own = _hands(parts, service.name, now)
    caps = caps_of(parts.settings.safety, service, plan.chosen.levers)
    signal = (plan.objective or service.slo.main).signal
    seen = parts.source.read([service], (signal, "error_rate"), look_back(parts, at_s))
    window = seen.get(service.name)
    facts = GuardFacts(
        at_s=at_s,
        service=service,
        safety=parts.settings.safety,
        settings_now=now,
        standing=parts.ledger.standing(at_s, caps.memory_s),
        last_written=last_written(own, service.name),
        taken_away=taken_away(own, service.name),
        foreign_since_s=foreign_since(own, service.name),
        stale_s=window.stale_s.get(signal) if window is not None else None,
        error_rate=window.last("error_rate", within_s=120.0) if window is not None else None,
        clock_skew_s=seen.clock_skew_s if isinstance(seen, Reading) else None,
        approved=approved,
        orders=tuple(orders_of(own)),
    )
    refusal = guard(plan, facts)
    if refusal is not None:
        parts.ledger.put(records.refusal_record(refusal, plan))
    return refusal


def _hands(parts: Parts, service: str, now: Truth) -> Sequence[Record]:
    """Who has been at the levers of a service: what slotune left there, newest written first, what people ordered, and,
    where something else stands there now, when slotune saw another hand."""
    receipts = Query(
        kinds=(*LEVER_STEPS.values(), "roll_back", ORDER), services=(service, ""), phase="result", order="written"
    )
    ours = parts.ledger.find(receipts)
    left = last_written(ours, service)
    if all(same_knobs(left[n], s.at(left[n])) for n, s in now.items() if n in left and isinstance(s, Setting)):
        return ours
    seen = Query(kinds=("guard",), services=(service,), holding='"guard":"ownership:')
    return (*ours, *parts.ledger.find(seen))


def truth(parts: Parts, plan: Plan) -> Truth:
    """What the levers of a plan really stand at, or why that cannot be told."""
    service = parts.service(plan.service)
    found: dict[str, Setting | Unreadable] = {}
    for change in plan.chosen.changes:
        try:
            setting = parts.actuator(service, change.lever).read(service)
            found[change.lever] = setting.model_copy(update={"values": setting.at(change.new)})
        except SlotuneError as error:
            found[change.lever] = Unreadable(str(error))
    return found


def _least_settle_s(parts: Parts, service: Service, percentile_source: str) -> dict[str, float]:
    """By lever: before this has passed, P95 still mixes the old setting with the new."""
    least_s = parts.settings.prometheus.rate_window_s
    verification = parts.settings.verification
    return {
        name: max(least_s, settle_s(verification, lever, percentile_source)) for name, lever in service.levers.items()
    }


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
    parts: Parts,
    plan: Plan | Attempt,
    lever: str,
    at_s: float,
    *,
    run: str = "",
    now: Callable[[], float] | None = None,
) -> Receipt:
    """Make one change of a plan, on one replica first where the lever can. Idempotent: a receipt that says "applied"
    is the end of it; after a canary that did well, the next call brings the other replicas.

    now: epoch seconds when it is asked: an INT8 build may be refused long after `at_s`, when the task began.

    Raises ClaimRefused, LedgerUnavailable (nothing was changed), and OutcomeUnknown or another Temporary when
    the fate of the change is not known: the intent stays open, and the next try or the reconciliation settles it.
    A permanent refusal becomes a receipt with applied False, and so does a stop that a person has pressed meanwhile.
    """
    return pull(parts, attempts.of(parts.ledger, plan), lever, at_s, run=run, now=now)[0]


def pull(
    parts: Parts, attempt: Attempt, lever: str, at_s: float, *, run: str = "", now: Callable[[], float] | None = None
) -> tuple[Receipt, Attempt]:
    """As `pull_lever`, with the attempt as it then stands."""
    if (made := attempt.receipt(lever)) is not None:
        return made, attempt
    plan, service = attempt.plan, parts.service(attempt.plan.service)
    change = next(c for c in plan.chosen.changes if c.lever == lever)
    if (why := _forbidden(parts, service, attempt, at_s)) is not None:
        return _not_made(parts, service, attempt, change, why, at_s)
    note = ""
    if attempt.stage is None and attempt.claimed_s is None:
        intent, note = canary.begin(parts, service, plan, lever, at_s)
        if intent is not None:
            parts.ledger.put(intent)
            attempt = attempt.plus(intent)
    stage, earlier_s = attempt.stage, attempt.begun_s(lever)
    if stage is not None and stage.alone and not _did_well(attempt):
        if (made := attempt.receipt(lever, replica=stage.first.replica)) is not None:
            return made, attempt
        attempt = claim_of(parts, attempt, at_s, run=run)
        applied = call(parts, service, plan, change, lambda: at_s, earlier_s, replica=stage.first.replica)
        applied = applied.model_copy(update={"replica": stage.first.replica})
        name = attempts.receipt_id(plan.id, lever, alone=True)
        return _written(parts, attempt, applied, name, answered=earlier_s is None)
    again = earlier_s is not None
    if stage is not None:
        following = canary.follow(plan, lever, at_s, "the first replica did better than its peers")
        parts.ledger.put(following)
        attempt = attempt.plus(following)
        again = stage.followed_s is not None
        earlier_s = stage.followed_s if stage.followed_s is not None else at_s
    attempt = claim_of(parts, attempt, at_s, run=run)
    if len(plan.chosen.changes) > 1:
        parts.ledger.put(records.call_record(plan, lever, at_s))
    applied = call(parts, service, plan, change, now or (lambda: at_s), earlier_s)
    if stage is not None and applied.applied:
        applied = applied.model_copy(update={"before": {**applied.before, **moved(change)}, "changed": True})
    if note:
        applied = applied.model_copy(update={"reason": f"{applied.reason}; {note}"})
    return _written(parts, attempt, applied, attempts.receipt_id(plan.id, lever), answered=not again)


def _did_well(attempt: Attempt) -> bool:
    last = attempt.last_verdict(alone=True)
    return last is not None and last[0].verdict == "improved"


def _written(
    parts: Parts, attempt: Attempt, applied: Applied, receipt_id: str, *, answered: bool
) -> tuple[Receipt, Attempt]:
    receipt = Receipt.of(applied, id=receipt_id, plan=attempt.plan, answered=answered)
    record = records.receipt_record(receipt, attempt.plan)
    parts.ledger.update_change(attempt.plan.id, "made", record)
    return receipt, attempt.plus(record)


def _forbidden(parts: Parts, service: Service, attempt: Attempt, at_s: float) -> str | None:
    """Why this step forward may not be made (any more): what the plan was made for is over, a person has said stop, or
    the guards, asked again because the task comes late, refuse. None where nothing speaks against it."""
    plan = attempt.plan
    if attempt.undo is not None or attempt.closed is not None:
        return f"It was ended meanwhile: {attempt.closed or 'its roll-back has begun'}"
    safety = parts.settings.safety
    begun = attempt.claimed_s is not None
    fresh = not begun and at_s - plan.decided_at_s <= _GUARDED_S
    stop = stopped(
        service,
        plan.chosen.levers,
        safety,
        at_s,
        planned=plan.mode,
        dry_run=plan.dry_run,
        # Asked again however fresh the plan is: people speak between the guards and the change too.
        orders=records.orders(parts.ledger, service.name),
        changes=plan.chosen.changes,
    )
    if stop is not None:
        return stop.reason
    if begun:
        return None
    if attempt.over_s is not None and plan.since_s is not None:
        return "The incident is over: what the change was meant for is gone."
    if fresh:
        return None
    # The mode's question was asked when it was planned: whoever comes here was approved, or needs nobody's yes.
    refusal = guard_plan(parts, plan, at_s, approved=True)
    return refusal.reason if refusal is not None else None


def _not_made(
    parts: Parts, service: Service, attempt: Attempt, change: Change, why: str, at_s: float
) -> tuple[Receipt, Attempt]:
    """The receipt of a step that was not allowed. Where an earlier try may have made it, the truth tells."""
    plan = attempt.plan
    made = False
    begun_s = attempt.begun_s(change.lever)
    if begun_s is not None and attempt.stage is None:
        now = parts.actuator(service, change.lever).read(service).at(change.new)
        made = same_knobs(change.new, now) and bool(moved(change))
    receipt = Receipt(
        id=attempts.receipt_id(plan.id, change.lever),
        plan_id=plan.id,
        service=plan.service,
        lever=change.lever,
        before=change.old,
        after=change.new if made else change.old,
        applied=made,
        changed=made,
        at_s=begun_s if made and begun_s is not None else at_s,
        reason=f"made by an earlier try; {why}" if made else why,
        answered=begun_s is None,
    )
    told: list[Record] = [records.receipt_record(receipt, plan)]
    if attempt.claimed_s is not None:
        parts.ledger.update_change(plan.id, "made", told[0])
    else:
        refusal = Refusal(
            id=make_id(plan.id, "refusal", "late", at_s),
            plan_id=plan.id,
            service=plan.service,
            guard="late",
            reason=why,
            at_s=at_s,
        )
        told.insert(0, records.refusal_record(refusal, plan))
        for record in told:
            parts.ledger.put(record)
    _log.warning("%s %s: not made: %s", LEVER_STEPS[change.lever], plan.service, why)
    return receipt, attempt.plus(*told)


def claim(parts: Parts, plan: Plan, at_s: float, *, run: str = "", counted: bool = True) -> Record:
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
    intent = records.intent_record(plan, at_s)
    try:
        parts.ledger.open_change(opened, intent, caps)
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
    return intent


def claim_of(parts: Parts, attempt: Attempt, at_s: float, *, run: str = "") -> Attempt:
    return attempt.plus(claim(parts, attempt.plan, at_s, run=run))
