"""The scheduler of continuous batching: worked examples, laws that any queue keeps, and what preemption costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuning.planning.settings import PlanningSettings
from tuning.planning.token_flow import Lengths
from tuning.planning.token_predict import Flow, Shown, look
from tuning.planning.token_queue import Limits, Requests, Run, StepTime, simulate

STEP = StepTime(base_ms=10.0, sequence_ms=1.0, prefill_ms=0.1)
WIDE = Limits(max_num_seqs=64, max_num_batched_tokens=2048)


def requests(*rows: tuple[float, int, int], cached: int = 0) -> Requests:
    at_s, prompt, output = zip(*rows, strict=True)
    return Requests(list(at_s), list(prompt), [cached] * len(rows), list(output))


def stream(rate: float, count: int = 300, prompt: int = 100, output: int = 40, seed: int = 1) -> Requests:
    rng = np.random.default_rng(seed)
    at_s = np.cumsum(rng.exponential(1 / rate, count)).tolist()
    return Requests(at_s, [prompt] * count, [0] * count, rng.integers(2, 2 * output, count).tolist())


def p95(values: np.ndarray) -> float:
    return float(np.nanquantile(values, 0.95))


def test_one_request_takes_its_prompt_and_an_iteration_for_each_further_token():
    run = simulate(requests((0.0, 100, 5)), STEP, WIDE)
    assert run.ttft_s[0] == pytest.approx(0.020)
    assert run.e2e_s[0] == pytest.approx(0.020 + 4 * 0.011)
    assert (run.tokens, run.preempted) == (5, [])
    assert sum(run.itl_weight) == 4


def test_a_prompt_that_exceeds_the_budget_is_read_in_chunks():
    run = simulate(requests((0.0, 100, 2)), STEP, Limits(64, 40))
    assert run.ttft_s[0] == pytest.approx(3 * 0.010 + 100 * 0.0001)


def test_tokens_of_others_wait_for_a_prompt_that_is_read_with_them():
    run = simulate(requests((0.0, 1, 30), (0.05, 1000, 2)), STEP, WIDE)
    gaps = dict(zip(np.round(run.itl_s, 4).tolist(), run.itl_weight, strict=True))
    assert gaps[0.111] == 1, "one token of the first took the second's prompt with it"


def test_a_seat_is_what_the_next_one_waits_for():
    rows = [(0.0, 10, 11), (0.0, 10, 11)]
    one, two = (simulate(requests(*rows), STEP, Limits(seats, 2048)) for seats in (1, 2))
    assert one.ttft_s[1] == pytest.approx(one.e2e_s[0] + 0.011)
    assert two.ttft_s[1] == pytest.approx(two.ttft_s[0])


def test_hits_in_the_prefix_cache_are_not_computed_but_take_room():
    plain = simulate(requests((0.0, 1000, 2)), STEP, WIDE)
    known = simulate(requests((0.0, 200, 2), cached=800), STEP, WIDE)
    assert known.ttft_s[0] == pytest.approx(plain.ttft_s[0] - 800 * 0.0001)
    small = Limits(64, 2048, kv_tokens=1500, block_tokens=1)
    both = Requests([0.0, 0.0], [200, 200], [800, 800], [50, 50])
    assert simulate(both, STEP, small).ttft_s[1] > 0.5


@pytest.mark.parametrize("limits", [WIDE, Limits(4, 2048), Limits(32, 128), Limits(32, 2048, kv_tokens=900)])
def test_everybody_gets_the_whole_answer_whatever_the_limits(limits):
    asked = stream(4.0)
    run = simulate(asked, STEP, limits)
    assert np.isfinite(run.ttft_s).all() and np.isfinite(run.e2e_s).all()
    assert (run.e2e_s >= run.ttft_s - 1e-9).all() and run.tokens == sum(asked.output)
    gaps = sum(run.itl_weight)
    assert gaps == sum(n - 1 for n in asked.output)


def test_a_full_cache_preempts_computes_again_and_costs_throughput():
    asked = stream(50.0, count=120)
    roomy, tight = (simulate(asked, STEP, Limits(32, 2048, kv_tokens=kv, block_tokens=1)) for kv in (math.inf, 1200.0))
    assert not roomy.preempted and len(tight.preempted) > 5
    assert tight.ended_s > roomy.ended_s
    fewer = simulate(asked, STEP, Limits(7, 2048, kv_tokens=1200.0, block_tokens=1))
    assert not fewer.preempted, "with as many sequences as the cache holds nobody is preempted"


def test_more_load_waits_longer_and_fewer_seats_give_shorter_gaps():
    ttft = [p95(simulate(stream(rate), STEP, Limits(8, 2048)).ttft_s) for rate in (1.0, 8.0, 40.0)]
    assert ttft[0] < ttft[1] < ttft[2]

    def gap(run: Run) -> float:
        return float(np.average(run.itl_s, weights=run.itl_weight))

    narrow, wide = (simulate(stream(40.0), STEP, Limits(seats, 2048)) for seats in (4, 64))
    assert gap(narrow) < gap(wide) and narrow.ended_s > wide.ended_s


def test_what_is_under_way_at_the_beginning_runs_on():
    asked = Requests([0.0, 0.0, 0.0], [100, 100, 10], [0, 0, 0], [20, 30, 5], running=2, done=(10, 5))
    run = simulate(asked, STEP, WIDE)
    assert math.isnan(run.ttft_s[0]) and run.ttft_s[2] == pytest.approx(0.013)
    assert run.tokens == (20 - 10) + (30 - 5) + 5


def test_cached_tokens_make_iterations_longer_where_they_cost():
    free, costly = (simulate(requests((0.0, 500, 50)), StepTime(10, 1, 0.1, kv), WIDE).e2e_s[0] for kv in (0.0, 0.01))
    middle = 49 * 0.01 * (501 + 24) / 1e3
    assert costly - free == pytest.approx(middle, rel=0.02)


def test_a_prompt_larger_than_the_cache_does_not_stop_the_others():
    run = simulate(requests((0.0, 5000, 5), (0.1, 50, 5)), STEP, Limits(8, 2048, kv_tokens=1000))
    assert math.isnan(run.e2e_s[0]) and math.isfinite(run.e2e_s[1])


def shown(
    seats: int, *, waiting: float, kv_tokens: float = 8192, qps: float = 0.88, answered: float = math.inf
) -> Shown:
    """Prompts of 400 tokens and answers of 300, of which a cache of 8,192 holds 14 at once."""
    size = Lengths(400.0, 560.0, 300.0, 450.0, 0.0)
    flow = Flow(qps, 1.0, StepTime(10.0, 0.2, 1.0), Limits(seats, 512, kv_tokens), size, 0, answered)
    return look(flow, waiting, 40.0, PlanningSettings(), 0.0, {})


def test_a_load_that_an_empty_cache_carries_is_not_carried_from_a_queue_on():
    assert shown(64, waiting=0.0).capacity > 1.3
    assert shown(64, waiting=24.0).capacity < 0.85
    assert shown(64, waiting=24.0).p95["ttft_p95_ms"] > 20 * shown(64, waiting=0.0).p95["ttft_p95_ms"]


def test_fewer_seats_than_the_cache_holds_carry_it_with_a_queue_too():
    assert shown(10, waiting=24.0).capacity > 1.1
    assert shown(10, waiting=24.0).p95["ttft_p95_ms"] < 3000.0


def test_where_the_cache_holds_every_seat_a_queue_takes_nothing_away():
    assert shown(64, waiting=24.0, kv_tokens=80_000).capacity == shown(64, waiting=0.0, kv_tokens=80_000).capacity


def test_what_was_answered_from_a_queue_says_more_than_the_model_where_the_cache_goes_on_to_hold_what_runs():
    assert shown(64, waiting=24.0, answered=0.5).capacity == 0.5 == shown(32, waiting=24.0, answered=0.5).capacity
    assert shown(10, waiting=24.0, answered=0.5).capacity > 1.1
    assert shown(64, waiting=0.0, answered=0.5).capacity > 1.3
    assert shown(64, waiting=24.0, kv_tokens=80_000, answered=0.5).capacity > 1.3
