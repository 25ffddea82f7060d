"""Replicas against their peers: one slow replica among good ones is its own symptom.

A slow service has slow replicas; a slow replica is slower than the others at the same time under the same load. So
each replica is compared with the median of the others, not with its own past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detection.leaks import MEMORY, UPTIME, Leak, leak_of
from detection.model import FloatArray, MetricWindow, Score, Service, Tier
from detection.settings import DetectionSettings
from detection.signals import SIGNALS

SIGNALS_COMPARED = ("p95_ms", "mean_ms", "batch_ms", "error_rate", "ttft_p95_ms", "itl_p95_ms")
MIN_REPLICAS = 2
ALL_GROW = 1 / 6
"""Of leak_ahead_s: how early the memory of all replicas together is called a leak."""
LEAKING = "leaking_replica"
"""What the anomaly of a leak is called."""


def compare(
    services: Sequence[Service],
    replicas: Mapping[str, Mapping[str, MetricWindow]],
    at_s: float,
    settings: DetectionSettings,
) -> list[Score]:
    """Scores of replicas that have been worse than their peers for slow_replica_for_s; 1 is slow_replica_ratio.

    Act where the slow replica breaks the SLO by itself, else warn. One that was started within warm_up_s is not
    compared. Beside them those of replicas whose memory will reach its limit within leak_ahead_s, peers or not.
    """
    found = []
    for service in services:
        windows = replicas.get(service.name, {})
        if len(windows) >= MIN_REPLICAS:
            found += _service(service, _warm(windows, settings.warm_up_s), at_s, settings)
        leaks = {
            name: leak_of(window, at_s, settings.warm_up_s, settings.leak_for_s) for name, window in windows.items()
        }
        # What grows everywhere may follow the load, as it does each morning: that waits until little is left.
        ahead_s = settings.leak_ahead_s * (ALL_GROW if all(leaks.values()) else 1.0)
        found += [
            _leaking(service, name, leak, at_s, ahead_s)
            for name, leak in sorted(leaks.items())
            if leak is not None and leak.left_s < ahead_s
        ]
    return found


def _warm(windows: Mapping[str, MetricWindow], warm_up_s: float) -> dict[str, MetricWindow]:
    """Those that have run for longer than the warm-up; whose age is not known counts as warm."""
    ages = {name: window.last(UPTIME) for name, window in windows.items()}
    return {name: windows[name] for name, age in ages.items() if age is None or age >= warm_up_s}


def _leaking(service: Service, replica: str, leak: Leak, at_s: float, ahead_s: float) -> Score:
    return Score(
        service=service.name,
        detector="peers",
        signal=MEMORY,
        at_s=at_s,
        score=ahead_s / max(leak.left_s, 1.0),
        tier="act",
        observed=leak.level,
        expected_high=leak.limit,
        contributions={"since_s": leak.since_s},
        replica=replica,
        reason=f"replica {replica}: {leak.text()}",
        symptom=LEAKING,
    )


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
