"""A service's strictness: one audited step at a time, only where the labels come out better, and back where they do not."""

from __future__ import annotations

import pytest

from tuning.policies.strictness import (
    BACK_S,
    DAY_S,
    LOOSEST,
    PERIOD_S,
    STEP,
    STRICTEST,
    Seen,
    Step,
    Tally,
    next_step,
    tally,
)

NOW_S = 1_800_000_000.0
NOTHING = Tally(0.0, 0.0, 0.0)


def seen(*reaches: float, real: bool, days: float = 3.0, weight: float = 1.0) -> list[Seen]:
    return [Seen(NOW_S - days * DAY_S, reach, real, weight) for reach in reaches]


def made(was: float, now: float, days: float) -> Step:
    return Step("stricter" if now > was else "looser", NOW_S - days * DAY_S, was, now, NOTHING, NOTHING, "")


BARELY_FALSE = seen(1.05, 1.1, 1.12, real=False) + seen(2.0, 3.0, 2.5, real=True)
JUST_MISSED = seen(0.9, 0.95, 0.97, real=True) + seen(2.0, 3.0, real=True) + seen(1.2, real=False)


def test_false_alarms_just_over_the_threshold_make_it_stricter_by_one_step():
    step = next_step(BARELY_FALSE, [], NOW_S)
    assert step is not None and (step.kind, step.was, step.now) == ("stricter", 1.0, STEP)
    assert (step.before, step.after) == (Tally(3.0, 0.0, 3.0), Tally(3.0, 0.0, 0.0))
    assert "3 found, 0 missed, 3 false at 1" in step.reason and "0 false at 1.15" in step.reason


def test_real_problems_just_below_make_it_looser():
    step = next_step(JUST_MISSED, [], NOW_S)
    assert step is not None and (step.kind, step.now) == ("looser", round(1 / STEP, 4))
    assert step.after.missed == 0.0 and step.before.missed == 3.0


@pytest.mark.parametrize(
    "known",
    [BARELY_FALSE[:5], seen(1.05, 1.1, 1.12, real=False) + seen(1.06, 1.08, 1.1, real=True),
     seen(3.0, 3.0, 3.0, real=False) + seen(2.0, 3.0, 2.5, real=True), seen(1.5, 1.6, 2.0, 3.0, 2.5, 2.2, real=True),
     seen(1.05, 1.1, 1.12, real=False, days=60) + seen(2.0, 3.0, 2.5, real=True, days=60)],
    ids=["too few", "it would miss as many", "no step reaches them", "nothing is wrong", "too long ago"],
)  # fmt: skip
def test_where_the_labels_would_come_out_no_better_nothing_moves(known):
    assert next_step(known, [], NOW_S) is None


def test_the_bounds_hold():
    high = made(STRICTEST / STEP, STRICTEST, 40)
    assert next_step(seen(2.1, 2.2, 2.2, real=False) + seen(4.0, 4.0, 4.0, real=True), [high], NOW_S) is None
    low = made(LOOSEST * STEP, LOOSEST, 40)
    assert next_step(seen(0.7, 0.75, 0.72, real=True) + seen(2.0, 3.0, 2.5, real=True), [low], NOW_S) is None
    near = made(1.5, 1.9, 40)
    step = next_step(seen(1.95, 1.96, 1.97, real=False) + seen(4.0, 4.0, 4.0, real=True), [near], NOW_S)
    assert step is not None and step.now == STRICTEST


def test_a_step_stands_for_a_period_before_anything_else_is_done():
    fresh = made(1.0, STEP, PERIOD_S / DAY_S - 1)
    assert next_step(seen(1.2, 1.2, 1.25, real=False) + seen(3.0, 3.0, 3.0, real=True), [fresh], NOW_S) is None


def test_a_step_that_made_the_next_period_worse_is_taken_back_with_both_periods_in_the_record():
    last = made(1.0, STEP, PERIOD_S / DAY_S + 1)
    after = seen(1.05, 1.1, 1.12, 1.1, real=True) + seen(2.0, 2.0, real=True)
    before = seen(1.1, 1.1, real=False, days=40) + seen(2.0, 2.0, 2.0, 2.0, real=True, days=40)
    step = next_step(before + after, [last], NOW_S)
    assert step is not None and (step.kind, step.was, step.now) == ("undone", STEP, 1.0)
    assert step.before == Tally(4.0, 0.0, 2.0) and step.after == Tally(2.0, 4.0, 0.0)
    assert "at 1 they had come to 6 found, 0 missed, 0 false" in step.reason


def test_a_worse_month_that_is_no_fault_of_the_step_is_not_blamed_on_it():
    last = made(1.0, STEP, PERIOD_S / DAY_S + 1)
    after = seen(5.0, 5.0, 5.0, real=False) + seen(5.0, 5.0, 5.0, real=True)
    step = next_step(seen(2.0, 2.0, real=True, days=40) + after, [last], NOW_S)
    assert step is None


def test_after_a_way_back_a_period_passes_before_the_next_step():
    back = Step("undone", NOW_S - 5 * DAY_S, STEP, 1.0, NOTHING, NOTHING, "")
    assert next_step(BARELY_FALSE, [back], NOW_S) is None
    older = Step("undone", NOW_S - PERIOD_S - DAY_S, STEP, 1.0, NOTHING, NOTHING, "")
    assert next_step(BARELY_FALSE, [older], NOW_S) is not None


def test_a_weak_label_counts_for_less():
    assert tally(seen(1.5, 1.5, real=False, weight=0.5), 1.0) == Tally(0.0, 0.0, 1.0)
    assert BACK_S >= PERIOD_S, "a step is judged on what it was made of"


@pytest.mark.parametrize(("days", "moves"), [(27.0, True), (28.0, True), (29.0, False)])
def test_labels_of_four_weeks_are_judged(days, moves):
    known = seen(1.05, 1.1, 1.12, real=False, days=days) + seen(2.0, 3.0, 2.5, real=True, days=days)
    assert (next_step(known, [], NOW_S) is not None) is moves


@pytest.mark.parametrize(("days", "moves"), [(27.0, False), (28.0, True), (29.0, True)])
def test_a_step_stands_for_four_weeks(days, moves):
    again = seen(1.2, 1.2, 1.25, real=False) + seen(3.0, 3.0, 3.0, real=True)
    assert (next_step(again, [made(1.0, STEP, days)], NOW_S) is not None) is moves
