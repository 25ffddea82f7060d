"""Replicas against their peers: one slow replica among good ones is its own symptom.

A slow service has slow replicas; a slow replica is slower than the others at the same time under the same load. So
each replica is compared with the median of the others, not with its own past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detection.model import FloatArray, MetricWindow, Score, Service, Tier
from detection.settings import DetectionSettings
from detection.signals import SIGNALS

SIGNALS_COMPARED = ("p95_ms", "mean_ms", "batch_ms", "error_rate", "ttft_p95_ms", "itl_p95_ms")
MIN_REPLICAS = 2


def compare(
    services: Sequence[Service],
    replicas: Mapping[str, Mapping[str, MetricWindow]],
    at_s: float,
    settings: DetectionSettings,
) -> list[Score]:
    """Scores of replicas that have been worse than their peers for slow_replica_for_s; 1 is slow_replica_ratio.

    Act where the slow replica breaks the SLO by itself, else warn.
    """
    return [
        score
        for service in services
        if len(replicas.get(service.name, {})) >= MIN_REPLICAS
        for score in _service(service, replicas[service.name], at_s, settings)
    ]


def _service(
    service: Service, windows: Mapping[str, MetricWindow], at_s: float, settings: DetectionSettings
) -> list[Score]:
    found = []
    for signal in SIGNALS_COMPARED:
        series = {
            name: window.between(at_s - settings.slow_replica_for_s, at_s).values[signal]
            for name, window in windows.items()
            if signal in window.values
        }
        sizes = {values.size for values in series.values()}
        if len(series) >= MIN_REPLICAS and len(sizes) == 1 and sizes != {0}:
            found += _signal(service, signal, series, at_s, settings)
    return found


def _signal(
    service: Service, signal: str, series: Mapping[str, FloatArray], at_s: float, settings: DetectionSettings
) -> list[Score]:
    names = sorted(series)
    matrix = np.stack([series[name] for name in names])
    floor = SIGNALS[signal].floor
    found = []
    for row, name in enumerate(names):
        others = np.delete(matrix, row, axis=0)
        known = np.isfinite(matrix[row]) & np.isfinite(others).any(axis=0)
        if known.sum() < max(2, 0.5 * matrix.shape[1]):
            continue
        peers = np.nanmedian(others[:, known], axis=0)
        # all samples of the stretch must agree: the smallest excess counts
        ratio = float(np.min((matrix[row, known] + floor) / (peers + floor)))
        excess = float(np.min(matrix[row, known] - peers))
        if ratio > settings.slow_replica_ratio and excess > floor:
            value, usual = float(np.median(matrix[row, known])), float(np.median(peers))
            found.append(
                _score(service, signal, name, ratio / settings.slow_replica_ratio, value, usual, at_s, settings)
            )
    return found


def _score(
    service: Service,
    signal: str,
    replica: str,
    score: float,
    value: float,
    usual: float,
    at_s: float,
    settings: DetectionSettings,
) -> Score:
    limits = {"error_rate": service.slo.error_rate} | {one.signal: one.limit_ms for one in service.slo.objectives}
    tier: Tier = "act" if value > limits.get(signal, np.inf) else "warn"
    return Score(
        service=service.name,
        detector="peers",
        signal=signal,
        at_s=at_s,
        score=score,
        tier=tier,
        observed=value,
        expected_high=usual * settings.slow_replica_ratio,
        contributions={"since_s": at_s - settings.slow_replica_for_s},
        replica=replica,
        reason=f"replica {replica}: {SIGNALS[signal].title} {value:.4g}, its peers {usual:.4g}",
    )
