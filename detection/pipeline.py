"""The flow's detect_anomalies and learn_baselines as plain functions: windows and baselines in, anomalies out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detection import fitting, peers
from detection.anomalies import DetectionState, merge
from detection.baselines import BaselineSet
from detection.detectors.absent import AbsentData
from detection.detectors.dynamic import DynamicThreshold
from detection.detectors.rules import ThresholdRules, rules_for
from detection.model import Anomaly, MetricWindow, Score, Service
from detection.scoring import judge
from detection.settings import DetectionSettings

__all__ = ["BaselineSet", "DetectionState", "detect", "learn", "lookback_s", "signals_needed"]

learn = fitting.learn

_STATISTICAL = (
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "mean_ms",
    "qps",
    "error_rate",
    "queue_ms",
    "queue_depth",
    "batch_ms",
    "busy",
    "gpu_util",
    "gpu_memory",
    "load_failures",
    "replicas",
    "agreement",
)


def signals_needed(services: Sequence[Service], settings: DetectionSettings | None = None) -> tuple[str, ...]:
    """The signals that a sweep has to read: what the rules look at and what the baselines are learned from."""
    settings = settings or DetectionSettings()
    ruled = [rule.signal for service in services for rule in rules_for(service, settings)]
    return tuple(dict.fromkeys((*_STATISTICAL, *ruled)))


def lookback_s(settings: DetectionSettings, step_s: float) -> float:
    """How much of the recent past a sweep at this step must read."""
    step_s = max(step_s, settings.history_step_s)
    return max(settings.lookback_s, (fitting.look_back_points(step_s) + 1) * step_s)


def detect(
    services: Sequence[Service],
    windows: Mapping[str, MetricWindow],
    baselines: BaselineSet,
    at_s: float,
    settings: DetectionSettings,
    state: DetectionState | None = None,
    replicas: Mapping[str, Mapping[str, MetricWindow]] | None = None,
) -> tuple[list[Anomaly], list[Score], DetectionState]:
    """Everything that is wrong at at_s, using no sample after it.

    Returns the anomalies (one per service, signal and replica), the scores that voted or abstained with a reason,
    and the state to hand to the next sweep. Rules work without any baseline; the other detectors abstain.
    """
    watched = {service.name for service in services}
    windows = {name: window for name, window in windows.items() if name in watched}
    scores: list[Score] = []
    if "rules" in settings.detectors:
        scores += ThresholdRules(services, settings).firing(windows, at_s)
        scores += AbsentData(services, settings).score(windows, {}, at_s)
    state = state or DetectionState()
    standing = {anomaly.service for anomaly in state.open.values()}
    scores += judge(services, windows, baselines, at_s, settings, standing)
    if settings.dynamic_series:
        dynamic = DynamicThreshold(settings.dynamic_series, settings.dynamic_method)
        scores += [_as_warning(score) for score in dynamic.score(windows, baselines.forecasts, at_s)]
    if replicas:
        scores += peers.compare(services, replicas, at_s, settings)
    anomalies, state = merge(scores, at_s, settings, state)
    telling = [score for score in scores if score.tier is not None or score.score is None]
    return anomalies, telling, state


def _as_warning(score: Score) -> Score:
    return score.model_copy(update={"tier": "warn"}) if score.score is not None and score.score > 1 else score
