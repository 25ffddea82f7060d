"""The habits of the week: what two weeks agree on is no news, one odd day never becomes a habit."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.detection.weeks import MONDAY_S, judged, make
from detection import pipeline, weekly
from detection.model import MetricWindow, Service, Slo, Span
from detection.settings import DetectionSettings

SLOTS = 336
SETTINGS = DetectionSettings()


def table(*weeks: np.ndarray) -> np.ndarray:
    return np.stack(weeks)[None].astype(np.float32)


def week(seed: int, weekend: float = 0.0, odd_day: int | None = None, odd: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 0.03, SLOTS)
    # Thursday 1970-01-01 is day 0 of the slots: Saturday and Sunday are days 2 and 3
    values[2 * 48 : 4 * 48] += weekend
    if odd_day is not None:
        values[odd_day * 48 : (odd_day + 1) * 48] += odd
    return values


def by_day(*weeks: np.ndarray) -> np.ndarray:
    return weekly.learn_week(table(*weeks))["week_offset"][0].reshape(7, 48).mean(axis=1)


@pytest.mark.parametrize(
    ("weeks", "expected"),
    [
        pytest.param([week(1, 0.5)], [0, 0, 0, 0, 0, 0, 0], id="one week says nothing"),
        pytest.param([week(1, 0.5), week(2, 0.5)], [0, 0, 0.5, 0.5, 0, 0, 0], id="two that agree"),
        pytest.param([week(1, 0.5), week(2, -0.5)], [0, 0, 0, 0, 0, 0, 0], id="two that contradict each other"),
        pytest.param([week(1, 0.5), week(2)], [0, 0, 0, 0, 0, 0, 0], id="one odd weekend"),
        pytest.param([week(1, 0.5), week(2, 0.25)], [0, 0, 0.25, 0.25, 0, 0, 0], id="of two the smaller"),
        pytest.param([week(1, 0.5), week(2, 0.5, 6, 0.8)], [0, 0, 0.5, 0.5, 0, 0, 0], id="a holiday beside the habit"),
        pytest.param(
            [week(1, 0.5), week(2, 0.5), week(3, 1.5), week(4, 0.5)], [0, 0, 0.5, 0.5, 0, 0, 0], id="of four the median"
        ),
        pytest.param([week(1), week(2), week(3)], [0, 0, 0, 0, 0, 0, 0], id="noise is no habit"),
    ],
)
def test_what_becomes_a_habit(weeks: list[np.ndarray], expected: list[float]) -> None:
    np.testing.assert_allclose(by_day(*weeks), expected, atol=0.05)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param((0.3, 0.3), (0.3, 0.3), (0.3, 0.3), id="from Friday evening to Monday morning"),
        pytest.param((0.3, 0.0), (0.0, 0.0), (0.0, 0.0), id="one Friday evening"),
        pytest.param((0.0, 0.0), (0.3, 0.3), (0.0, 0.3), id="only Monday morning"),
    ],
)
def test_a_busy_weekend_may_begin_the_evening_before_and_end_the_morning_after(
    before: tuple[float, float], after: tuple[float, float], expected: tuple[float, float]
) -> None:
    weeks = [week(1, 0.5), week(2, 0.5)]
    for values, evening, morning in zip(weeks, before, after, strict=True):
        values[2 * 48 - 6 : 2 * 48] += evening
        values[4 * 48 : 4 * 48 + 6] += morning
    offset = weekly.learn_week(table(*weeks))["week_offset"][0]
    assert (offset[2 * 48 - 5 : 2 * 48 - 1].mean(), offset[4 * 48 + 1 : 4 * 48 + 5].mean()) == pytest.approx(
        expected, abs=0.06
    )
    # what is far from it is like every day
    assert (offset[: 48 - 12] == 0).all()
    assert (offset[5 * 48 + 12 : 7 * 48 - 12] == 0).all()


def test_a_quarter_that_is_as_always_is_left_alone_beside_a_busy_day() -> None:
    """The evening before is busy; the other three quarters of that day and the morning after are not."""
    weeks = [week(seed, 0.5) for seed in (1, 2, 3)]
    for seed, values in enumerate(weeks):
        # the rest of that Friday is different every week: as a whole it is no habit
        values[48 : 2 * 48 - 12] += np.random.default_rng(100 + seed).normal(0, 0.3, 36)
        values[2 * 48 - 12 : 2 * 48] += 0.3
    offset = weekly.learn_week(table(*weeks))["week_offset"][0]
    assert offset[2 * 48 - 10 : 2 * 48 - 1].mean() == pytest.approx(0.3, abs=0.06)
    assert (offset[48 : 2 * 48 - 12] == 0).all()


def test_slots_hold_their_end_and_begin_on_the_epochs_weekday() -> None:
    slots = weekly.week_slots(np.array([1.0, 1800.0, 1801.0, weekly.WEEK_S, weekly.WEEK_S + 1]), 1800.0)
    assert slots.tolist() == [0, 0, 1, 335, 0]
    assert weekly.slot_s_of(300.0) == 1800.0
    assert weekly.slot_s_of(3600.0) == 3600.0


def test_a_table_is_of_means_by_week_back_and_slot() -> None:
    times = MONDAY_S + 900.0 * np.arange(1, 2 * 672 + 1)
    x = np.repeat([1.0, 3.0], 672)[None].astype(np.float32)
    x[0, -1] = np.nan
    made = weekly.week_table(x, times, float(times[-1]), 2, 1800.0)
    assert made.shape == (1, 2, SLOTS)
    assert (made[0, 0] == 3).all()
    assert (made[0, 1] == 1).all()


def test_a_habit_may_begin_a_little_early() -> None:
    stats = {
        "week_offset": np.zeros((1, SLOTS), np.float32),
        "week_usual": np.zeros((1, 48), np.float32),
        "week_spread": np.full((1, 48), 2, np.float32),
    }
    stats["week_offset"][0, 96:192] = 0.5
    edge_s = 2 * 86_400.0
    times = edge_s + np.array([-1200.0, -600.0, 600.0])
    early = weekly.habit_of(np.full((1, 3), 0.5, np.float32), times, stats)
    late = weekly.habit_of(np.zeros((1, 3), np.float32), times, stats)
    assert early is not None
    assert late is not None
    assert early.offset[0].tolist() == [0, 0.5, 0.5]
    assert early.spread[0].tolist() == [1, 2, 2]
    assert late.offset[0].tolist() == [0, 0, 0]
    assert (
        weekly.habit_of(np.zeros((1, 3), np.float32), times, {"week_offset": np.zeros((1, SLOTS), np.float32)}) is None
    )


@pytest.mark.parametrize(
    ("value", "ordinary"),
    [
        pytest.param(1.5, 1.0, id="usual and the habit"),
        pytest.param(1.7, 1.1, id="0.2 above, where twice as much scatter is the habit"),
        pytest.param(1.1, 0.8, id="0.4 below"),
    ],
)
def test_what_a_busy_day_would_be_on_an_ordinary_one(value: float, ordinary: float) -> None:
    one = np.ones((1, 1), np.float32)
    habit = weekly.Habit(offset=0.5 * one, usual=one, spread=2 * one)
    assert habit.out_of(value * one)[0, 0] == pytest.approx(ordinary)
    assert habit.into(ordinary * one)[0, 0] == pytest.approx(value)


def scattering(times_as_much: float, *, weekend: float = 0.5, seed: int = 0, odd: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, 0.03, SLOTS)
    values[2 * 48 : 4 * 48] *= times_as_much
    values[2 * 48 : 4 * 48] += weekend
    values[2 * 48 + 20 : 2 * 48 + 24] += odd
    return values


@pytest.mark.parametrize(
    ("weeks", "expected"),
    [
        pytest.param([scattering(2, seed=k) for k in range(4)], (1.6, 2.4), id="twice as much"),
        pytest.param([scattering(1, seed=k) for k in range(4)], (1.0, 1.3), id="as much"),
        pytest.param([scattering(0.3, seed=k) for k in range(4)], (1.0, 1.0), id="less is no reason to look closer"),
        pytest.param([scattering(9, seed=k, weekend=2.0) for k in range(4)], (3.0, 4.0), id="four times at most"),
        pytest.param([scattering(2, seed=k, weekend=0.0) for k in range(4)], (1.0, 1.0), id="without a habit none"),
        pytest.param([scattering(1, seed=k, odd=3.0 * (k == 1)) for k in range(4)], (1.0, 1.6), id="one incident"),
        pytest.param([scattering(2)], (1.0, 1.0), id="one week says nothing"),
    ],
)
def test_how_much_more_a_busy_day_scatters(weeks: list[np.ndarray], expected: tuple[float, float]) -> None:
    spread = weekly.learn_week(table(*weeks))["week_spread"][0]
    assert expected[0] <= spread.mean() <= expected[1]


def test_scatter_is_told_apart_by_the_time_of_day() -> None:
    rng = np.random.default_rng(5)
    weeks = []
    for _ in range(4):
        values = rng.normal(0, 0.03, SLOTS)
        for day in (2, 3):
            values[day * 48 : day * 48 + 24] *= 3
            values[day * 48 : (day + 1) * 48] += 0.8
        weeks.append(values)
    spread = weekly.learn_week(table(*weeks))["week_spread"][0]
    assert spread[6:18].mean() > 2
    assert spread[30:42].mean() < 1.5


SERVICE = Service(name="s", serving="x", slo=Slo(p95_ms=1e9))


def arrays(days: float, settings: DetectionSettings = SETTINGS) -> dict[str, np.ndarray]:
    """What is learned `days` after the first Monday from all that was recorded by then."""
    whole = make(1, "step", whole=False).window
    now_s = MONDAY_S + days * 86_400.0
    history = whole.between(max(MONDAY_S, now_s - settings.history_s), now_s)
    before = whole.between(MONDAY_S, history.span.start_s - 300.0)
    named = {"s": MetricWindow("s", history.span, history.values)}
    weeks = {"s": MetricWindow("s", before.span, before.values)} if before.span.points > 0 else {}
    return dict(pipeline.learn([SERVICE], named, {}, settings, weeks=weeks).groups[0].arrays)


def test_weekends_are_learned_from_two_weeks_on() -> None:
    # of two noisy weeks the smaller counts, so the habit is believed somewhat less than it is
    assert 0.35 < arrays(15)["series/week_offset"].reshape(7, 48)[2].mean() < np.log(1.6)
    assert np.isfinite(arrays(15)["series/hour_scale"]).all()


@pytest.mark.parametrize("days", [7, 12])
def test_less_than_two_weeks_are_judged_as_without(days: float) -> None:
    found, plain = arrays(days), arrays(days, SETTINGS.model_copy(update={"weekly_history_s": 0.0}))
    assert set(found) == set(plain)
    for name, values in found.items():
        np.testing.assert_array_equal(values, plain[name])


def test_what_to_read_ends_before_the_history_and_reaches_back_four_weeks() -> None:
    span = pipeline.weeks_span(Span(MONDAY_S - 7 * 86_400.0, MONDAY_S, 300.0), SETTINGS)
    assert span is not None
    assert (span.start_s, span.step_s) == (MONDAY_S - 28 * 86_400.0, 1800.0)
    assert MONDAY_S - 7 * 86_400.0 - 2100 <= span.end_s < MONDAY_S - 7 * 86_400.0
    assert (
        pipeline.weeks_span(Span(MONDAY_S - 7 * 86_400.0, MONDAY_S, 300.0), DetectionSettings(weekly_history_s=0))
        is None
    )


@pytest.mark.parametrize("shape", ["step", "flat"])
def test_busier_weekends_are_no_news_and_a_fault_on_a_wednesday_and_an_odd_day_are(shape: str) -> None:
    found = judged(make(2, shape, whole=False), SETTINGS)
    assert found["act_incidents"] == 0
    assert found["warnings"] <= 1
    assert found["fault_flagged"] >= 0.8
    assert found["odd_day_flagged"] > 0.2


def test_without_the_weeks_the_same_fault_is_lost_sooner() -> None:
    found = judged(make(2, "step", whole=False), SETTINGS.model_copy(update={"weekly_history_s": 0.0}))
    assert found["fault_flagged"] < 0.6
