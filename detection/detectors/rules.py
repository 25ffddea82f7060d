"""Threshold rules from the SLO and the signals' own limits: always on, no history needed, first to be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow, Score, Service, Slo
from detection.ports import Baseline
from detection.rule import Firing, Rule, evaluate, recently
from detection.settings import DetectionSettings, LimitSettings
from detection.signals import INPUT_CHECKS, shown, title


def rules_for(service: Service, settings: DetectionSettings) -> tuple[Rule, ...]:
    """The rules of one service with the installation's overrides, and the installation's own limits."""
    usual = tuple(_overridden(rule, settings) for rule in _rules(service.slo) if _enabled(rule, settings))
    own = (limit for limit in settings.limits if not limit.services or service.name in limit.services)
    return (*usual, *map(_own, own))


_OF_OBJECTIVE = {
    "p95_ms": "latency_p95",
    "ttft_p95_ms": "ttft_p95",
    "itl_p95_ms": "itl_p95",
    "e2e_p95_ms": "e2e_p95",
    "iteration_ms": "iteration",
}


def _promised(slo: Slo) -> tuple[Rule, ...]:
    """One rule for each latency that is promised, and the P99 of the one that is watched by it."""
    found = [
        Rule(_OF_OBJECTIVE[one.signal], one.signal, one.limit_ms, "act", one.for_s, clear=0.95 * one.limit_ms)
        for one in slo.objectives
    ]
    if slo.p95_ms is not None:
        found.insert(1, Rule("latency_p99", "p99_ms", 3 * slo.p95_ms, "warn", max(slo.for_s, 120.0)))
    return tuple(found)


def _rules(slo: Slo) -> tuple[Rule, ...]:
    return (
        *_promised(slo),
        Rule("errors", "error_rate", slo.error_rate, "act", slo.for_s, needs_requests=True),
        Rule("aborts", "abort_rate", slo.abort_rate, "warn", slo.for_s, needs_requests=True),
        Rule("unanswered", "unanswered_rate", slo.abort_rate, "act", max(slo.for_s, 60.0)),
        Rule("queue_backlog", "queue_depth", 100.0, "act", 60.0, clear=80.0),
        Rule("gpu_memory", "gpu_memory", 0.9, "act", 60.0, clear=0.88),
        Rule("load_failures", "load_failures", 0.01, "act", 0.0, 300.0),
        Rule("idle", "busy", 0.1, "warn", 1800.0, 300.0, clear=0.15, below=True),
        *(Rule(f"inputs_{name}", f"data_{name}", 1.0, "warn", 0.0, 900.0) for name in INPUT_CHECKS),
        Rule("quality", "accuracy", 1.0 - slo.accuracy_drop, "warn", 300.0, below=True),
    )


_EVERYTHING = Slo(p95_ms=1.0, ttft_p95_ms=1.0, itl_p95_ms=1.0, e2e_p95_ms=1.0, iteration_ms=1.0)
RULES = tuple(sorted(rule.name for rule in _rules(_EVERYTHING)))
"""The names that `detection.rules` may change, besides absent_data."""


def _own(limit: LimitSettings) -> Rule:
    return Rule(
        name=limit.name,
        signal=limit.signal,
        threshold=limit.threshold,
        tier=limit.severity,
        for_s=limit.for_s,
        keep_firing_for_s=limit.keep_firing_for_s,
        clear=limit.clear,
        below=limit.above is None,
        needs_requests=limit.signal == "error_rate",
    )


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
    given = override.model_dump(include={"threshold", "clear", "for_s", "keep_firing_for_s", "tier"}, exclude_none=True)
    # the usual way back belongs to the usual threshold
    return replace(rule, **({"clear": None} if "threshold" in given else {}) | given)


class ThresholdRules:
    """The rules of all services as a detector. Learns nothing; says nothing of rules that are far from firing."""

    name = "rules"

    def __init__(self, services: Sequence[Service], settings: DetectionSettings) -> None:
        self._min_requests = settings.min_requests
        self._rules = {service.name: rules_for(service, settings) for service in services}

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """Nothing: thresholds come from the SLO."""
        return {}

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """One score for each rule that was broken in the window: 1 or more while firing, else value over threshold."""
        found = []
        for service, window in windows.items():
            for rule in self._rules.get(service, ()):
                values = window.values.get(rule.signal)
                # nearly all windows are passed over here
                if values is not None and _breach(rule, values).any():
                    score = self._one(service, rule, window.between(window.span.start_s, at_s), at_s)
                    found += [score] if score.score is not None else []
        return found

    def may_speak(self, window: MetricWindow, times_s: FloatArray) -> NDArray[np.bool_]:
        """At which of the times any rule could fire: there was a breach recently enough to matter."""
        look = np.zeros(times_s.size, dtype=bool)
        for rule in self._rules.get(window.service, ()):
            if rule.signal in window.values:
                within_s = rule.for_s + 4 * rule.keep_firing_for_s + 3600
                look |= recently(_breach(rule, window.values[rule.signal]), window.span.times(), times_s, within_s)
        return look

    def _one(self, service: str, rule: Rule, window: MetricWindow, at_s: float) -> Score:
        values = window.values[rule.signal]
        times = window.span.times()
        if rule.needs_requests and "qps" in window.values and values.size:
            requests = np.nan_to_num(window.values["qps"]) * max(rule.for_s, window.span.step_s)
            values = np.where(requests >= self._min_requests, values, np.nan)
        firing = evaluate(rule, times, values) if values.size else Firing(None, None, "no samples")
        return _score(service, rule, firing, at_s)


def _breach(rule: Rule, values: FloatArray) -> NDArray[np.bool_]:
    return (values < rule.threshold) if rule.below else (values > rule.threshold)


def _score(service: str, rule: Rule, firing: Firing, at_s: float) -> Score:
    if firing.observed is None:
        return Score(
            service=service,
            detector="rules",
            signal=rule.signal,
            at_s=at_s,
            score=None,
            reason=firing.reason,
            kind="rule",
        )
    ratio = _ratio(rule, firing.observed)
    fires = firing.since_s is not None
    held_s = 0.0 if firing.since_s is None else at_s - firing.since_s
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
        reason=_words(rule, firing.observed, held_s) if fires else "",
        kind="rule",
        beyond_s=firing.beyond_s,
    )


def _ratio(rule: Rule, observed: float) -> float:
    if rule.below:
        return min(rule.threshold / observed, 1e6) if observed > 0 else 1e6 * (rule.threshold > 0)
    return max(0.0, observed / rule.threshold) if rule.threshold > 0 else 1e6 * (observed > 0)


def _words(rule: Rule, observed: float, held_s: float) -> str:
    """A rule holds on for a while after its signal came back; then it must not be said to be beyond its limit."""
    side, limit = "below" if rule.below else "above", shown(rule.signal, rule.threshold)
    now = shown(rule.signal, observed)
    if bool(_breach(rule, np.array([observed]))[0]):
        return f"{title(rule.signal)} is {now}: {side} {limit} for {held_s:.0f} s (rule {rule.name})"
    return f"{title(rule.signal)} went {side} {limit} {held_s:.0f} s ago and is {now} now (rule {rule.name})"
