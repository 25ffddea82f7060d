"""Recorded history: every way in which it can be bad has a clear outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detection.backtest import recorded, report
from detection.backtest.run import Plan, replay_all
from detection.errors import ConfigError
from detection.settings import DetectionSettings

T = 1_700_000_000.0 + 60.0 * np.arange(200)
ONE = np.ones(200)


def grid(at: np.ndarray, values: np.ndarray, step_s: float | None = None) -> recorded.Recording:
    return recorded.to_grid("s", at, {"value": values}, step_s)


@pytest.mark.parametrize(
    ("at", "values", "odd", "points"),
    [
        pytest.param(T, ONE, {}, 200, id="regular"),
        pytest.param(np.append(T, T[-1]), np.append(ONE, 7), {"repeated timestamps": 1}, 200, id="repeated"),
        pytest.param(T[::-1], ONE, {"out of order": 199}, 200, id="out of order"),
        pytest.param(np.delete(T, [50, 51]), ONE[:198], {"irregular steps": 1, "gaps": 2}, 200, id="gap"),
        pytest.param(T, np.where(T[9] == T, np.inf, 1), {"infinite values": 1}, 200, id="infinite"),
        pytest.param(T, np.where(T[9] == T, np.nan, 1), {"missing values": 1}, 200, id="missing"),
        pytest.param(np.where(T[9] == T, np.nan, T), ONE, {"unreadable timestamps": 1, "irregular steps": 1, "gaps": 1}, 200, id="unreadable time"),
        pytest.param(T[:1], ONE[:1], {}, 1, id="a single sample"),
        pytest.param(T + np.tile([0.0, 7.0], 100), ONE, {"irregular steps": 199}, 200, id="jitter"),
    ],
)  # fmt: skip
def test_odd_data_is_counted_and_put_on_a_grid(
    at: np.ndarray, values: np.ndarray, odd: dict[str, int], points: int
) -> None:
    found = grid(at, values)
    assert found.window.span.points == points
    assert found.odd == odd
    finite = found.window.values["value"][np.isfinite(found.window.values["value"])]
    assert set(finite) <= {1.0, 7.0}


def test_the_last_of_repeated_timestamps_counts() -> None:
    assert grid(np.append(T, T[-1]), np.append(ONE, 7)).window.values["value"][-1] == 7


def test_thirty_days_of_gap_are_a_gap() -> None:
    at = np.concatenate([T, T + 30 * 86_400])
    found = grid(at, np.concatenate([ONE, ONE]))
    assert found.odd["gaps"] == found.window.span.points - 400
    assert np.isnan(found.window.values["value"][300:-300]).all()


def test_a_span_too_long_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="longer step"):
        grid(np.append(T, T[-1] + 60.0 * 6_000_000), np.append(ONE, 1))


def test_a_million_samples() -> None:
    at = 1_700_000_000.0 + np.arange(1_000_000)
    found = grid(at, np.sin(at), 60.0)
    assert found.window.span.points == pytest.approx(1_000_000 / 60, abs=2)


def test_a_coarser_resolution_uses_nothing_later() -> None:
    found = grid(T, np.arange(200.0), 300.0)
    grid_times = found.window.span.times()
    for time, stamp, value in zip(grid_times, found.stamps, found.window.values["value"], strict=True):
        assert stamp <= time + 150
        assert value <= (stamp - T[0]) / 60


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read|no rows"),
        ("series,timestamp,value\n", "no rows"),
        ("a,b\n1,2\n", "columns series, timestamp, value are missing"),
        ("series,timestamp,value\na,tomorrow,1\n", "no timestamp can be read"),
    ],
)
def test_an_unusable_file_says_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        recorded.load(file)


def test_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        recorded.load(tmp_path / "nothing.csv")
    with pytest.raises(ConfigError, match=r"no \.csv files"):
        recorded.load(tmp_path)


@pytest.mark.parametrize("stamp", ["iso", "seconds", "milliseconds"])
def test_timestamps_in_three_spellings(tmp_path: Path, stamp: str) -> None:
    spell = {
        "iso": lambda t: np.datetime64(int(t), "s"),
        "seconds": lambda t: int(t),
        "milliseconds": lambda t: int(t * 1000),
    }[stamp]
    file = tmp_path / "x.csv"
    file.write_text("series,timestamp,value\n" + "".join(f"a,{spell(t)},1\n" for t in T))
    (found,) = recorded.load(file)
    assert found.window.span.start_s == T[0]


def spiky(days: int = 4) -> recorded.Recording:
    rng = np.random.default_rng(0)
    at = 1_700_006_400.0 + 300.0 * np.arange(288 * days)
    values = 10 + rng.normal(size=at.size)
    values[-60:-54] += 40
    return recorded.to_grid("spiky", at, {"value": values})


def test_a_backtest_finds_the_spike_resumes_and_counts(tmp_path: Path) -> None:
    plan = Plan(DetectionSettings(), learn_every_s=43_200.0)
    told: list[float] = []
    first = replay_all([spiky()], plan, tmp_path, lambda _, done, total: told.append(done / total))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)
    again = replay_all([spiky()], Plan(DetectionSettings(), learn_every_s=43_200.0), tmp_path)
    np.testing.assert_array_equal(first[0].frame["act"], again[0].frame["act"])
    start, end = spiky().stamps[-60], spiky().stamps[-54]
    labels_file = tmp_path / "labels.csv"
    labels_file.write_text(f"series,start,end\nspiky,{start},{end}\n")
    found = report.summary(first, "act", report.read_labels(labels_file))
    assert found["recall"] == 1.0
    assert found["median_delay_s"] <= 600
    on = report.flags(first, "act")
    outside = ~on["timestamp"].between(start, end)
    assert found["quiet_flagged_share"] == pytest.approx(float(on["flag"][outside].mean()), abs=1e-6)
    assert found["by_service"]["spiky"]["flagged_share"] == pytest.approx(float(on["flag"].mean()), abs=1e-6)
    flags = report.flags(first, "act")
    assert list(flags.columns) == ["series", "timestamp", "flag", "score"]
    assert len(flags) == 288 * 4


def test_a_damaged_part_is_replayed_again(tmp_path: Path) -> None:
    plan = Plan(DetectionSettings(), learn_every_s=86_400.0)
    replay_all([spiky(2)], plan, tmp_path)
    (manifest,) = tmp_path.glob("*/manifest.json")
    manifest.write_text("{")
    (outcome,) = replay_all([spiky(2)], plan, tmp_path)
    assert len(outcome.frame) == 576
