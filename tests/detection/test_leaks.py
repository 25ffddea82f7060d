"""Leaks: when memory reaches its limit, with an interval that holds; and what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest

from detection import peers
from detection.leaks import Leak, lasting, leak_of
from detection.model import MetricWindow, Service, Slo, Span
from detection.settings import DetectionSettings

STEP_S, START_S = 15.0, 1_800_000_000.0


def window(memory: np.ndarray, limit: float | None = 8.0, started_s: float | None = None) -> MetricWindow:
    span = Span(START_S, START_S + STEP_S * (memory.size - 1), STEP_S)
    values = {"memory_gb": memory}
    if limit is not None:
        values["memory_limit_gb"] = np.full(memory.size, limit)
    if started_s is not None:
        values["uptime_s"] = span.times() - started_s
    return MetricWindow("ranker", span, values, replica="r0")


def leak(memory: np.ndarray, **kwargs: object) -> Leak | None:
    seen = window(memory, **kwargs)  # type: ignore[arg-type]
    return leak_of(seen, seen.span.end_s, 120.0, 600.0)


def noise(seed: int, n: int, sd: float, phi: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.zeros(n)
    for i in range(1, n):
        out[i] = phi * out[i - 1] + rng.normal(0, sd)
    return out


def test_the_interval_holds_the_true_time() -> None:
    t = STEP_S * np.arange(480)
    held = 0
    for seed in range(100):
        per_s = (0.4 + 0.02 * (seed % 40)) / 3600
        found = leak(2.0 + per_s * t + noise(seed, t.size, 0.02))
        assert found is not None
        truth = (8.0 - (2.0 + per_s * t[-1])) / per_s
        held += found.soonest_s <= truth <= found.latest_s
    assert held >= 85, held


def test_a_leak_that_began_in_the_middle_is_dated_and_not_averaged_away() -> None:
    t = STEP_S * np.arange(480)
    found = leak(2.0 + np.maximum(t - 3600.0, 0.0) * 1.0 / 3600 + noise(1, t.size, 0.005))
    assert found is not None and found.since_s >= START_S + 3400
    assert found.per_hour == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("name", ["flat", "fills a cache", "saw", "down", "wanders"])
def test_what_is_no_leak(name: str) -> None:
    t = STEP_S * np.arange(480)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shapes = {
            "flat": np.full(t.size, 3.0),
            "fills a cache": 5.0 - 3.0 * np.exp(-t / 1500.0),
            "saw": 3.0 + 0.5 * ((t % 900.0) / 900.0),
            "down": 5.0 - t / 7200.0,
            "wanders": 3.0 + np.cumsum(rng.normal(0, 0.004, t.size)),
        }
        found = leak(shapes[name] + noise(seed, t.size, 0.01))
        assert found is None or found.left_s > 6 * 3600, (name, seed, found)


def test_memory_that_grows_while_a_process_warms_up_is_its_warm_up() -> None:
    t = STEP_S * np.arange(60)
    memory = 1.0 + 0.004 * t
    assert leak(memory, started_s=START_S + t[-1] - 100.0) is None
    assert leak(memory, started_s=START_S - 7200.0) is not None


def test_the_process_before_does_not_count() -> None:
    t = STEP_S * np.arange(480)
    grown = 2.0 + t / 1800.0
    grown[400:] = 2.0
    assert leak(grown) is None


def test_without_a_limit_or_samples_nothing_is_said() -> None:
    t = STEP_S * np.arange(480)
    memory = 2.0 + t / 1800.0
    assert leak(memory, limit=None) is None
    gone = memory.copy()
    gone[-20:] = np.nan
    assert leak(gone) is None, "a replica that has gone leaks no more"


def scores(*memories: np.ndarray, ahead_s: float = 6 * 3600.0) -> list[str | None]:
    service = Service(name="ranker", serving="slotune_demo", slo=Slo(p95_ms=100))
    windows = {f"r{i}": window(memory) for i, memory in enumerate(memories)}
    at_s = windows["r0"].span.end_s
    found = peers.compare([service], {"ranker": windows}, at_s, DetectionSettings(leak_ahead_s=ahead_s))
    assert all((s.tier, s.symptom, s.signal) == ("act", "leaking_replica", "memory_gb") for s in found)
    return [score.replica for score in found]


def test_one_replica_is_warned_of_hours_ahead_and_a_whole_fleet_later() -> None:
    t = STEP_S * np.arange(480)
    flat, leaking = 2.0 + noise(1, t.size, 0.01), 2.0 + t / 3600.0 + noise(2, t.size, 0.01)
    assert scores(flat, leaking) == ["r1"]
    assert scores(flat, leaking, ahead_s=3600.0) == []
    assert scores(leaking, leaking) == [], "what grows everywhere may follow the load"
    soon = 6.0 + t / 3600.0 / 2 + noise(2, t.size, 0.01)
    assert scores(soon, soon + 0.9) == ["r1"]


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (170, "170 s"), (1500, "25 min"), (12_600, "3.5 h"), (345_600, "4 days")])
def test_times_for_people(seconds: float, text: str) -> None:
    assert lasting(seconds) == text
