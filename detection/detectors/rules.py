"""Threshold rules from the SLO and the signals' own limits: always on, no history needed, first to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detection.detectors._rule import Firing, Rule, evaluate
from detection.model import MetricWindow, Score, Service
from detection.ports import Baseline
from detection.settings import DetectionSettings
from detection.signals import shown, title


def rules_for(service: Service, settings: DetectionSettings) -> tuple[Rule, ...]:
    """The rules of one service with the installation's overrides."""
    slo = service.slo
    rules = (
        Rule("latency_p95", "p95_ms", slo.p95_ms, "latency", "act", slo.for_s, clear=0.95 * slo.p95_ms),
        Rule("latency_p99", "p99_ms", 3 * slo.p95_ms, "latency", "warn", max(slo.for_s, 120.0)),
        Rule("errors", "error_rate", slo.error_rate, "errors", "act", slo.for_s, needs_requests=True),
        Rule("queue_backlog", "queue_depth", 100.0, "saturation", "act", 60.0, clear=80.0),
        Rule("gpu_memory", "gpu_memory", 0.9, "gpu_memory", "act", 60.0, clear=0.88),
        Rule("load_failures", "load_failures", 0.01, "load_failures", "act", 0.0, 300.0),
        Rule("idle", "busy", 0.1, "idle", "warn", 1800.0, 300.0, clear=0.15, below=True),
        Rule("quality", "accuracy", 1.0 - slo.accuracy_drop, "quality", "warn", 300.0, below=True),
    )
    return tuple(_overridden(rule, settings) for rule in rules if _enabled(rule, settings))


def _enabled(rule: Rule, settings: DetectionSettings) -> bool:
    override = settings.rules.get(rule.name)
    # what accuracy is normal only the installation knows, so this rule waits for a threshold
    if rule.name == "quality":
        return override is not None and override.enabled and override.threshold is not None
    return override is None or override.enabled


def _overridden(rule: Rule, settings: DetectionSettings) -> Rule:
    override = settings.rules.get(rule.name)
    if override is None:
        return rule
    threshold = rule.threshold if override.threshold is None else override.threshold
    clear = rule.clear if override.threshold is None else None
    return Rule(
        rule.name,
        rule.signal,
        threshold,
        rule.symptom,
        override.tier or rule.tier,
        rule.for_s if override.for_s is None else override.for_s,
        rule.keep_firing_for_s if override.keep_firing_for_s is None else override.keep_firing_for_s,
        clear if override.clear is None else override.clear,
        rule.below,
        rule.needs_requests,
    )


class ThresholdRules:
    """The rules of all services as a detector. Learns nothing; abstains on signals that are not there."""

    name = "rules"

    def __init__(self, services: Sequence[Service], settings: DetectionSettings) -> None:
        self._settings = settings
        self._rules = {service.name: rules_for(service, settings) for service in services}

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """Nothing: thresholds come from the SLO."""
        return {}

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """One score per service and rule whose signal exists: 1 or more while firing, else value over threshold."""
        return [
            self._one(service, rule, window.between(window.span.start_s, at_s), at_s)
            for service, window in windows.items()
            for rule in self._rules.get(service, ())
            if rule.signal in window.values
        ]

    def firing(self, windows: Mapping[str, MetricWindow], at_s: float) -> list[Score]:
        """The scores of `score` that reached a tier; windows without any breach are passed over at once."""
        found = []
        for service, window in windows.items():
            for rule in self._rules.get(service, ()):
                values = window.values.get(rule.signal)
                if (
                    values is not None
                    and ((values < rule.threshold) if rule.below else (values > rule.threshold)).any()
                ):
                    score = self._one(service, rule, window.between(window.span.start_s, at_s), at_s)
                    if score.tier is not None:
                        found.append(score)
        return found

    def _one(self, service: str, rule: Rule, window: MetricWindow, at_s: float) -> Score:
        values = window.values[rule.signal]
        times = window.span.times()
        if rule.needs_requests and "qps" in window.values and values.size:
            requests = np.nan_to_num(window.values["qps"]) * max(rule.for_s, window.span.step_s)
            values = np.where(requests >= self._settings.min_requests, values, np.nan)
        firing = evaluate(rule, times, values) if values.size else Firing(None, None, "no samples")
        return _score(service, rule, firing, at_s)


def _score(service: str, rule: Rule, firing: Firing, at_s: float) -> Score:
    if firing.observed is None:
        return Score(service=service, detector="rules", signal=rule.signal, at_s=at_s, score=None, reason=firing.reason)
    ratio = _ratio(rule, firing.observed)
    fires = firing.since_s is not None
    held_s = at_s - (firing.since_s or at_s)
    side = "below" if rule.below else "above"
    return Score(
        service=service,
        detector="rules",
        signal=rule.signal,
        at_s=at_s,
        score=max(1.0, ratio) if fires else min(ratio, 0.999),
        tier=rule.tier if fires else None,
        observed=firing.observed,
        expected_low=rule.threshold if rule.below else None,
        expected_high=None if rule.below else rule.threshold,
        contributions={"since_s": firing.since_s} if firing.since_s is not None else {},
        reason=(
            f"{title(rule.signal)} is {shown(rule.signal, firing.observed)}: "
            f"{side} {shown(rule.signal, rule.threshold)} for {held_s:.0f} s (rule {rule.name})"
            if fires
            else ""
        ),
    )


def _ratio(rule: Rule, observed: float) -> float:
    if rule.below:
        return min(rule.threshold / observed, 1e6) if observed > 0 else 1e6 * (rule.threshold > 0)
    return max(0.0, observed / rule.threshold) if rule.threshold > 0 else 1e6 * (observed > 0)
