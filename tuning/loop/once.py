"""run_once: one sweep and everything that follows from it, driven by hand.

The same steps that Airflow runs as tasks, in the same order, with waiting as an argument: a simulation, a replay and
the tests run exactly what production runs.
"""

from __future__ import annotations

from collections.abc import Callable

from tuning.errors import ClaimRefused
from tuning.loop import act, prove, reconcile, tell, verify, watch
from tuning.loop.parts import Parts
from tuning.loop.watch import TuneRequest
from tuning.model import Plan, Report


def run_once(parts: Parts, now: Callable[[], float], wait_until: Callable[[float], None]) -> list[Report]:
    """Sweep all services once and tune those that need it, one after the other.

    now: epoch seconds. wait_until: returns when `now()` has reached the time it is given.
    """
    reconcile.reconcile_all(parts, now(), alive=lambda _run: False)
    tell.send_unsent(parts, now())
    sweep = watch.detect_anomalies(parts, watch.pull_metrics(parts, now()))
    return [tune(parts, request, now, wait_until) for request in watch.open_incidents(parts, sweep)]


def tune(
    parts: Parts, request: TuneRequest, now: Callable[[], float], wait_until: Callable[[float], None]
) -> Report:
    """One run of tune_service: choose, guard, change, settle, verify, keep or roll back, report."""
    plan = act.choose_action(parts, request.incident, now(), attempt=request.attempt)
    if not plan.chosen.changes:
        act.hold(parts, plan, now())
    elif (refusal := act.guard_plan(parts, plan, now())) is not None:
        act.hold(parts, plan, now(), refusal.reason)
    else:
        _change_and_prove(parts, plan, now, wait_until, run=request.run_id)
    return tell.email_report(parts, plan, now())


def _change_and_prove(
    parts: Parts, plan: Plan, now: Callable[[], float], wait_until: Callable[[float], None], *, run: str
) -> None:
    try:
        for change in plan.chosen.changes:
            act.pull_lever(parts, plan, change.lever, now(), run=run, now=now)
    except ClaimRefused as error:
        act.hold(parts, plan, now(), str(error))
        return
    if prove.nothing_changed(parts, plan):
        prove.close(parts, plan, now(), "hold", "nothing had to be changed")
        return
    step: verify.Next = "look"
    while step in ("look", "settle"):
        look = 2 if step == "settle" else 1
        wait_until(prove.look_until_s(parts, plan, look=look))
        step = verify.verify(parts, plan, now(), look=look, run=run)
    outcome, decision = prove.last_verdict(parts, plan)
    if decision.step == "keep":
        prove.keep(parts, plan, outcome, decision, now())
        return
    prove.roll_back(parts, plan, outcome, decision, now())
    wait_until(prove.look_until_s(parts, plan.inverse()))
    prove.close_rolled_back(parts, plan, now())
