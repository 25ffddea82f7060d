"""The latency model: it finds the line, says what it does not know, and refuses what does not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tuning.planning import latency_model as lm
from tuning.planning.latency_model import LatencyModel


def learned(alpha=20.0, beta=1.5, rows=(1, 2, 4, 8, 16), noise=0.03, seed=0, repeats=4) -> LatencyModel:
    rng = np.random.default_rng(seed)
    points = [
        (float(i), float(b), (alpha + beta * b) * float(rng.normal(1, noise)))
        for i, b in enumerate(list(rows) * repeats)
    ]
    return lm.learn(LatencyModel(), [(t + 1, b, y) for t, b, y in points])


def test_the_line_is_found_from_varied_batches():
    curve = learned().curve()
    assert curve.alpha_ms == pytest.approx(20, rel=0.1)
    assert curve.beta_ms == pytest.approx(1.5, rel=0.1)


def test_one_batch_size_alone_leaves_the_rest_open():
    model = learned(rows=(1,))
    near, near_sd = model.predict(1)
    far, far_sd = model.predict(16)
    assert near == pytest.approx(21.5, rel=0.05)
    assert near_sd / near < 0.06
    assert far_sd / far > 0.3
    slopes = [curve.beta_ms / curve.at(1) for curve in model.draws(6)]
    assert min(slopes) < 0.1 and max(slopes) > 0.5


def test_draws_never_have_a_negative_part():
    for rows in ((1,), (1, 2), (8, 16), (1, 32)):
        for curve in learned(alpha=0.2, beta=10.0, rows=rows).draws(6):
            assert curve.alpha_ms >= 0 and curve.beta_ms >= 0


def test_an_outlier_is_refused_and_counted():
    model = learned()
    after = model.add(4, 300.0, 1e6)
    assert after.rejected == 1
    assert after.curve() == model.curve()


def test_a_lasting_change_is_taken_in_after_eight_refusals():
    model = learned()
    for k in range(20):
        model = model.add(4, 78.0, 1e6 + k)
    assert model.predict(4)[0] == pytest.approx(78.0, rel=0.1)


def test_learning_the_same_points_twice_changes_nothing():
    points = [(float(t), 2.0, 10.0) for t in range(1, 6)]
    once = lm.learn(LatencyModel(), points)
    assert lm.learn(once, points) == once


def test_the_state_survives_json_and_a_broken_one_is_forgotten():
    state = lm.dump({lm.key("1", "fp32"): learned()})
    assert lm.load(json.loads(json.dumps(state))) == {"1/fp32": learned()}
    assert lm.load({"models": {"1/fp32": {"w": "x"}, "2/fp32": 3}}) == {}
    assert lm.load(None) == {}


def test_scaled_is_the_same_line_slower():
    model = learned()
    assert model.scaled(2.0).predict(8)[0] == pytest.approx(2 * model.predict(8)[0], rel=0.02)


@pytest.mark.parametrize("rows, batch_ms", [(0, 5.0), (1, 0.0), (float("nan"), 5.0), (1, float("inf"))])
def test_impossible_measurements_are_ignored(rows, batch_ms):
    assert learned().add(rows, batch_ms, 1e6) == learned()
