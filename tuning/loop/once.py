"""run_once: one sweep and everything that follows from it, driven by hand.

The same steps that Airflow runs as tasks, in the same order, with waiting as an argument: a simulation, a replay and
the tests run exactly what production runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tuning import attempt as attempts
from tuning.attempt import Attempt
from tuning.errors import ClaimRefused
from tuning.loop import act, prove, reconcile, tell, verify, watch
from tuning.loop.approve import answered
from tuning.loop.parts import Parts
from tuning.loop.watch import TuneRequest
from tuning.model import Plan, Report

Ask = Callable[[Plan], Mapping[str, Any]]
"""Puts a plan to a person and waits; the answer as `tuning.loop.approve.answered` takes it."""


def run_once(parts: Parts, now: Callable[[], float], wait_until: Callable[[float], None]) -> list[Report]:
    """Sweep all services once and tune those that need it, one after the other.

    now: epoch seconds. wait_until: returns when `now()` has reached the time it is given.
    """
    started = sweep(parts, now(), alive=lambda _run: False)
    return [tune(parts, request, now, wait_until) for request in started]


def sweep(
    parts: Parts, at_s: float, *, alive: Callable[[str], bool], only: Sequence[str] = ()
) -> list[TuneRequest]:
    """One sweep over all services (or `only` these): settle what a dead run left, look, tell.

    Returned are the attempts that should start now. alive: whether a run (by its id) is still at work.
    """
    reconcile.reconcile_all(parts, at_s, alive=alive)
    found = watch.open_incidents(parts, watch.detect_anomalies(parts, watch.pull_metrics(parts, at_s, only)))
    watch.tell_what_stands(parts, at_s)
    return found


def tune(
    parts: Parts,
    request: TuneRequest,
    now: Callable[[], float],
    wait_until: Callable[[float], None],
    *,
    run: str = "",
    ask: Ask | None = None,
    lever: str | None = None,
) -> Report:
    """One run of tune_service: choose, guard, change, settle, verify, keep or roll back, report.

    run: under which id the change is claimed (default: the request's). ask: puts a plan in mode approve to a person;
    without it such a plan is held. lever: the only one that may be used (None: any).
    """
    plan = act.choose_action(parts, request.incident, now(), attempt=request.attempt, lever=lever)
    attempt: Attempt | None = None
    asking = ask if plan.mode == "approve" and not plan.dry_run else None
    if not plan.chosen.changes:
        act.hold(parts, plan, now())
    elif (refusal := act.guard_plan(parts, plan, now(), approved=asking is not None)) is not None:
        act.hold(parts, plan, now(), refusal.reason)
    else:
        if asking is not None:
            plan, refusal = answered(parts, plan, asking(plan), now())
            refusal = refusal or act.guard_plan(parts, plan, now(), approved=True)
        if refusal is not None:
            act.hold(parts, plan, now(), refusal.reason)
        else:
            attempt = _change_and_prove(parts, plan, now, wait_until, run=run or request.run_id)
    return tell.email_report(parts, plan if attempt is None else attempt, now())


def _change_and_prove(
    parts: Parts, plan: Plan, now: Callable[[], float], wait_until: Callable[[float], None], *, run: str
) -> Attempt | None:
    """The attempt as it ended; None where it has to be read for that."""
    attempt = attempts.of(parts.ledger, plan)
    try:
        for change in plan.chosen.changes:
            receipt, attempt = act.pull(parts, attempt, change.lever, now(), run=run, now=now)
            tell.tell_change(parts, plan, receipt, now())
    except ClaimRefused as error:
        act.hold(parts, plan, now(), str(error))
        return None
    if attempt.nothing_changed:
        reasons = "; ".join(dict.fromkeys(r.reason for r in attempt.receipts if r.reason and not r.applied))
        prove.close(parts, attempt, now(), "hold", reasons or "nothing had to be changed")
        return attempt
    step: verify.Next = "look"
    while step in ("look", "settle"):
        look = 2 if step == "settle" else 1
        wait_until(prove.look_until_s(parts, attempt, look=look, now_s=now()))
        step, attempt = verify.verified(parts, attempt, now(), look=look, run=run)
    # Looks take their time: a sweep that took this run for dead may have ended the change meanwhile.
    outcome, decision, attempt = prove.last_judged(parts, attempts.of(parts.ledger, plan))
    if decision.step == "keep" and attempt.undo is None:
        prove.keep(parts, plan, outcome, decision, now())
        return attempt
    if prove.roll_back(parts, attempt, outcome, decision, now()):
        wait_until(prove.look_until_s(parts, plan.inverse(), now_s=now()))
        prove.close_rolled_back(parts, plan, now())
    return None
