"""What every registered detector must do: explain itself or abstain, look at nothing later, learn plain values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pytest

from detection import detectors
from detection.errors import ConfigError
from detection.model import FloatArray, MetricWindow, Service, Slo, Span
from detection.ports import Baseline, Detector
from detection.settings import DetectionSettings

STEP_S = 300.0
DAYS = 3.5
END_S = 1_700_006_400.0 - 1_700_006_400.0 % 300
SERVICES = [
    Service(name=name, serving="slotune_demo", selectors={"service": name}, slo=Slo(p95_ms=100, for_s=300))
    for name in ("calm", "busy")
]
SETTINGS = DetectionSettings(dynamic_series=("calm/p95_ms", "busy/p95_ms"), keep_firing_for_s=0)
SIGNALS = ("p95_ms", "mean_ms", "qps", "queue_depth", "error_rate")
# what a value ten times its usual means to a detector that looks at latency
SEES_LATENCY = sorted(set(detectors.REGISTRY) - {"absent", "fluctuation"})


def series(signal: str, t: FloatArray, rng: np.random.Generator) -> FloatArray:
    day = 1 + 0.3 * np.sin(2 * np.pi * t / 86_400)
    level = {"p95_ms": 30.0, "mean_ms": 15.0, "qps": 200.0, "queue_depth": 8.0, "error_rate": 0.001}[signal]
    return level * day * np.exp(0.05 * rng.normal(size=t.size))


def windows(end_s: float, days: float, seed: int = 1, **changes: float) -> dict[str, MetricWindow]:
    span = Span(end_s - days * 86_400, end_s, STEP_S)
    rng = np.random.default_rng(seed)
    found = {}
    for service in SERVICES:
        values = {signal: series(signal, span.times(), rng) for signal in SIGNALS}
        if service.name == "busy":
            for signal, factor in changes.items():
                values[signal][-4:] *= factor
        found[service.name] = MetricWindow(service.name, span, values, "histogram")
    return found


@pytest.fixture(params=sorted(detectors.REGISTRY))
def detector(request: pytest.FixtureRequest) -> Detector:
    return detectors.get(request.param)(SERVICES, SETTINGS)


@lru_cache(maxsize=32)
def learned(name: str) -> Baseline:
    return detectors.get(name)(SERVICES, SETTINGS).learn(windows(END_S, DAYS))


def test_the_registry_is_sorted_and_names_what_it_knows() -> None:
    assert list(detectors.REGISTRY) == sorted(detectors.REGISTRY)
    with pytest.raises(ConfigError, match="isolation_forest"):
        detectors.get("forest")
    for name, factory in detectors.REGISTRY.items():
        assert factory(SERVICES, SETTINGS).name == name


def test_scores_are_numbers_or_abstentions_with_a_reason(detector: Detector) -> None:
    baseline = learned(detector.name)
    scores = detector.score(windows(END_S + 3600, 0.125), baseline, END_S + 3600)
    assert scores
    for score in scores:
        assert score.at_s == END_S + 3600
        assert score.score is not None or score.reason
        assert score.score is None or (np.isfinite(score.score) and score.score >= 0)


def test_nothing_later_is_looked_at(detector: Detector) -> None:
    baseline = learned(detector.name)
    at_s = END_S + 1800
    later = windows(END_S + 3600, 0.125, p95_ms=50, mean_ms=50)
    until = {name: window.between(window.span.start_s, at_s) for name, window in later.items()}
    assert detector.score(later, baseline, at_s) == detector.score(until, baseline, at_s)


def test_the_same_input_gives_the_same_output_and_stays_as_it_was(detector: Detector) -> None:
    history, live = windows(END_S, DAYS), windows(END_S + 3600, 0.125)
    before = {name: {s: v.copy() for s, v in window.values.items()} for name, window in history.items()}
    first = detector.score(live, learned(detector.name), END_S + 3600)
    assert first == detector.score(live, detector.learn(history), END_S + 3600)
    for name, window in history.items():
        for signal, values in window.values.items():
            np.testing.assert_array_equal(values, before[name][signal])


def test_baselines_are_plain_values(detector: Detector) -> None:
    def plain(value: object) -> bool:
        if isinstance(value, Mapping):
            return all(isinstance(key, str) and plain(part) for key, part in value.items())
        if isinstance(value, (tuple, list)):
            return all(plain(part) for part in value)
        if isinstance(value, np.ndarray):
            return value.dtype != object
        return isinstance(value, (str, int, float, bool))

    assert plain(learned(detector.name))


def test_without_a_baseline_it_abstains(detector: Detector) -> None:
    if detector.name in ("rules", "absent"):
        pytest.skip("needs no baseline")
    for score in detector.score(windows(END_S, 0.125), {}, END_S):
        assert score.score is None
        assert score.reason


def test_gaps_are_no_anomaly(detector: Detector) -> None:
    baseline = learned(detector.name)
    live = windows(END_S + 3600, 0.125)
    for window in live.values():
        for values in window.values.values():
            values[-1] = np.nan
    for score in detector.score(live, baseline, END_S + 3600):
        assert score.tier is None
        assert score.score is None or score.score < 3


@pytest.mark.parametrize("name", SEES_LATENCY)
def test_a_latency_ten_times_as_high_is_seen(name: str) -> None:
    made = detectors.get(name)(SERVICES, SETTINGS)
    baseline = learned(made.name)
    live = windows(END_S + 1200, 0.125, p95_ms=10, mean_ms=10)
    scores = made.score(live, baseline, END_S + 1200)

    def worst(service: str) -> float:
        return max(s.score or 0 for s in scores if s.service == service and s.signal in (None, "p95_ms", "mean_ms"))

    assert worst("busy") > 1
    assert worst("calm") < worst("busy")


def test_fluctuation_is_seen_though_the_level_is_fine() -> None:
    made = detectors.get("fluctuation")(SERVICES, SETTINGS)
    baseline = learned(made.name)
    live = windows(END_S + 3600, 0.125)
    live["busy"].values["p95_ms"][-14:] *= np.tile([0.6, 1.5], 7)
    scores = {(s.service, s.signal): s.score or 0 for s in made.score(live, baseline, END_S + 3600)}
    assert scores["busy", "p95_ms"] > 1
    assert scores["calm", "p95_ms"] < 1


def test_silence_is_seen() -> None:
    made = detectors.get("absent")(SERVICES, SETTINGS)
    live = windows(END_S, 0.125)
    for values in live["busy"].values.values():
        values[-3:] = np.nan
    scores = {s.service: s for s in made.score({"busy": live["busy"]}, {}, END_S)}
    assert scores["busy"].tier == "act"  # it had data and lost it
    assert scores["calm"].tier == "warn"  # no series at all
