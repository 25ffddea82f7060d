"""From requests to the knee, on queues whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slotune.stress.climb import Done, next_step
from slotune.stress.model import LOCAL, LOST, OK, PENDING, REFUSED, TIMED_OUT, Plan, Step
from slotune.stress.statistics import back_after, crossing, knee, monotone, summarise, turn
from tests.slotune.stress.queue_of_one import raw, seen, true_knee

PLAN = Plan(start_per_s=5.0, bound_per_s=80.0, limits={"p95_ms": 100.0}, growth=1.3)


def climbed(seed: int, plan: Plan, length_s: float):
    """A whole test against the queue, in no time."""
    rng, steps, drawn = np.random.default_rng(seed), [], []
    while not isinstance(ahead := next_step(steps, plan), Done):
        step, draws = summarise(raw(ahead.rate_per_s, length_s, rng), plan, rng)
        steps.append(step)
        drawn.append(draws)
    return steps, drawn, ahead.why


def test_the_knee_lies_where_the_queue_has_it_and_its_interval_holds_it():
    """Ten tests of 20 s a step. Band: within 15 % of the truth each; the 90 % interval holds it in at least 7."""
    truth = true_knee(100.0)
    assert 33 < truth < 36
    held = 0
    for seed in range(10):
        steps, drawn, why = climbed(seed, PLAN, 20.0)
        found = knee(steps, drawn, PLAN)
        assert found.value == pytest.approx(truth, rel=0.15), (seed, why)
        held += found.low <= truth <= found.high
        assert found.high / found.low < 1.5
    assert held >= 7


def test_where_p95_turns_lies_below_the_knee_and_above_the_calm():
    steps, drawn, _ = climbed(3, PLAN, 60.0)
    found, top = turn(steps, drawn, "p95_ms"), knee(steps, drawn, PLAN)
    assert found is not None and 8 < found.value < top.value and found.low <= found.value <= found.high


def test_a_service_that_never_breaks_has_no_knee_and_turns_nowhere():
    plan = Plan(start_per_s=2.0, bound_per_s=10.0, limits={"p95_ms": 100.0})
    steps, drawn, why = climbed(0, plan, 60.0)
    found = knee(steps, drawn, plan)
    assert (found.value, found.high) == (None, None) and found.low == pytest.approx(10.0)
    assert turn(steps, drawn, "p95_ms") is None
    assert why == "the bound is reached"


def stepped(rates: str) -> list[Step]:
    """ "5 6.5! 6.5": rates in their order, those with ! broken."""
    rng, found = np.random.default_rng(1), []
    for text in rates.split():
        rate = float(text.rstrip("!?"))
        step, _ = summarise(raw(rate, 20.0, rng), PLAN, rng)
        verdict = "broken" if text.endswith("!") else "stopped" if text.endswith("?") else "met"
        found.append(replace(step, rate_per_s=rate, verdict=verdict))
    return found


@pytest.mark.parametrize(
    ("so_far", "then", "climbing"),
    [
        ("5 6.5!", 6.5, True),
        ("5 6.5! 6.5", 6.5 * 1.3, True),
        ("5 6.5! 6.5!", np.sqrt(5 * 6.5), False),
        ("5 6.5?", np.sqrt(5 * 6.5), False),
        ("5 6.5! 6.5 8.45!", 8.45, True),
        ("5 6.5! 6.5 8.45! 8.45!", np.sqrt(6.5 * 8.45), False),
    ],
)
def test_a_rate_that_broke_once_is_tried_again_before_the_climb_ends(so_far, then, climbing):
    """What was far over ended early, and needs no second try."""
    ahead = next_step(stepped(so_far), PLAN)
    assert not isinstance(ahead, Done) and ahead.rate_per_s == pytest.approx(then) and ahead.climbing is climbing


def test_narrowing_down_ends_after_its_steps_whatever_was_tried_again():
    assert isinstance(next_step(stepped("5 6.5! 6.5 8.45! 8.45! 7.4 7.9! 7.7 7.8 7.85"), PLAN), Done)


def test_a_service_that_is_broken_from_the_start_has_its_knee_below():
    plan = Plan(start_per_s=45.0, bound_per_s=80.0, limits={"p95_ms": 30.0})
    steps, drawn, _ = climbed(0, plan, 20.0)
    found = knee(steps, drawn, plan)
    assert (found.value, found.low, found.high) == (None, 0.0, 45.0)


def statuses(rate: float, length_s: float, kind: int, share: float) -> np.ndarray:
    n = max(40, round(rate * length_s))
    return np.where(np.arange(n) % 100 < share * 100, kind, OK).astype(np.int8)


@pytest.mark.parametrize(
    ("changed", "stopped", "cpu", "verdict"),
    [
        ({}, "", 0.1, "met"),
        ({"status": statuses(10, 20, REFUSED, 0.04)}, "", 0.1, "broken"),
        ({"status": statuses(10, 20, LOST, 0.5)}, "errors", 0.1, "errors"),
        ({"status": statuses(10, 20, LOCAL, 0.02)}, "", 0.1, "generator"),
        ({"lag_ms": np.full(200, 60.0), "latency_ms": np.full(200, 150.0)}, "", 0.1, "generator"),
        ({"lag_ms": np.full(200, 4.0), "latency_ms": np.full(200, 150.0)}, "", 0.1, "broken"),
        ({"lag_ms": np.full(200, 60.0)}, "", 0.1, "met"),
        ({"latency_ms": np.full(200, 150.0)}, "", 0.97, "generator"),
        ({"status": statuses(10, 20, REFUSED, 1.0)}, "", 0.1, "broken"),
        ({}, "stopped", 0.1, "stopped"),
        ({}, "interrupted", 0.97, "interrupted"),
    ],
)
def test_what_a_step_says_and_when_it_says_nothing_of_the_service(changed, stopped, cpu, verdict):
    rng = np.random.default_rng(1)
    step, _ = summarise(raw(10.0, 20.0, rng, stopped, cpu, **changed), PLAN, rng)
    assert step.verdict == verdict and (verdict == "met") == (step.why == "")


def test_a_generator_that_fails_once_is_given_a_second_try_and_then_the_climb_ends():
    rng = np.random.default_rng(0)
    step, _ = summarise(raw(20.0, 20.0, rng, cpu=0.99, latency_ms=np.full(400, 150.0)), PLAN, rng)
    assert next_step([step], PLAN).rate_per_s == 20.0
    assert "generator" in next_step([step, step], PLAN).why


def test_what_is_under_way_counts_with_its_age_and_quick_errors_only_as_errors():
    rng = np.random.default_rng(2)
    status = statuses(10, 20, PENDING, 0.1)
    old = np.where(status == PENDING, 5000.0, 20.0)
    late, _ = seen(10, 20, rng, status=status, latency_ms=old).values("p95_ms")
    assert np.quantile(late, 0.95) == 5000.0
    refused = seen(10, 20, rng, status=np.where(status == PENDING, REFUSED, OK).astype(np.int8), latency_ms=old)
    assert refused.values("p95_ms")[0].max() == 20.0 and refused.error_share == pytest.approx(0.1)
    given_up = seen(10, 20, rng, status=np.where(status == PENDING, TIMED_OUT, OK).astype(np.int8), latency_ms=old)
    assert np.quantile(given_up.values("p95_ms")[0], 0.95) == 5000.0


def test_tokens_count_where_their_request_stands():
    rng = np.random.default_rng(2)
    one = seen(10, 20, rng, gap_ms=np.array([5.0, 7.0]), gap_of=np.array([0, 3]), first_ms=np.full(200, 40.0))
    gaps, due = one.values("itl_p95_ms")
    assert gaps.tolist() == [5.0, 7.0] and due.tolist() == [one.due_s[0], one.due_s[3]]
    assert set(one.values("ttft_p95_ms")[0]) == {40.0}


def test_monotone_pools_what_falls_and_leaves_what_rises():
    assert monotone(np.array([1.0, 3.0, 2.0, 5.0]), np.array([1.0, 1.0, 3.0, 1.0])).tolist() == [1.0, 2.25, 2.25, 5.0]


def test_the_crossing_is_read_between_its_neighbours():
    assert crossing(np.array([0.0, 1.0, 2.0]), np.array([-2.0, -1.0, 1.0])) == pytest.approx(1.5)
    assert crossing(np.array([0.0, 1.0]), np.array([-2.0, -1.0])) is None
    assert crossing(np.array([0.0, 1.0]), np.array([2.0, 3.0])) is None


def test_the_way_back_ends_where_the_objective_is_met_for_a_whole_window():
    due = np.arange(0.0, 20.0, 0.1)
    latency = np.where(due < 6.0, 900.0, 20.0)
    rng = np.random.default_rng(0)
    fields = {"due_s": due, "latency_ms": latency, "lag_ms": np.zeros(200), "status": np.full(200, OK, dtype=np.int8), "first_ms": np.full(200, np.nan)}
    one = seen(10, 20, rng, **fields)
    assert back_after(one, {"p95_ms": 100.0}, 1.0, 2.0) == pytest.approx(5.0, abs=0.25)
    assert back_after(one, {"p95_ms": 10.0}, 1.0, 2.0) is None
    failing = seen(10, 20, rng, **{**fields, "status": np.full(200, REFUSED, dtype=np.int8)})
    assert back_after(failing, {"p95_ms": 100.0}, 1.0, 2.0) is None
