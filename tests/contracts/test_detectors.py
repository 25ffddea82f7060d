"""What every registered detector must do in the sweep itself: be seen or abstain, look at nothing later, learn values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest

from detection import detectors, pipeline
from detection.baselines import BaselineSet
from detection.errors import ConfigError
from detection.methods import Joint, Methods
from detection.model import Anomaly, FloatArray, MetricWindow, Score, Service, Slo, Span
from detection.settings import DetectionSettings

STEP_S = 300.0
DAYS = 3.5
END_S = 1_700_006_400.0 - 1_700_006_400.0 % 300
SERVICES = [
    Service(name=name, serving="slotune_demo", selectors={"service": name}, slo=Slo(p95_ms=100, for_s=300))
    for name in ("calm", "busy")
]
SIGNALS = ("p95_ms", "mean_ms", "qps", "queue_depth", "error_rate")
FORECAST = ("calm/p95_ms", "busy/p95_ms")
# what a value ten times its usual means to a detector that looks at latency; a confirmer opens nothing by itself, and
# what lasts is judged only where weeks are known (tests/detection/test_weekly.py), and a training job answers nobody
SEES_LATENCY = sorted(set(detectors.REGISTRY) - {"absent", "fluctuation", "local_outlier", "sustained", "training"})


def settings_of(name: str) -> DetectionSettings:
    """One detector alone."""
    if name == "dynamic":
        return DetectionSettings(detectors=(), dynamic_series=FORECAST, keep_firing_for_s=0)
    return DetectionSettings(detectors=(name,), keep_firing_for_s=0)


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
                values[signal][-8:] *= factor
        found[service.name] = MetricWindow(service.name, span, values, "histogram")
    return found


@lru_cache(maxsize=32)
def learned(name: str) -> BaselineSet:
    return pipeline.learn(SERVICES, windows(END_S, DAYS), {}, settings_of(name))


def sweep(name: str, live: dict[str, MetricWindow], at_s: float) -> tuple[Sequence[Anomaly], Sequence[Score]]:
    anomalies, scores, _ = pipeline.detect(SERVICES, live, learned(name), at_s, settings_of(name))
    return anomalies, scores


@pytest.fixture(params=sorted(detectors.REGISTRY))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_registry_is_sorted_and_names_what_it_knows() -> None:
    assert list(detectors.REGISTRY) == sorted(detectors.REGISTRY)
    with pytest.raises(ConfigError, match="isolation_forest"):
        detectors.get("forest")
    for name, factory in detectors.REGISTRY.items():
        assert factory(SERVICES, settings_of(name)).name == name


def test_the_sweep_refuses_a_detector_that_nobody_knows(name: str) -> None:
    settings = DetectionSettings(detectors=(name, "forest"))
    for run in (
        lambda: pipeline.learn(SERVICES, {}, {}, settings),
        lambda: pipeline.detect(SERVICES, {}, BaselineSet(), END_S, settings),
    ):
        with pytest.raises(ConfigError, match=f"'forest'; known: .*{name}"):
            run()


def test_each_declares_no_more_than_the_whole_budget() -> None:
    methods = Methods.of({name: make(SERVICES, settings_of(name)) for name, make in detectors.REGISTRY.items()})
    shares = [methods.share(name, SIGNALS) for name in ("votes", *methods.joints, *methods.own)]
    assert all(0 <= share < 1 for share in shares)
    assert sum(shares) <= 1


def test_scores_are_numbers_or_abstentions_with_a_reason(name: str) -> None:
    for factor in (1.0, 10.0):
        _, scores = sweep(name, windows(END_S + 3600, 0.125, p95_ms=factor, mean_ms=factor), END_S + 3600)
        for score in scores:
            assert score.at_s == END_S + 3600
            assert score.score is not None or score.reason
            assert score.score is None or (np.isfinite(score.score) and score.score >= 0)


def test_nothing_later_is_looked_at(name: str) -> None:
    at_s = END_S + 1800
    later = windows(END_S + 3600, 0.125, p95_ms=50, mean_ms=50)
    until = {service: window.between(window.span.start_s, at_s) for service, window in later.items()}
    assert sweep(name, later, at_s) == sweep(name, until, at_s)


def test_the_same_input_gives_the_same_output_and_stays_as_it_was(name: str) -> None:
    history, live = windows(END_S, DAYS), windows(END_S + 3600, 0.125, p95_ms=10, mean_ms=10)
    again = pipeline.learn(SERVICES, history, {}, settings_of(name))
    found, scores, _ = pipeline.detect(SERVICES, live, again, END_S + 3600, settings_of(name))
    assert (found, scores) == sweep(name, live, END_S + 3600)
    for service, window in windows(END_S, DAYS).items():
        for signal, values in window.values.items():
            np.testing.assert_array_equal(values, history[service].values[signal])


def test_what_it_learns_travels_between_processes(name: str) -> None:
    live = windows(END_S + 3600, 0.125, p95_ms=10, mean_ms=10)
    back = BaselineSet.from_bytes(learned(name).to_bytes())
    anomalies, scores, _ = pipeline.detect(SERVICES, live, back, END_S + 3600, settings_of(name))
    assert (anomalies, scores) == sweep(name, live, END_S + 3600)


def test_without_a_baseline_it_says_nothing_or_abstains(name: str) -> None:
    made = Methods.of({name: detectors.get(name)(SERVICES, settings_of(name))})
    live = windows(END_S, 0.125)
    anomalies, scores, _ = pipeline.detect(SERVICES, live, BaselineSet(), END_S, settings_of(name))
    assert anomalies == []
    assert all(score.score is None and score.reason for score in scores)
    if made.bands:
        assert {score.service for score in scores} == {"calm", "busy"}


def test_gaps_are_no_anomaly(name: str) -> None:
    live = windows(END_S + 3600, 0.125)
    for window in live.values():
        for values in window.values.values():
            values[-1] = np.nan
    assert sweep(name, live, END_S + 3600)[0] == []


@pytest.mark.parametrize("name", SEES_LATENCY)
def test_a_latency_ten_times_as_high_is_seen(name: str) -> None:
    anomalies, scores = sweep(name, windows(END_S + 2400, 0.125, p95_ms=10, mean_ms=10), END_S + 2400)
    assert {anomaly.service for anomaly in anomalies} == {"busy"}
    assert name in {said for anomaly in anomalies for said in anomaly.detectors}
    assert any(score.signal in ("p95_ms", "mean_ms") and (score.score or 0) > 1 for score in scores)


def test_a_confirmer_opens_nothing_and_makes_a_joint_warning_one_to_act_on() -> None:
    # latency alone moves less than a vote wants, everything together is strange
    live = windows(END_S + 2400, 0.125, p95_ms=10, mean_ms=10)
    both = DetectionSettings(detectors=("local_outlier", "pca_residual"), keep_firing_for_s=0)
    tiers = {}
    for settings in (both, settings_of("pca_residual"), settings_of("local_outlier")):
        baselines = pipeline.learn(SERVICES, windows(END_S, DAYS), {}, settings)
        anomalies, _, _ = pipeline.detect(SERVICES, live, baselines, END_S + 2400, settings)
        tiers[settings.detectors] = {anomaly.tier for anomaly in anomalies}
    assert tiers == {both.detectors: {"act"}, ("pca_residual",): {"warn"}, ("local_outlier",): set()}


def test_joint_shares_are_explained(name: str) -> None:
    method = detectors.get(name)(SERVICES, settings_of(name))
    if not isinstance(method, Joint) or not method.share:
        return
    anomalies, _ = sweep(name, windows(END_S + 2400, 0.125, p95_ms=10, mean_ms=10), END_S + 2400)
    (anomaly,) = anomalies
    assert sum(anomaly.contributions.values()) == pytest.approx(1)
    assert set(list(anomaly.contributions)[:2]) == {"p95_ms", "mean_ms"}


def test_fluctuation_is_seen_though_the_level_is_fine() -> None:
    live = windows(END_S + 3600, 0.125)
    live["busy"].values["p95_ms"][-14:] *= np.tile([0.6, 1.5], 7)
    anomalies, _ = sweep("fluctuation", live, END_S + 3600)
    assert [(a.service, a.signal, a.tier, a.symptom) for a in anomalies] == [("busy", "p95_ms", "warn", "fluctuation")]


def test_silence_is_seen() -> None:
    live = windows(END_S, 0.125)
    for values in live["busy"].values.values():
        values[-3:] = np.nan
    anomalies, _ = sweep("absent", {"busy": live["busy"]}, END_S)
    # busy had data and lost it; calm has no series at all
    assert {anomaly.service: anomaly.tier for anomaly in anomalies} == {"busy": "act", "calm": "warn"}
