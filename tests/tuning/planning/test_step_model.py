"""The iteration time: found again from what servers export, wide where data leave it open, gated, kept as JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.contracts.engine_subjects import WAVE, token_signals
from tests.fakes.planning import AT_S, make_window
from tuning.planning import step_model as sm
from tuning.planning import token_flow as tf
from tuning.planning.step_model import Measured, StepModel


def learned(rate: np.ndarray | float = WAVE, factor: float = 1.0) -> StepModel:
    return sm.learn(StepModel(), tf.measured(make_window(token_signals(rate, factor)), 10.0))


def at(model: StepModel, sequences: float, prompt: float) -> float:
    step = model.step()
    return step.base_ms + sequences * (step.sequence_ms + step.kv_ms * 110) + prompt * step.prefill_ms


def test_the_line_is_found_again_where_it_was_seen():
    model = learned()
    assert at(model, 4.0, 10.0) == pytest.approx(5.1, rel=0.02)
    assert at(model, 2.0, 100.0) == pytest.approx(5.24, rel=0.02)
    assert model.sequences_max == pytest.approx(4.5, rel=0.3)


def test_draws_agree_where_it_was_seen_and_part_beyond():
    draws = learned().draws(8)
    seen, beyond = ([d.base_ms + n * (d.sequence_ms + 110 * d.kv_ms) for d in draws] for n in (4.0, 200.0))
    assert max(seen) / min(seen) < 1.1 and max(beyond) / min(beyond) > 1.5
    assert all(part >= 0 for d in draws for part in (d.base_ms, d.sequence_ms, d.prefill_ms, d.kv_ms))


def test_what_nobody_saw_is_a_guess_and_what_was_seen_is_none():
    model = learned()
    assert not model.is_guess(4.0, 110.0) and model.is_guess(400.0, 110.0)
    assert model.doubt(400.0) > 2 * model.doubt(4.0)


def test_prompts_longer_than_any_that_was_seen_are_doubted_by_the_doubling():
    model = learned()
    seen = model.prompt_max
    assert model.beyond_prompts(seen) == model.beyond_prompts(0.5 * seen) == 0.0
    assert model.beyond_prompts(4 * seen) == pytest.approx(2 * model.beyond_prompts(2 * seen))
    assert model.beyond_prompts(2 * seen) > 0.05


def test_an_outlier_is_refused_and_a_service_that_changed_is_learned_anew():
    model = learned()
    odd = Measured(AT_S + 10, 50.0, (1.0, 3.0, 5.0, 300.0), 3.0, 5.0)
    refused = model.add(odd)
    assert (refused.rejected, refused.gram) == (1, model.gram)
    slow = [Measured(AT_S + 10 * k, 16.0, (1.0, 3.0, 5.0, 330.0), 3.0, 5.0) for k in range(1, 40)]
    changed = sm.learn(model, slow)
    assert changed.rejected == 0 and changed.predict((1.0, 3.0, 5.0, 330.0))[0] == pytest.approx(16.0, rel=0.1)


def test_no_part_falls_below_zero_though_the_data_pull_it_there():
    falling = [Measured(AT_S + k, 20.0 - 0.5 * k, (1.0, 1.0 + k, 0.0, 0.0), 1.0 + k, 0.0) for k in range(10)]
    step = sm.learn(StepModel(), falling).step()
    assert step.sequence_ms == 0.0 and 14 < step.base_ms < 21


def test_it_survives_json_and_nonsense_is_learned_again():
    model = learned().with_overhead(25.0)
    state = json.loads(json.dumps(sm.dump({"1/bf16": model})))
    assert sm.load(state) == {"1/bf16": model}
    whole = state["steps"]["1/bf16"]
    for name, value in (("gram", [1.0]), ("cross", "x"), ("n", math.nan), ("gram", [True] * 16), ("n", "3")):
        assert sm.load({"steps": {"1/bf16": {**whole, name: value}}}) == {}
    assert sm.load(None) == {} == sm.load({"steps": 3}) == sm.load({"steps": {"x": 1}})


def test_the_overhead_follows_slowly():
    model = StepModel().with_overhead(25.0)
    assert model.overhead_ms == 25.0 and 25.0 < model.with_overhead(125.0).overhead_ms < 50.0


def test_a_growing_queue_is_no_overhead():
    """First tokens of later requests, queue times of those that have their answer already: what parts them is the queue."""
    grows = np.where(np.arange(61) < 40, 0.0, np.arange(61) - 40.0)
    signals = {"ttft_ms": 45.0 + 300.0 * grows, "queue_ms": 100.0 * grows, "prefill_ms": 40.0}
    assert tf.overhead_ms(make_window(signals), -math.inf) == pytest.approx(5.0)
    assert tf.overhead_ms(make_window(signals), AT_S - 90.0) is None, "somebody waited all the time"
    unseen = signals | {"queue_ms": 0.0, "queue_depth": grows}
    assert tf.overhead_ms(make_window(unseen), AT_S - 90.0) is None, "those who wait are in no histogram yet"


def test_what_is_answered_while_a_queue_stands_is_read_once_it_has_stood_for_a_rate_window():
    """61 points, one in 5 s; the queue stands from the 41st on (AT_S - 100)."""
    count = np.arange(61)
    signals = {"queue_depth": np.where(count < 40, 0.0, 9.0), "qps": np.where(count < 42, 3.0, 0.8)}
    found = tf.answered(make_window(signals), -math.inf, 10.0)
    assert found is not None and found.per_s == pytest.approx(0.8)
    assert found.error == pytest.approx(1 / math.sqrt(0.8 * 100))
    assert tf.answered(make_window(signals), AT_S - 5.0, 10.0) is None, "since a change it stands for less than a window"
    emptied = signals | {"queue_depth": np.where(count == 59, 0.0, 9.0)}
    assert tf.answered(make_window(emptied), -math.inf, 10.0) is None
    assert tf.answered(make_window({"qps": 1.0}), -math.inf, 10.0) is None, "no server that tells who waits"
    assert tf.answered(make_window({"qps": 1.0, "queue_depth": np.full(61, np.nan)}), -math.inf, 10.0) is None


def test_a_time_right_after_a_gap_teaches_nothing():
    signals = dict(token_signals(60.0))
    signals["itl_ms"] = np.where(np.arange(61) == 40, np.nan, signals["itl_ms"])
    every = {one.at_s for one in tf.measured(make_window(token_signals(60.0)), 5.0)}
    times = {one.at_s for one in tf.measured(make_window(signals), 5.0)}
    assert every - times == {AT_S - 100.0, AT_S - 95.0} and times


def test_an_engine_that_never_rests_is_read_from_its_iterations():
    busy = {**token_signals(60.0), "running": 12.0, "steps_per_s": 2 * 100.0}
    first = tf.measured(make_window(busy), 10.0)[0]
    assert first.y_ms == pytest.approx(10.0) and first.features[1] == pytest.approx(30 * 19 / 1e3 * 10.0)


def test_only_the_time_of_an_iteration_holds_however_requests_come():
    busy = {**token_signals(60.0), "running": 12.0, "steps_per_s": 2 * 100.0}
    exact = {(one.features[1] > 1, one.exact) for one in tf.measured(make_window(busy), 10.0) if one.y_ms > 9.99}
    assert exact == {(True, True)}
    assert not any(one.exact for one in tf.measured(make_window(token_signals(60.0)), 10.0))


def test_where_prompts_fill_their_iterations_the_time_of_a_prefill_says_nothing():
    """Prompts of 100 tokens whose iterations are shared with 600 others: no iteration of 300 tokens held them."""
    crowded = {**token_signals(60.0), "prompt_tokens_per_s": 40_000.0, "prefill_ms": 30.0, "itl_ms": 15.0}
    for budget, told in ((300.0, False), (4096.0, True), (None, True)):
        seen = tf.measured(make_window(crowded), 10.0, budget=budget)
        assert any(one.y_ms == 30.0 for one in seen) is told, budget


def test_where_every_iteration_holds_a_prompt_the_others_are_not_divided_by():
    crowded = {**token_signals(60.0), "qps": 4000.0, "prefill_ms": 30.0, "itl_ms": 30.0}
    assert all(np.isfinite(one.features).all() for one in tf.measured(make_window(crowded), 10.0))


def test_prompts_longer_than_the_room_take_several_iterations():
    assert tf.iterations(100, 2048) == 1.0
    assert tf.iterations(4096, 1024) == pytest.approx(4.5)
    seen = tf.measured(make_window(token_signals(60.0)), 10.0, budget=50.0)
    assert any(one.features[0] > 2 for one in seen)


@pytest.mark.parametrize(("sigma", "mean"), [(0.3, 300.0), (0.7, 900.0), (1.1, 150.0)])
def test_the_scatter_of_lengths_is_found_through_the_servers_buckets(sigma, mean):
    rng = np.random.default_rng(1)
    lengths = mean * np.exp(sigma * rng.standard_normal(200_000) - sigma**2 / 2)
    edges = np.array([step * 10.0**power for power in range(6) for step in (1, 2, 5)])
    below = np.array([(lengths <= edge).mean() for edge in edges])
    i = int((below < 0.95).sum())
    shown = edges[i - 1] + (edges[i] - edges[i - 1]) * (0.95 - below[i - 1]) / (below[i] - below[i - 1])
    assert tf.spread(mean, float(shown)) == pytest.approx(sigma, abs=0.05)
    drawn = tf.drawn(mean, float(shown), rng.standard_normal(20_000))
    assert np.mean(drawn) == pytest.approx(mean, rel=0.03) and min(drawn) >= 1


def test_constant_lengths_and_ones_without_a_tail():
    assert tf.spread(100.0, 90.0) == tf.spread(0.0, 10.0) < 0.05
