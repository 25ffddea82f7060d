"""The latency model in figures: a line of 20 + 1.5 b ms seen at 1, 2, 4 and 8 rows, and one that saw one row only."""

from __future__ import annotations

import numpy as np
import pytest

from tuning.planning import latency_model as lm
from tuning.planning.latency_model import LatencyModel

LINE = lm.learn(LatencyModel(), [(float(i + 1), float(b), 20 + 1.5 * b) for i, b in enumerate([1, 2, 4, 8] * 2)])
ONE_ROW = lm.learn(LatencyModel(), [(float(i + 1), 1.0, 10.0) for i in range(5)])


@pytest.mark.parametrize(
    ("model", "rows", "mean", "sd"),
    [
        (LINE, 1, 21.43659, 1.02959),
        (LINE, 8, 32.10073, 1.64711),
        (LINE, 32, 68.66351, 10.23335),
        (ONE_ROW, 1, 10.0, 0.4583),
        (ONE_ROW, 8, 40.67728, 27.98528),
    ],
)
def test_mean_and_doubt(model, rows, mean, sd):
    assert model.predict(rows) == pytest.approx((mean, sd), rel=1e-4)


@pytest.mark.parametrize(("rows", "doubt"), [(1, 0.04), (8, 0.04), (16, 0.072111), (32, 0.126491)])
def test_the_doubt_grows_with_each_doubling_past_what_was_seen(rows, doubt):
    assert LINE.doubt(rows) == pytest.approx(doubt, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "rows", "unknown"), [(LINE, 16, False), (ONE_ROW, 1, False), (ONE_ROW, 1.5, False), (ONE_ROW, 2, True)]
)
def test_from_where_on_a_time_is_a_guess(model, rows, unknown):
    assert model.unknown_beyond(rows) is unknown


@pytest.mark.parametrize(("batch_ms", "nis", "taken"), [(26.0, 0.0001, True), (30.0, 4.454, True), (30.9, 6.4, True),
                                                        (31.0, 6.69, False)])  # fmt: skip
def test_a_measurement_is_taken_in_up_to_the_99_percent_quantile(batch_ms, nis, taken):
    assert LINE.nis(4, batch_ms) == pytest.approx(nis, abs=0.25)
    after = LINE.add(4, batch_ms, 99.0)
    assert (after.rejected, after.n) == ((0, 9.0) if taken else (1, 8.0))


def test_below_three_measurements_nothing_is_refused():
    two = lm.learn(LatencyModel(), [(1.0, 1.0, 10.0), (2.0, 1.0, 10.0)])
    assert two.add(1.0, 100.0, 3.0).n == 3.0
    assert two.add(1.0, 10.0, 3.0).add(1.0, 100.0, 4.0).rejected == 1


def test_the_eighth_refusal_in_a_row_is_a_change():
    model = LINE
    for k in range(7):
        model = model.add(4, 78.0, 100.0 + k)
    assert model.rejected == 7 and model.predict(4) == pytest.approx(LINE.predict(4))
    changed = model.add(4, 78.0, 200.0)
    assert (changed.rejected, changed.rows_max) == (0, 4)
    assert changed.n == pytest.approx(1.02) and changed.predict(4)[0] == pytest.approx(70.19285, rel=1e-4)
    assert model.add(4, 26.0, 200.0).rejected == 0


def test_draws_and_curve():
    found = [(round(c.alpha_ms, 3), round(c.beta_ms, 3)) for c in LINE.draws(4)]
    assert found == [(20.678, 1.14), (20.421, 1.417), (19.386, 1.64), (18.981, 1.944)]
    assert [(round(c.alpha_ms, 3), round(c.beta_ms, 3)) for c in ONE_ROW.draws(4)] == [
        (9.618, 0.125), (8.69, 1.381), (3.499, 6.43), (0.465, 9.792)]  # fmt: skip
    curve = LINE.curve()
    assert (curve.alpha_ms, curve.beta_ms) == (pytest.approx(19.91314, rel=1e-4), pytest.approx(1.52345, rel=1e-4))
    assert curve.at(10) == pytest.approx(19.91314 + 15.2345, rel=1e-4)


def test_the_sums_are_weighted_by_the_measurements_noise():
    one = LatencyModel().add(4.0, 20.0, 5.0)
    # 5 % of 20 ms: weight 1.
    assert (one.n, one.w, one.wb, one.wbb, one.wy, one.wby, one.wyy) == pytest.approx((1, 1, 4, 16, 20, 80, 400))
    assert (one.rows_max, one.updated_s) == (4.0, 5.0)
    half = LatencyModel().add(4.0, 20.0, 5.0, weight=0.5)
    assert (half.n, half.w) == (0.5, 0.5) and not half.known and one.known


def test_sixty_measurements_count_and_older_ones_fade():
    model = LatencyModel()
    for k in range(70):
        model = model.add(2.0, 12.0, float(k + 1))
    assert model.n == 60.0 and model.w == pytest.approx(60 / 0.36)


def test_faded_and_scaled():
    assert LINE.faded(0.5).n == 4.0 and LINE.faded(0.5).w == pytest.approx(LINE.w / 2)
    slow = LINE.scaled(2.0)
    assert (slow.w, slow.wy, slow.wyy) == pytest.approx((LINE.w / 4, LINE.wy / 2, LINE.wyy))


def test_normal_quantiles():
    assert lm.normal_quantiles(np.array([0.05, 0.5, 0.95])) == pytest.approx([-1.6468, 0.0, 1.6468], abs=1e-3)


def test_keys():
    assert (lm.key("3", "int8"), lm.key("", "")) == ("3/int8", "?/?")
