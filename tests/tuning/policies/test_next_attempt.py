"""When an incident gets another attempt: how the last one ended, and how long ago, as a table."""

from __future__ import annotations

import pytest

from tuning.attempt import Attempt
from tuning.guards import SafetySettings
from tuning.model import Decision, Diagnosis, Option, Outcome, Plan, Refusal, Report
from tuning.policies.next_attempt import next_attempt

SETTINGS = SafetySettings(hold_again_s=600.0, passing_again_s=120.0, max_attempts=3)
ENDED_S = 5_000.0
TOLD = Report.model_construct(id="r")


def attempt(
    *, told: bool = True, number: int = 1, tries: int = 0, dry_run: bool = False, plan: Plan | None = None, **more
) -> Attempt:
    plan = plan or Plan(
        id="p", incident_id="i", service="ranker", decided_at_s=ENDED_S - 50.0, mode="act",
        diagnosis=Diagnosis(cause="load_surge"), chosen=Option(changes=()), attempt=number, tries=tries, dry_run=dry_run,
    )  # fmt: skip
    return Attempt(plan, report=TOLD if told else None, **({"last_s": ENDED_S} | more))


def decided(following: str) -> tuple[Decision, ...]:
    return (Decision(step="keep", next=following, reason="because"),)  # type: ignore[arg-type]


def refused(guard: str, until_s: float | None = None) -> tuple[Refusal, ...]:
    return (Refusal(id="r", plan_id="p", service="ranker", guard=guard, reason="no", at_s=ENDED_S, until_s=until_s),)


def held(cause: str, *, meets_slo: bool) -> Attempt:
    plan = HELD.plan.model_copy(
        update={"diagnosis": Diagnosis(cause=cause), "chosen": Option(changes=(), meets_slo=meets_slo)}
    )
    return attempt(plan=plan)


HELD = attempt()


@pytest.mark.parametrize(
    ("last", "after_s", "firing", "number"),
    [
        (None, 0.0, True, 1),
        (None, 0.0, False, 1),
        (attempt(told=False), 10_000.0, True, None),  # under way
        (attempt(dry_run=True), 10_000.0, True, None),
        (attempt(tries=3), 10_000.0, True, None),  # three levers were pulled
        (attempt(tries=2, decided=decided("next_attempt")), 0.0, False, 2),
        (attempt(number=4, tries=2, decided=decided("next_attempt")), 0.0, False, 5),
        (attempt(decided=decided("ask_person")), 10_000.0, True, None),
        (attempt(decided=decided("done")), 0.1, True, 2),  # a success that did not last
        (attempt(decided=decided("done")), 600.0, True, 2),
        (held("load_surge", meets_slo=True), 119.0, True, None),  # it was to pass by itself
        (held("load_surge", meets_slo=True), 120.0, True, 2),
        (held("load_surge", meets_slo=True), 120.0, False, None),
        (held("healthy", meets_slo=False), 120.0, True, 2),
        (held("fresh_release", meets_slo=None), 0.0, True, 2),  # what a release moved shows at the next sweep
        (held("load_surge", meets_slo=False), 120.0, True, None),
        (attempt(decided=decided("done")), 10_000.0, False, None),
        (HELD, 599.0, True, None),
        (HELD, 600.0, True, 2),
        (HELD, 600.0, False, None),
        (HELD, -599.0, True, None),  # a clock that stepped back a little
        (HELD, -601.0, True, 2),  # or so far that nothing can be concluded from it
        (attempt(last_s=None), 549.0, True, None),  # counted from the plan, 50 s before
        (attempt(last_s=None), 550.0, True, 2),
        (attempt(refusals=refused("bounds")), 10_000.0, True, None),
        (attempt(refusals=refused("stale_data")), 600.0, True, 2),
        (attempt(refusals=refused("stale_data")), 599.0, True, None),
        (attempt(refusals=refused("one_open_change")), 600.0, False, None),
        (attempt(refusals=refused("cool_down", ENDED_S + 90.0)), 89.0, True, None),
        (attempt(refusals=refused("cool_down", ENDED_S + 90.0)), 90.0, False, 2),
        # Refused at first, and then decided all the same: the decision is what counts.
        (attempt(refusals=refused("cool_down", ENDED_S + 90.0), decided=decided("ask_person")), 90.0, True, None),
    ],
)
def test_another_attempt(last: Attempt | None, after_s: float, firing: bool, number: int | None) -> None:
    assert next_attempt(last, ENDED_S + after_s, SETTINGS, firing=firing) == number


@pytest.mark.parametrize(
    ("last", "after_s", "firing", "number"),
    [
        (HELD, 119.0, True, None),
        (HELD, 120.0, True, 2),  # what it held on is another thing by now
        (HELD, 120.0, False, None),
        (attempt(refusals=refused("one_open_change")), 120.0, True, 2),
        (attempt(refusals=refused("bounds")), 10_000.0, True, None),
        (attempt(tries=3), 10_000.0, True, None),
        (attempt(told=False), 10_000.0, True, None),
        (attempt(decided=decided("ask_person")), 10_000.0, True, None),
    ],
)
def test_a_hold_is_looked_at_again_sooner_where_what_it_saw_has_moved(last, after_s, firing, number):
    assert next_attempt(last, ENDED_S + after_s, SETTINGS, firing=firing, moved=True) == number


JUDGED_S = ENDED_S - 20.0
PROVEN = attempt(
    decided=decided("done"),
    outcomes={"o": Outcome(id="o", plan_id="p", service="ranker", verdict="improved", resolved=True, at_s=JUDGED_S)},
)


@pytest.mark.parametrize(
    ("wrong_s", "after_s", "number"),
    [
        (JUDGED_S - 40.0, 5.0, None),  # a rule that only holds on for a while
        (JUDGED_S, 5.0, None),  # the proof has seen it
        (JUDGED_S + 1.0, 0.0, 2),  # wrong again before the attempt was over
        (ENDED_S + 5.0, 5.0, 2),
        (None, 5.0, 2),
        (JUDGED_S - 40.0, 599.0, None),
        (JUDGED_S - 40.0, 600.0, 2),  # it holds on for as long as after a hold
        (JUDGED_S - 40.0, -3600.0, 2),  # a clock that stepped back
    ],
)
def test_after_a_success_only_what_its_proof_has_not_seen_is_news(wrong_s, after_s, number):
    assert next_attempt(PROVEN, ENDED_S + after_s, SETTINGS, firing=True, wrong_s=wrong_s) == number
    assert next_attempt(PROVEN, ENDED_S + after_s, SETTINGS, firing=False, wrong_s=wrong_s) is None
