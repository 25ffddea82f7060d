"""Which replica is changed first, and what its unchanged peers do meanwhile: pure functions of windows.

The replica that is changed first carries the risk alone, and the others, under the same load over the same time, are
the control that a before/after test lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import OBJECTIVES, FloatArray, MetricWindow, Span

LEAST_POINTS = 3
"""A replica with fewer P95 points in the look-back cannot be compared."""
_LOGARITHMIC = ("p50_ms", "p95_ms", "p99_ms", "mean_ms", "queue_ms", "batch_ms", "itl_ms", *OBJECTIVES)


@dataclass(frozen=True)
class Choice:
    """replica: its name at the actuator. label, peers: labels in the metrics."""

    replica: str
    label: str
    peers: tuple[str, ...]


def choose(
    endpoints: Mapping[str, str], windows: Mapping[str, MetricWindow], signal: str = "p95_ms"
) -> Choice | str:
    """The replica to change first, or the sentence that says why all are changed at once.

    endpoints: host:port by the actuator's name. windows: by the metrics' label, which is that name, that address, its
    host, or its host with another port (where metrics have one of their own), the last two where no other endpoint and
    no other label has the same host. signal: the P95 that a replica is to be judged by.
    Chosen is the replica whose traffic is nearest to the median: what holds for it holds for most.
    """
    if len(endpoints) < 2:
        return "there is only one replica"
    hosts = Counter(place.rpartition(":")[0] for place in endpoints.values())
    labels = {name: _label(name, place, hosts, windows) for name, place in endpoints.items()}
    known = {name: label for name, label in labels.items() if label and _points(windows[label], signal) >= LEAST_POINTS}
    if len(known) < 2:
        return (
            f"only {len(known)} of {len(endpoints)} replicas shows a P95 of its own (the label of its series must be "
            "its name, or its host with or without a port)"
        )
    traffic = {name: _mean(windows[label].values.get("qps")) for name, label in known.items()}
    middle = float(np.nanmedian(list(traffic.values()))) if any(np.isfinite(v) for v in traffic.values()) else 0.0
    first = min(known, key=lambda name: (abs(np.nan_to_num(traffic[name]) - middle), name))
    return Choice(first, known[first], tuple(sorted(label for name, label in known.items() if name != first)))


def pooled(service: str, span: Span, windows: Sequence[MetricWindow]) -> MetricWindow:
    """The peers as one: per signal and step the mean over those that have a value (latencies: the geometric mean)."""
    values: dict[str, FloatArray] = {}
    for signal in sorted({signal for window in windows for signal in window.values}):
        rows = np.stack([w.values[signal] for w in windows if signal in w.values])
        logarithmic = signal in _LOGARITHMIC
        if logarithmic:
            rows = np.log(np.where(rows > 0, rows, np.nan))
        known = np.isfinite(rows)
        count = known.sum(axis=0)
        mean = np.where(count > 0, np.where(known, rows, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
        values[signal] = np.exp(mean) if logarithmic else mean
    return MetricWindow(service, span, values)


def _label(name: str, place: str, hosts: Mapping[str, int], windows: Mapping[str, MetricWindow]) -> str:
    """The metrics' label of an endpoint, "" when it has none that is surely its own."""
    host = place.rpartition(":")[0]
    for label in (name, place):
        if label in windows:
            return label
    same = [label for label in windows if host in (label, label.rpartition(":")[0])]
    return same[0] if hosts[host] == 1 and len(same) == 1 else ""


def _points(window: MetricWindow, signal: str) -> int:
    values = window.values.get(signal)
    return 0 if values is None else int((np.isfinite(values) & (values > 0)).sum())


def _mean(values: FloatArray | None) -> float:
    if values is None or not np.isfinite(values).any():
        return float("nan")
    return float(np.nanmean(values))
