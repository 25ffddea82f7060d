"""From series to numbers: arrivals, speed, replicas, readings. Each row is a window and the number that it holds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tests.fakes.planning import (
    AT_S,
    SATURATED,
    make_incident,
    make_observation,
    make_service,
    make_settings,
    make_window,
)
from tuning.model import Interval, Setting
from tuning.planning import arrivals as ar
from tuning.planning import latency_model as lm
from tuning.planning import reading as rd
from tuning.planning import speed
from tuning.planning.batching import assess, current
from tuning.planning.forecast import Forecast, forecast, trend_start
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import baseline, calm_window, narrowed

NAN = math.nan
SETTINGS = PlanningSettings(rate_window_s=20, recent_s=60)
T = np.arange(0.0, 300.0, 5.0)
WINDOWS = (300.0, 180.0, 120.0)
LINE = lm.learn(lm.LatencyModel(), [(float(k), float(b), 20 + 2.0 * b) for k, b in enumerate([1, 2, 4, 8] * 5, 1)])


# The rate of arrivals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "horizon_s", "method", "figures"),
    [
        (np.full(60, 100.0), 60, "constant", (100.0, 96.764, 103.345, 0.0)),
        (100 + T, 60, "linear trend", (455.0, 410.096, 563.229, 1.0)),
        (100 + T, 10_000, "linear trend", (690.0, 470.913, 1017.945, 1.0)),
        (400 - T, 60, "linear trend", (55.0, 44.95, 67.297, -1.0)),
        (np.array([50.0, 60.0]), 60, "constant", (55.0, 42.973, 70.392, 0.0)),
        (100 + 5 * np.arange(7.0), 60, "constant", (125.0, 119.049, 131.248, 0.0)),
        (100 + 5 * np.arange(8.0), 60, "linear trend", (170.0, 145.209, 214.844, 1.0)),
        (1000 + 0.3 * T, 60, "constant", (1074.25, 1039.482, 1110.181, 0.0)),
        (np.array([0.0, 0.0, 0.0]), 60, "constant", (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_forecasts_in_figures(rate, horizon_s, method, figures):
    found = forecast(T[: rate.size], rate, horizon_s)
    assert found.method == method
    shown = (found.qps.value, found.qps.low, found.qps.high, found.slope)
    assert shown == pytest.approx(figures, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("rate", "start"),
    [
        (100 + T / 3, 0.0),
        (100 + np.maximum(T - 120, 0), 120.0),
        (100 + np.maximum(T - 180, 0), 180.0),
        (100 + np.maximum(T - 240, 0), 240.0),
        (100 + 5 * np.maximum(T - 285, 0), None),  # as a step may show in a rate over 20 s
        (100 + T / 15, None),
        (100 + 0.08 * T, 0.0),
        (500 - T, None),
        (100 + 50.0 * (T > 150), None),
    ],
)
def test_since_when_a_rate_rises(rate, start):
    assert trend_start(T, rate, WINDOWS, 20.0) == start


def test_windows_without_enough_samples_tell_nothing():
    far_s = 1000.0
    assert trend_start(T[:23], 100 + T[:23], WINDOWS, far_s) is None
    assert trend_start(T[:24], 100 + T[:24], WINDOWS, far_s) == 0.0
    assert trend_start(T[:1], T[:1], WINDOWS, 20.0) is None and trend_start(T[:0], T[:0], WINDOWS, 20.0) is None


def arriving(busy=0.99, since=AT_S - 115, **signals):
    observation = make_observation(signals)
    now = dataclasses.replace(rd.read_now(observation, SETTINGS), busy=busy)
    return ar.arrivals(observation, since, now, SETTINGS)


GROWING = [0.0] * 37 + [50.0 * k for k in range(24)]


@pytest.mark.parametrize(
    ("busy", "signals", "rate"),
    [
        (0.99, {"qps": 80.0, "queue_depth": GROWING}, 90.0),
        (0.86, {"qps": 80.0, "queue_depth": GROWING}, 90.0),
        (None, {"qps": 80.0, "queue_depth": GROWING}, 90.0),
        (0.5, {"qps": 80.0, "queue_depth": GROWING}, 90.0),
        (0.99, {"qps": 80.0}, 80.0),
        # The wait grows by half a second per second: twice as many come as are answered.
        (0.99, {"qps": 80.0, "queue_ms": [0.0] * 37 + [2500.0 * k for k in range(24)]}, 160.0),
        (0.86, {"qps": 80.0, "queue_ms": [0.0] * 37 + [2500.0 * k for k in range(24)]}, 160.0),
        (0.85, {"qps": 80.0, "queue_ms": [0.0] * 37 + [2500.0 * k for k in range(24)]}, 80.0),
        (0.99, {"qps": 80.0, "queue_ms": [0.0] * 37 + [5000.0 * k for k in range(24)]}, 800.0),
        (0.99, {"qps": 80.0, "queue_ms": [0.0] * 37 + [1000.0 + 5.0 * k for k in range(24)]}, 80.0),
    ],
)
def test_arrivals_are_answers_and_what_joins_the_queue(busy, signals, rate):
    assert arriving(busy, **signals).qps.value == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("period", [8, 12, 24])
@pytest.mark.parametrize("busy", [0.4, 0.6, 0.84])
def test_a_queue_that_fills_and_empties_hides_no_arrivals(period, busy):
    """100/s come all the time to a server that is full for half of each period (a neighbour, bursts), and rests on
    average: what it answers waves by a third, and its fall at the end is no fall of what comes."""
    depth = np.array([400.0 * abs((k % period) / (period / 2) - 1) for k in range(61)])
    before = np.concatenate([depth[:4], depth[:-4]])  # four steps of 5 s: the rate window of 20 s
    answered = 100.0 - (depth - before) / 20.0
    found = arriving(busy, qps=list(answered), queue_depth=list(depth))
    assert np.ptp(answered[-24:]) > 10.0
    assert found.qps.value == pytest.approx(100.0, rel=0.01)
    assert (found.method, found.slope) == ("constant", 0.0)


def test_without_a_rate_nothing_is_known_of_arrivals():
    assert arriving(qps=NAN) is None and arriving(queue_depth=3.0) is None


def test_a_saturated_server_is_read_over_a_shorter_window():
    window = make_window({"queue_depth": [0.0] * 58 + [100.0, 200.0, 300.0]})
    times = np.array([AT_S])
    long = ar.queue_growth(window, times, np.array([50.0]), AT_S - 60, 20.0, False)
    short = ar.queue_growth(window, times, np.array([50.0]), AT_S - 60, 20.0, True)
    assert (long[0], short[0]) == (pytest.approx(15.0), pytest.approx(20.0))


@pytest.mark.parametrize(
    ("depth", "capacity", "rate", "low", "high"),
    [
        ([900.0, 650.0, 400.0], 100.0, 50.0, 42.643, 57.357),
        ([900.0, 400.0, 390.0], 20.0, 0.4, 0.2, 3.690),
        ([900.0, 850.0, 770.0], 100.0, None, None, None),
        ([900.0, 850.0, 765.0], 100.0, 86.5, 79.143, 93.857),
    ],
)
def test_arrivals_of_a_queue_that_falls(depth, capacity, rate, low, high):
    found = ar.draining_arrivals(make_window({"queue_depth": [0.0] * 58 + depth}), capacity)
    shown = None if found is None else (found.value, found.low, found.high)
    assert shown == (None if rate is None else pytest.approx((rate, low, high), abs=0.01))


def test_a_fall_is_seen_over_ten_seconds_and_three_counts():
    fine = make_window({"queue_depth": [2000.0 - 60.0 * k for k in range(31)]}, points=31, step_s=1.0)
    assert ar.draining_arrivals(fine, 100.0).value == pytest.approx(40.0)
    coarse = make_window({"queue_depth": [2000.0 - 900.0 * k for k in range(3)]}, points=3, step_s=15.0)
    assert ar.draining_arrivals(coarse, 100.0).value == pytest.approx(40.0)
    gap = make_window({"queue_depth": [0.0] * 58 + [900.0, NAN, 400.0]})
    assert ar.draining_arrivals(gap, 100.0) is None


@pytest.mark.parametrize(
    ("now", "history", "cv2"),
    [(3.0, None, 3.0), (None, None, 1.0), (None, 4.0, 4.0), (0.01, None, 0.2), (99.0, None, 20.0)],
)
def test_burstiness(now, history, cv2):
    observation = make_observation({"qps": 1.0})
    if history is not None:
        observation = dataclasses.replace(observation, history=make_window({"arrival_cv2": history}))
    reading = dataclasses.replace(rd.read_now(observation, SETTINGS), arrival_cv2=now)
    assert ar.burstiness(observation, reading) == cv2


def counts_of(cv2: float, *, wave: float = 0.0, points: int = 241) -> np.ndarray:
    """Rates over 30 s at every 5 s, 4/s on average, of gaps that are gamma distributed in the time of the wave."""
    rng = np.random.default_rng(5)
    seconds = 5 * points + 30
    at = np.cumsum(rng.gamma(1 / cv2, cv2, 8 * seconds))
    expected = np.cumsum(4 * (1 + wave * np.sin(np.arange(seconds) / 60)))
    came = np.interp(at, np.concatenate([[0.0], expected]), np.arange(seconds + 1))
    ends = 30 + 5 * np.arange(points)
    return (np.searchsorted(came, ends) - np.searchsorted(came, ends - 30)) / 30


@pytest.mark.parametrize(
    ("cv2", "wave", "low", "high"),
    [(1.0, 0.0, 0.6, 1.7), (6.0, 0.0, 3.5, 9.0), (0.25, 0.0, 0.2, 0.7), (1.0, 0.3, 0.6, 1.7)],
)
def test_how_bursty_arrivals_are_is_told_by_the_scatter_of_their_counts(cv2, wave, low, high):
    window = make_window({"arrivals_per_s": counts_of(cv2, wave=wave)}, points=241, step_s=5.0)
    found, error = ar.counted_burstiness(window, math.inf, "arrivals_per_s", 30.0)
    assert low < found < high and 0.25 < error < 0.4
    early, unsure = ar.counted_burstiness(window, window.span.times()[60], "arrivals_per_s", 30.0)
    assert unsure > error and early != found


@pytest.mark.parametrize(
    ("low", "high", "cv2", "seconds", "below", "above"),
    [
        # 400 arrivals scatter by a twentieth: 1.645 of that is 8.6 % either way.
        (10.0, 10.0, 1.0, 40.0, 9.21, 10.86),
        (10.0, 10.0, 4.0, 40.0, 8.48, 11.79),
        (10.0, 10.0, 1.0, 4000.0, 9.918, 10.083),
        # What is doubted already is doubted no less, and a trend that only rises has a low end as well.
        (5.0, 20.0, 1.0, 40.0, 4.97, 20.10),
        (10.0, 20.0, 1.0, 40.0, 9.21, 20.10),
        (5.0, 20.0, 1.0, 0.0, 5.0, 20.0),
    ],
)
def test_a_rate_is_known_to_the_luck_of_its_count(low, high, cv2, seconds, below, above):
    rate = Forecast(Interval(value=10.0, low=low, high=high), "constant")
    found = ar.counted(rate, cv2, seconds).qps
    assert (found.low, found.value, found.high) == pytest.approx((below, 10.0, above), rel=2e-3)


def test_without_counts_arrivals_are_those_of_independent_users():
    for signals in ({"qps": 3.0}, {"arrivals_per_s": NAN}):
        assert ar.counted_burstiness(make_window(signals), AT_S, "arrivals_per_s", 30.0) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("signals", "waiting"),
    [
        ({"queue_depth": [5.0] * 60 + [9.0]}, 9.0),
        ({"queue_depth": [5.0] * 56 + [7.0] + [NAN] * 4}, 7.0),
        ({"queue_depth": [5.0] * 56 + [NAN] * 5}, 5.0),
        ({"queue_ms": 400.0, "qps": 50.0}, 20.0),
        ({"qps": 50.0}, 0.0),
    ],
)
def test_the_backlog_is_counted_or_littles_law(signals, waiting):
    observation = make_observation(signals)
    assert ar.backlog(rd.read_now(observation, SETTINGS), observation.window, SETTINGS) == pytest.approx(waiting)


# Speed --------------------------------------------------------------------------------------------------------------


def test_points_are_one_per_stride_the_newest_first_to_count():
    rows = [float(k % 4 + 1) for k in range(61)]
    window = make_window({"batch_ms": [10.0 * k for k in range(61)], "rows_per_batch": rows})
    found = speed.points(window, math.inf, 20.0)
    assert [ms for _, _, ms in found] == [10.0 * k for k in range(4, 61, 4)]
    assert [at for at, _, _ in speed.points(window, AT_S - 280, 5.0)] == [AT_S - 295, AT_S - 290, AT_S - 285]
    assert [ms for _, _, ms in speed.points(window, math.inf, 5.0, AT_S - 5)] == [590.0, 600.0]
    assert speed.points(None, math.inf, 5.0) == [] == speed.points(make_window({"rows_per_batch": 2.0}), math.inf, 5.0)


@pytest.mark.parametrize(
    ("signals", "count"),
    [
        ({"batch_ms": 20.0, "rows_per_batch": 2.0}, 61),
        ({"batch_ms": 20.0, "rows_per_batch": 0.9}, 0),
        ({"batch_ms": 0.0, "rows_per_batch": 2.0}, 0),
        ({"batch_ms": 20.0, "batch_size": 1.0}, 61),
        ({"batch_ms": 20.0, "batch_size": 2.0}, 0),
        ({"batch_ms": 20.0}, 0),
    ],
)
def test_what_counts_as_a_point(signals, count):
    assert len(speed.points(make_window(signals), math.inf, 5.0)) == count


def slowdown(factor, rows=4.0, count=6, kept=LINE, noise=0.0, now=None):
    after = [(AT_S + k, rows, factor * (20 + 2 * rows) * (1 + noise * (-1) ** k)) for k in range(count)]
    observation = make_observation({"p95_ms": 5.0})
    return speed.slowdown(kept, after, observation, now or rd.read_now(observation, SETTINGS))


@pytest.mark.parametrize(
    ("factor", "noise", "slow", "scaled"),
    [
        (2.0, 0.0, 2.0, True),
        (1.09, 0.0, 1.09, False),
        (1.15, 0.0, 1.15, True),
        (1.3, 0.4, 1.3, False),
        (0.5, 0.0, 0.5, True),
    ],
)
def test_slowness_is_what_leaves_the_line_by_more_than_its_error(factor, noise, slow, scaled):
    found, error, model = slowdown(factor, noise=noise)
    assert found == pytest.approx(slow, rel=0.02) and error > 0
    assert (model.wyy == LINE.wyy and model.w != LINE.w) is scaled


def test_without_a_line_nothing_is_slow_and_the_points_make_one():
    found, error, model = slowdown(1.0, kept=lm.LatencyModel())
    assert (found, error) == (None, 0.0) and model.n == 6
    assert slowdown(1.0, count=0)[0] is None and slowdown(1.0, count=0)[2] == LINE
    now = rd.read_now(make_observation({"batch_ms": 12.0, "batch_size": 1.0}, settings={"x": Setting(lever="x", values={})}),
                      SETTINGS)  # fmt: skip
    assert slowdown(1.0, count=0, kept=lm.LatencyModel(), now=now)[2].predict(1)[0] == pytest.approx(12.0)


def slowing(batch_ms, rows=4.0, kept=LINE, rate_window_s=20.0, points=241):
    window = make_window({"batch_ms": batch_ms, "rows_per_batch": rows}, points=points)
    return speed.slowing(window, kept, rate_window_s)


LONG = np.arange(241) * 5.0


@pytest.mark.parametrize(
    ("factor", "now", "growth", "seen_s"),
    [
        (1 + np.maximum(LONG - 600, 0) / 300, 3.0, 1 / 900, 595.0),
        (1 + np.maximum(LONG - 900, 0) / 300, 2.0, 1 / 600, 295.0),
        # It has stopped for three minutes: slower, but no longer slower and slower.
        (1 + np.clip(LONG - 600, 0, 420) / 300, 2.4, 0.0, 595.0),
    ],
)
def test_a_slowness_that_grows(factor, now, growth, seen_s):
    found = slowing(28.0 * factor)
    assert found is not None
    assert (found.now, found.seen_s) == (pytest.approx(now, rel=0.08), pytest.approx(seen_s, abs=160.0))
    assert found.growth_per_s == pytest.approx(growth, rel=0.25, abs=1e-6)
    assert found.since_s == AT_S - found.seen_s


@pytest.mark.parametrize("window_s", [20.0, 60.0])
def test_what_grows_has_grown_on_since_the_middle_of_the_rate_window(window_s):
    def truth(at):
        return 1 + np.maximum(at - 900.0, 0.0) / 150

    means = [float(truth(np.linspace(end - window_s, end, 200)).mean()) for end in LONG]
    found = slowing(28.0 * np.array(means), rate_window_s=window_s)
    assert found is not None and means[-1] < 2.94
    assert found.now == pytest.approx(truth(1200.0), rel=0.01)
    assert found.now * found.growth_per_s == pytest.approx(1 / 150, rel=0.03)


@pytest.mark.parametrize(
    "batch_ms",
    [
        np.full(241, 28.0),
        28.0 * (1 + (LONG > 1000)),
        28.0 * (1 + np.clip((LONG - 900) / 20, 0, 1)),
        28.0 * (3 - LONG / 600),
        np.full(241, NAN),
    ],
)
def test_what_does_not_grow(batch_ms):
    assert slowing(batch_ms) is None


def test_a_rise_that_the_line_does_not_know_is_no_slowness():
    one_row = lm.learn(lm.LatencyModel(), [(float(k), 1.0, 10.0) for k in range(1, 9)])
    rows = np.linspace(1, 8, 241)
    assert slowing(6.0 + 6.0 * rows, rows, one_row) is None
    assert slowing(28.0 * (1 + LONG / 600), kept=lm.LatencyModel()) is None
    assert slowing(28.0 * (1 + LONG[:7] / 600), points=7) is None


def test_of_a_step_a_wide_rate_window_makes_a_ramp_and_still_no_slowness():
    ramp = 28.0 * (1 + np.clip((LONG - 1140) / 60, 0, 1))
    assert slowing(ramp, rate_window_s=60.0) is None


def waves(half_s, low=20.0, high=60.0):
    return np.where((LONG // half_s) % 2 == 0, low, high)


@pytest.mark.parametrize(
    ("half_s", "top", "phase_s"), [(60.0, 0.5, 60.0), (40.0, 0.5, 40.0), (200.0, 0.5, 120.0), (60.0, 5.0, 3.45)]
)
def test_how_long_phases_last(half_s, top, phase_s):
    window = make_window({"batch_ms": waves(half_s), "rows_per_batch": 4.0}, points=241)
    assert speed.phase_s(window, -math.inf, LINE, top, 20.0) == pytest.approx(phase_s, rel=0.05)


def test_phases_that_nobody_saw():
    window = make_window({"batch_ms": 20.0, "rows_per_batch": 4.0})
    assert speed.phase_s(window, AT_S - 10, LINE, 0.5, 60.0) == 10.0
    assert speed.phase_s(window, -math.inf, LINE, None, 60.0) == 10.0
    assert speed.phase_s(window, -math.inf, LINE, 0.5, 60.0) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("stats", "spread"),
    [
        ([(1.0, 10.0, 1.0, 0.109)], 0.3),
        ([(1.0, 4.0, 1.0, 0.3)], None),
        ([(1.0, 5.0, 1.0, 0.218)], 0.3),
        ([(1.0, 10.0, 1.0)], None),
        ([(1.0, 10.0, 1.0, 0.1)], 0.02),
        ([(1.0, 10.0, 1.0, 1.0)], 0.8),
        ([(1.0, 10.0, 0.0, 0.0)], None),
        ([(1.0, 10.0, 1.0, 0.109), (2.0, 10.0, 2.0, 0.436)], 0.3),
    ],
)
def test_the_spread_from_statistics_per_size(stats, spread):
    assert speed.spread_of_stats(stats) == (None if spread is None else pytest.approx(spread))


def test_a_line_from_statistics_per_size_weighs_each_by_its_batches():
    stats = ((1.0, 30.0, 0.66), (8.0, 10.0, 0.36), (0.5, 10.0, 1.0), (4.0, 0.0, 1.0), (2.0, 5.0, 0.0))
    found = speed.line_of_stats(dataclasses.replace(make_observation({}), batch_stats=stats))
    assert found.n == pytest.approx(15.0 + 5.0)
    assert found.curve().at(1) == pytest.approx(22.0, rel=0.02) and found.curve().at(8) == pytest.approx(36.0, rel=0.05)
    few = dataclasses.replace(make_observation({}), batch_stats=((1.0, 9999.0, 220.0), (8.0, 1.0, 0.036)))
    assert speed.line_of_stats(few).n == pytest.approx(20.0 * 0.9999 + 0.3)


@pytest.mark.parametrize(
    ("now_cv2", "spread", "seen", "top"),
    [
        (None, 0.2, 0.3, 0.3),
        (0.2, None, 0.3, 0.3),
        (0.2, 0.2, 0.3, 0.4),
        (0.2, 0.2, 0.5, 0.5),
        (0.01, 0.2, None, 0.0),
        (None, None, None, None),
    ],
)
def test_what_varies_on_top(now_cv2, spread, seen, top):
    now = dataclasses.replace(rd.read_now(make_observation({}), SETTINGS), batch_cv2=now_cv2)
    found = speed.on_top(now, spread, seen)
    assert found == (None if top is None else pytest.approx(top))


def test_variation_is_against_the_line_and_needs_six_points():
    rows = np.array([1.0, 8.0] * 30 + [1.0])
    window = make_window({"batch_ms": 20 + 2 * rows, "rows_per_batch": rows})
    assert speed.variation(window, -math.inf, LINE) == pytest.approx(0.0, abs=0.02)
    assert speed.variation(window, -math.inf, lm.LatencyModel()) == pytest.approx(0.24, abs=0.02)
    assert speed.variation(window, AT_S - 20, LINE) is None and speed.variation(window, AT_S - 25, LINE) is not None


def test_the_calm_spread_is_that_of_before():
    cv2 = [0.04] * 37 + [0.5] * 24
    seen = make_observation({"batch_cv2": cv2})
    assert speed.calm_spread(seen, AT_S - 100, SETTINGS) == pytest.approx(0.2)
    late = make_observation({"batch_cv2": [NAN] * 58 + [0.5] * 3})
    assert speed.calm_spread(late, AT_S - 100, SETTINGS) is None
    history = dataclasses.replace(
        late,
        history=dataclasses.replace(
            make_window({"batch_cv2": 0.09}, points=12), span=make_window({"x": 1.0}, points=12, step_s=60.0).span
        ),
    )
    assert speed.calm_spread(history, AT_S - 100, SETTINGS) == pytest.approx(0.3)
    assert speed.calm_spread(make_observation({"batch_cv2": 9.0}), AT_S, SETTINGS) == 0.8


@pytest.mark.parametrize(
    ("signals", "overhead"),
    [
        ({"mean_ms": 40.0, "queue_ms": 15.0, "batch_ms": 20.0}, 5.0),
        ({"mean_ms": 30.0, "queue_ms": 15.0, "batch_ms": 20.0}, 0.0),
        ({"mean_ms": 140.0, "queue_ms": 15.0, "batch_ms": 20.0}, 15.0),
        ({"mean_ms": [40.0] * 37 + [400.0] * 24, "queue_ms": 15.0, "batch_ms": 20.0}, 5.0),
        ({"mean_ms": 40.0, "batch_ms": 20.0}, 0.0),
    ],
)
def test_the_latency_outside_queue_and_batch(signals, overhead):
    seen = make_observation(signals)
    assert speed.overhead_ms(rd.read_now(seen, SETTINGS), seen, AT_S - 100, SETTINGS) == pytest.approx(overhead)


@pytest.mark.parametrize(
    ("qps", "busy", "rows"),
    [(40.0, 0.4, 2.0), (80.0, 0.4, 1.0), (47.0, 0.4, 2.0), (48.0, 0.4, 1.0), (20.0, 0.4, 4.0), (40.0, None, 1.0)],
)
def test_rows_of_one_request(qps, busy, rows):
    # 2 replicas, 40 % busy, 20 ms for 2 rows: 80 rows a second.
    now = dataclasses.replace(rd.read_now(make_observation({}), SETTINGS), qps=qps, busy=busy, batch_ms=20.0,
                              rows_per_batch=2.0, replicas=2)  # fmt: skip
    assert speed.rows_per_request(now) == rows


# Replicas -----------------------------------------------------------------------------------------------------------


def replicas(**batch_ms):
    return {name: make_window({"batch_ms": ms, "rows_per_batch": rows}) for name, (ms, rows) in batch_ms.items()}


def pace(windows, onset=AT_S - 120, kept=lm.LatencyModel()):
    return speed.replica_pace(make_observation({}, replicas=windows), onset, SETTINGS, kept)


def test_the_pace_of_replicas_is_against_the_median_of_the_faster_half():
    found = pace(replicas(a=(20.0, 4.0), b=(20.0, 4.0), c=(50.0, 4.0)))
    assert found == pytest.approx({"a": 1.0, "b": 1.0, "c": 2.5})
    assert pace(replicas(a=(20.0, 4.0), b=(50.0, 4.0))) == pytest.approx({"a": 1.0, "b": 2.5})
    # Twice the rows explain half as much again.
    assert pace(replicas(a=(20.0, 4.0), b=(20.0, 4.0), c=(30.0, 8.0)))["c"] == pytest.approx(1.0)
    assert pace(replicas(a=(20.0, 4.0))) == {} == pace({})


def test_a_slow_replicas_fuller_batches_are_allowed_for_by_the_learned_line():
    """2 + 2 b ms: 6 ms for 2 rows, 18 for 8. A sick one that is twice as slow takes 36 for its 8."""
    line = lm.learn(lm.LatencyModel(), [(float(k), rows, 2 + 2 * rows) for k, rows in enumerate((1.0, 8.0) * 10)])
    windows = replicas(a=(6.0, 2.0), b=(36.0, 8.0))
    found = pace(windows, kept=line)
    assert found == pytest.approx({"a": 1.0, "b": 2.0}, rel=0.02)
    seen = make_observation({}, replicas=windows)
    assert speed.slow_replicas(seen, found, AT_S - 120, SETTINGS) == (8.0, 36.0)
    assert speed.slow_replicas(seen, {"a": 1.0, "b": 1.3}, AT_S - 120, SETTINGS) is None
    # Known by their latency alone: no batch time of theirs is known.
    assert speed.slow_replicas(make_observation({}), {"a": 1.0, "b": 2.0}, AT_S - 120, SETTINGS) is None


def test_by_p95_alone_the_root_counts_up_to_five():
    tails = {name: make_window({"p95_ms": ms}) for name, ms in (("a", 50.0), ("b", 50.0), ("c", 200.0))}
    assert pace(tails) == pytest.approx({"a": 1.0, "b": 1.0, "c": 2.0})
    tails["c"] = make_window({"p95_ms": 5000.0})
    assert pace(tails)["c"] == 5.0
    assert pace({"a": make_window({"p95_ms": 0.0}), "b": make_window({"p95_ms": 0.0})}) == {}
    assert pace({"a": make_window({"p95_ms": 50.0}), "b": make_window({"p95_ms": NAN})}) == {}


def test_the_sound_replicas_tell_how_fast_the_service_is():
    windows = replicas(a=(20.0, 4.0), b=(28.0, 4.0), c=(50.0, 4.0))
    seen = make_observation({}, replicas=windows)
    found = speed.sound_points(seen, {"a": 1.0, "b": 1.3, "c": 2.5}, 20.0, AT_S - 40)
    assert {ms for _, _, ms in found} == {20.0, 28.0} and found == sorted(found)
    assert speed.sound_points(seen, {"a": 1.0, "b": 1.0, "c": 1.3}, 20.0, AT_S) == []
    assert speed.sound_points(seen, {"a": 2.0, "b": 2.0, "c": 2.0}, 20.0, AT_S) == []


def test_one_sick_replica_is_counted_once():
    onset = make_incident().model_copy(update={"opened_at_s": AT_S - 120.0})
    rows = [2.0 + k % 3 for k in range(61)]
    calm = [20 + 2.0 * r for r in rows]
    mixed = [ms * (1.0 if k < 37 else 1.6) for k, ms in enumerate(calm)]
    signals = SATURATED | {"batch_ms": mixed, "rows_per_batch": rows, "batch_size": 8.0, "batch_cv2": 0.3}
    windows = {name: make_window({"batch_ms": [f * ms for ms in calm], "rows_per_batch": rows})
               for name, f in (("a", 1.0), ("b", 1.0), ("c", 3.0))}  # fmt: skip
    seen = make_observation(signals, replicas=windows, settings=make_settings(batch=8))
    found = assess(onset, seen, SETTINGS)
    assert found.replica_slow == pytest.approx((1.0, 1.0, 3.0), rel=0.01)
    assert found.slow == pytest.approx(1.0, abs=0.05) and found.variation is None
    alone = assess(onset, dataclasses.replace(seen, replicas={}), SETTINGS)
    assert alone.slow == pytest.approx(1.6, rel=0.05)


def test_a_service_that_slowed_before_its_incident_is_measured_against_what_was_before_that():
    at = np.arange(241) * 5.0
    rows = 2.0 + np.arange(241) % 3
    factor = 1 + np.maximum(at - 700, 0) / 250
    window = make_window(
        {"batch_ms": (20 + 2 * rows) * factor, "rows_per_batch": rows, "qps": 50.0, "p95_ms": 200.0}, points=241
    )
    incident = make_incident().model_copy(update={"opened_at_s": AT_S - 60.0})
    found = assess(incident, dataclasses.replace(make_observation({}), window=window), SETTINGS)
    assert found.slow == pytest.approx(3.0, rel=0.06)
    assert found.slower_per_min == pytest.approx(60 / 250 / 3, rel=0.1)
    assert found.model.predict(3)[0] == pytest.approx(78.0, rel=0.08)
    assert found.learned[found.model_key].predict(3)[0] == pytest.approx(26.0, rel=0.04)


# Readings -----------------------------------------------------------------------------------------------------------


def test_now_is_a_median_of_the_last_minute_and_not_from_before_the_onset():
    seen = make_observation({"qps": [10.0] * 55 + [20.0] * 6})
    assert rd.read_now(seen, SETTINGS).qps == 10.0
    assert rd.read_now(seen, SETTINGS.model_copy(update={"recent_s": 25.0})).qps == 20.0
    assert rd.read_now(dataclasses.replace(seen, since_s=AT_S - 25), SETTINGS).qps == 20.0
    assert rd.recent_s(dataclasses.replace(seen, since_s=AT_S - 5), SETTINGS) == 10.0
    assert rd.recent_s(dataclasses.replace(seen, since_s=AT_S - 500), SETTINGS) == 60.0


@pytest.mark.parametrize(
    ("change", "share", "fill"),
    [
        ({}, 0.6, 0.5),
        ({"mean_ms": None, "p50_ms": 50.0}, 0.6, 0.5),
        ({"mean_ms": None}, 0.75, 0.5),
        ({"mean_ms": None, "batch_ms": None}, None, 0.5),
        ({"queue_ms": None}, None, 0.5),
        ({"queue_ms": 90.0}, 1.0, 0.5),
        ({"rows_per_batch": 9.0}, 0.6, 1.0),
        ({"rows_per_batch": None}, 0.6, None),
        ({"batch_size": None}, 0.6, None),
    ],
)
def test_shares(change, share, fill):
    now = rd.read_now(make_observation({}, settings={"x": Setting(lever="x", values={})}), SETTINGS)
    now = dataclasses.replace(now, **({"mean_ms": 50.0, "queue_ms": 30.0, "batch_ms": 10.0, "rows_per_batch": 4.0,
                                       "batch_size": 8} | change))  # fmt: skip
    assert (now.queue_share, now.fill) == (
        None if share is None else pytest.approx(share), None if fill is None else pytest.approx(fill))  # fmt: skip


@pytest.mark.parametrize(
    ("signals", "at_s", "text"),
    [
        ({"p95_ms": 5.0}, AT_S, ""),
        ({"p95_ms": 5.0}, AT_S + 120, ""),
        ({"p95_ms": 5.0}, AT_S + 121, "the newest P95 is 121 s old (limit 120 s)"),
        ({"p95_ms": [5.0] * 37 + [NAN] * 24}, AT_S, ""),
        ({"p95_ms": [5.0] * 36 + [NAN] * 25}, AT_S, "the newest P95 is 125 s old (limit 120 s)"),
        ({"p95_ms": NAN}, AT_S, "no P95 is exported in the look-back"),
        ({"qps": 5.0}, AT_S, "no P95 is exported in the look-back"),
    ],
)
def test_stale_numbers(signals, at_s, text):
    assert rd.is_stale(dataclasses.replace(make_observation(signals), at_s=at_s), SETTINGS) == text


def test_what_is_after_the_onset_keeps_three_points_at_least():
    window = make_window({"qps": 5.0})
    assert rd.settled(window, AT_S - 100, SETTINGS) == AT_S - 80
    assert rd.settled(window, AT_S - 15, SETTINGS) == AT_S - 10
    times, values = rd.tail(make_window({"qps": [1.0] * 58 + [2.0, NAN, 4.0]}), "qps", AT_S - 10)
    assert list(times) == [AT_S - 10, AT_S] and list(values) == [2.0, 4.0]
    cut = narrowed(make_observation({"qps": 5.0}), AT_S - 100, SETTINGS)
    assert (cut.window.span.start_s, cut.window.span.end_s) == (AT_S - 80, AT_S)
    assert narrowed(make_observation({"qps": 5.0}), AT_S - 900, SETTINGS).window.span.points == 61


def test_the_baseline_is_before_the_onset_or_of_the_history():
    seen = make_observation({"qps": [10.0] * 37 + [90.0] * 24, "replicas": 2.0})
    calm = calm_window(seen, AT_S - 100, SETTINGS)
    assert baseline(calm, 0.07).qps == 10.0 and baseline(calm, 0.07).variation == 0.07
    assert baseline(calm, None).points == calm.span.points == 37
    assert baseline(calm, None).busy is None
    assert calm_window(seen, AT_S - 271, SETTINGS) is None
    assert calm_window(seen, AT_S - 270, SETTINGS) is not None
    history = make_window({"qps": 33.0}, points=100, step_s=300.0)
    old = dataclasses.replace(seen, history=history)
    assert baseline(calm_window(old, AT_S - 400, SETTINGS), None).qps == 33.0
    assert calm_window(old, AT_S - 400, SETTINGS).span.points == 72
    assert baseline(None, 0.1) == type(baseline(None, 0.1))()


@pytest.mark.parametrize(
    ("signals", "settings", "knobs"),
    [
        ({"batch_size": 4.0, "batch_timeout_ms": 3.0, "replicas": 3.0}, {}, (4, 3.0, 3)),
        ({}, {}, (1, 0.0, 1)),
        ({}, make_settings(batch=8, timeout_ms=2.0, replicas=5), (8, 2.0, 5)),
        ({"batch_size": 4.0}, make_settings(batch=8), (8, 0.0, 2)),
    ],
)
def test_the_setting_as_it_is(signals, settings, knobs):
    seen = make_observation(signals, settings=settings or {"x": Setting(lever="x", values={})})
    assert current(assess(None, seen, SETTINGS), seen) == knobs


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("batch_size", {"batch_size": 32}, "the batch size is at its bound of 32"),
        ("batch_size", {"batch_size": 31}, ""),
        ("replicas", {"min_replicas": 4, "max_replicas": 4}, "replicas are at their bound of 4"),
        ("replicas", {"min_replicas": 3, "max_replicas": 4}, ""),
        ("replicas", {"replicas": 10}, "replicas are at their bound of 10"),
        ("precision", {"precision": "int8"}, ""),
    ],
)
def test_bounds(name, values, text):
    lever = make_service().levers[name]
    assert rd.at_bound(name, lever, Setting(lever=name, values=values)) == text
    assert rd.at_bound(name, lever, None) == ""
    assert rd.at_bound(name, lever, Setting(lever=name, values=values, useless="why")) == "why"
