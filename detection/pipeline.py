"""The flow's detect_anomalies and learn_baselines as plain functions: windows and baselines in, anomalies out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from detection import detectors, fitting, own_signals, peers, scoring, weekly
from detection.anomalies import DetectionState, merge
from detection.baselines import BaselineSet
from detection.detectors.rules import rules_for
from detection.methods import Methods
from detection.model import Anomaly, MetricWindow, Score, Service, Span
from detection.ranker import Judge
from detection.ranking import ranked
from detection.settings import DetectionSettings
from detection.training import TRAINING_SIGNALS

__all__ = ["BaselineSet", "DetectionState"]

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
    "memory_gb",
    "gpu_temperature_c",
    "load_failures",
    "replicas",
    "agreement",
    "ttft_p50_ms",
    "ttft_p95_ms",
    "itl_p50_ms",
    "itl_p95_ms",
    "generation_tokens_per_s",
    "kv_usage",
    "preemptions_per_s",
    "running",
)


def signals_needed(services: Sequence[Service], settings: DetectionSettings | None = None) -> tuple[str, ...]:
    """The signals that a sweep has to read: what the rules look at and what the baselines are learned from."""
    settings = settings or DetectionSettings()
    jobs = TRAINING_SIGNALS if any(service.kind == "training" for service in services) else ()
    ruled = [rule.signal for service in services for rule in rules_for(service, settings)]
    return tuple(dict.fromkeys((*_STATISTICAL, *jobs, *ruled, *own_signals.names(services))))


def unknown_names(
    settings: DetectionSettings, registry: detectors.Registry = detectors.REGISTRY, own: Collection[str] = ()
) -> dict[tuple[str | int, ...], str]:
    """Detectors, rules and signals that the settings name and nothing knows: by path below `detection`, what is wrong.
    own: names of signals that services define."""
    return detectors.unknown_names(settings, registry, own)


def lookback_s(settings: DetectionSettings, step_s: float) -> float:
    """How much of the recent past a sweep at this step must read."""
    step_s = max(step_s, settings.history_step_s)
    return max(settings.lookback_s, (fitting.look_back_points(step_s) + 1) * step_s)


def learn(
    services: Sequence[Service],
    history: Mapping[str, MetricWindow],
    leave_out: fitting.Spans,
    settings: DetectionSettings,
    previous: BaselineSet | None = None,
    alarm_since_s: Mapping[str, float] | None = None,
    registry: detectors.Registry = detectors.REGISTRY,
    weeks: Mapping[str, MetricWindow] | None = None,
) -> BaselineSet:
    """Baselines of all services from their history: see detection.fitting.learn.

    weeks: the windows of weeks_span, for the habits of the week; without them weekends are compared with weekdays.

    registry: where the names in settings.detectors are looked up. Raises ConfigError for one that is not there.
    """
    methods = detectors.chosen(services, settings, registry)
    return fitting.learn(services, history, leave_out, settings, previous, alarm_since_s, methods=methods, weeks=weeks)


def weeks_span(history: Span, settings: DetectionSettings) -> Span | None:
    """What to read besides the history: the weeks before it, at the half hours that detection.weekly learns from."""
    step_s = weekly.slot_s_of(history.step_s)
    end_s = (history.start_s - history.step_s) // step_s * step_s
    start_s = history.end_s - settings.weekly_history_s
    steps = int((end_s - start_s) // step_s)
    return Span(end_s - steps * step_s, end_s, step_s) if steps > 0 else None


def detect(
    services: Sequence[Service],
    windows: Mapping[str, MetricWindow],
    baselines: BaselineSet,
    at_s: float,
    settings: DetectionSettings,
    state: DetectionState | None = None,
    replicas: Mapping[str, Mapping[str, MetricWindow]] | None = None,
    registry: detectors.Registry = detectors.REGISTRY,
    judge: Judge | None = None,
    strictness: Mapping[str, float] = MappingProxyType({}),
) -> tuple[list[Anomaly], list[Score], DetectionState]:
    """Everything that is wrong at at_s, using no sample after it.

    Returns the anomalies (one per service, signal and replica), the scores that voted or abstained with a reason,
    and the state to hand to the next sweep. Rules work without any baseline; the other detectors abstain.
    registry: where the names in settings.detectors are looked up. Raises ConfigError for one that is not there.
    judge: what was learned from labels; the state is kept as the detectors alone say, so that what was learned can be
    taken back at any sweep. strictness: by service, what its act tier is held against, in units of its threshold.
    """
    watched = {service.name for service in services}
    windows = {name: window for name, window in windows.items() if name in watched}
    methods = detectors.chosen(services, settings, registry)
    scores = spoken_scores(methods, windows, baselines, at_s)
    scores += scoring.judge(services, windows, baselines, at_s, settings, methods, strictness)
    scores = own_signals.held_to({service.name: service for service in services}, scores)
    if replicas:
        scores += peers.compare(services, replicas, at_s, settings)
    anomalies, state = merge(scores, at_s, settings, state or DetectionState())
    telling = [score for score in scores if score.tier is not None or score.score is None]
    return ranked(anomalies, at_s, settings, judge), telling, state


def spoken_scores(
    methods: Methods, windows: Mapping[str, MetricWindow], baselines: BaselineSet, at_s: float
) -> list[Score]:
    """What the detectors that speak for themselves say at at_s; a score above 1 without a tier is a warning."""
    return [
        score.model_copy(update={"tier": "warn"}) if score.tier is None and (score.score or 0.0) > 1 else score
        for name, detector in methods.speaking.items()
        for score in detector.score(windows, baselines.spoken.get(name, {}), at_s)
    ]
