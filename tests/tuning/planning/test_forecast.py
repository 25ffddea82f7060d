"""Forecasts: a level stays, a step is no trend, a ramp goes on for a while, last week repeats itself."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import MetricWindow, Span
from tuning.planning.forecast import WEEK_S, forecast, trend_start

T = np.arange(0.0, 300.0, 5.0)
WINDOWS = (300.0, 180.0, 120.0)
RNG = np.random.default_rng(3)


def test_a_level_is_kept_with_its_noise():
    found = forecast(T, 100 + RNG.normal(0, 3, T.size), 60)
    assert found.method == "constant"
    assert found.qps.low < 100 < found.qps.high
    assert found.qps.value == pytest.approx(100, rel=0.05)


def test_a_ramp_is_followed_no_longer_than_it_was_seen():
    found = forecast(T, 100 + T, 60)
    assert found.method == "linear trend"
    assert found.qps.value == pytest.approx(100 + 295 + 60, rel=0.05)
    far = forecast(T, 100 + T, 10_000)
    assert far.qps.value <= 100 + 2 * 300


def test_what_takes_effect_late_meets_a_load_that_grew_on():
    """2/s more every second, seen for 295 s: 60 s ahead and 100 s later still, or as far as it was seen."""
    found = forecast(T, 100 + 2 * T, 60)
    later = found.after(100.0)
    assert later.value == pytest.approx(found.qps.value + 200.0, rel=0.01)
    assert later.high > later.value and later.low == found.qps.low
    assert found.after(1000.0).value == pytest.approx(100 + 2 * (295 + 295), rel=0.01)
    # The upper end goes on for twice as long.
    assert found.after(1000.0).high > 100 + 2 * (295 + 2 * 295)
    assert found.after(0.0) == found.qps


def test_a_level_and_a_fall_are_the_same_later():
    level = forecast(T, 100 + RNG.normal(0, 3, T.size), 60)
    fall = forecast(T[:12], 200 - 3 * T[:12], 60)
    assert (level.after(100.0), fall.after(100.0)) == (level.qps, fall.qps)


def test_noise_is_no_trend():
    methods = {forecast(T, 100 + np.random.default_rng(k).normal(0, 10, T.size), 60).method for k in range(10)}
    assert methods == {"constant"}


def test_a_fall_is_not_followed_to_nothing():
    found = forecast(T[:12], 200 - 3 * T[:12], 600)
    assert found.method == "linear trend"
    assert found.qps.value >= 0.5 * (200 - 3 * T[11])


@pytest.mark.parametrize("seed", range(5))
def test_a_rise_is_told_from_a_step_by_looking_back_far(seed):
    noise = np.random.default_rng(seed).normal(0, 3, T.size)
    assert trend_start(T, 100 + T / 3 + noise, WINDOWS, 20.0) == pytest.approx(T[0], abs=20.0)
    # A rate over 20 s shows a step as a short ramp: still a step, wherever in the look it happened.
    for at in (60.0, 150.0, 240.0, 280.0):
        assert trend_start(T, 100 + 100 * np.clip((T - at) / 20, 0, 1) + noise, WINDOWS, 20.0) is None
    assert trend_start(T, 100 + noise, WINDOWS, 20.0) is None
    assert trend_start(T[:7], 100 + T[:7], WINDOWS, 5.0) is None


def over(window_s: float, rate: np.ndarray) -> np.ndarray:
    """What a rate over `window_s` shows of a rate that is given every 5 s."""
    count = round(window_s / 5.0)
    padded = np.concatenate([np.full(count - 1, rate[0]), rate])
    return np.convolve(padded, np.ones(count) / count, "valid")


@pytest.mark.parametrize(("window_s", "old_windows"), [(20.0, 3.5), (20.0, 5.0), (60.0, 3.0)])
def test_a_level_that_began_to_rise_is_known_after_a_few_rate_windows(window_s, old_windows):
    began_s = 295.0 - old_windows * window_s
    noise = np.random.default_rng(4).normal(0, 0.5, T.size)
    start = trend_start(T, over(window_s, 100 + np.maximum(0, T - began_s)) + noise, (), window_s)
    # A mean over a window lags by half of it.
    assert start is not None and began_s <= start <= began_s + window_s


@pytest.mark.parametrize("window_s", [20.0, 60.0])
@pytest.mark.parametrize("shape", ["step", "waves", "fall", "level"])
def test_what_does_not_go_on_rising_is_no_bend(window_s, shape):
    rates = {
        "step": np.where(T >= 180, 220.0, 100.0),
        "waves": np.where((T >= 180) & ((T - 180) % 60 < 30), 220.0, 100.0),
        "fall": 200 - np.maximum(0, T - 150),
        "level": np.full(T.size, 100.0),
    }
    noise = np.random.default_rng(5).normal(0, 2, T.size)
    assert trend_start(T, over(window_s, rates[shape]) + noise, (), window_s) is None


def test_last_week_is_taken_where_it_fits():
    step, points = 300.0, int(8 * 86_400 / 300)
    start = 1_000_000.0
    times = start + step * np.arange(points)
    values = 100 + 50 * np.sin(2 * np.pi * times / 86_400)
    history = MetricWindow("s", Span(start, float(times[-1]), step), {"qps": values})
    now = start + WEEK_S + 3600.0
    live = now - T[::-1]
    found = forecast(live, np.full(T.size, 100 + 50 * np.sin(2 * np.pi * now / 86_400)), 3600, history)
    assert found.method == "same time last week"
    assert found.qps.value == pytest.approx(100 + 50 * np.sin(2 * np.pi * (now + 3600) / 86_400), rel=0.05)
    other = forecast(live, np.full(T.size, 400.0), 3600, history)
    assert other.method == "constant"
