"""What a metrics source shows of steps: rates over a window that ends at a time, percentiles of what was answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detection.model import FloatArray
from slotune.rehearsal.batch_queue import Step

SHOWN = (
    "p50_ms", "p95_ms", "p99_ms", "mean_ms", "qps", "error_rate", "queue_ms", "queue_depth", "batch_ms",
    "rows_per_batch", "replicas", "batch_size", "batch_timeout_ms", "busy",
)  # fmt: skip
"""The signals that are modelled; every other one stays as it was recorded."""


def shown(steps: Sequence[Step], step_s: float, edges_ms: FloatArray | None) -> dict[str, float]:
    """Signals over the steps of one rate window, oldest first; a signal without a number is absent.

    edges_ms: upper edges of the histogram that percentiles are read from (the last one inf), None: they are exact.
    """
    answered, failed = sum(s.answered for s in steps), sum(s.failed for s in steps)
    batches, rows, took_s = (sum(getattr(s, name) for s in steps) for name in ("batches", "rows", "batch_s"))
    seconds, ready = step_s * len(steps), max(1, steps[-1].ready)
    found = {
        "qps": (answered + failed) / seconds,
        "queue_depth": float(steps[-1].depth),
        "replicas": float(steps[-1].ready),
        "busy": min(1.0, took_s / seconds / ready),
    }
    if answered + failed > 0:
        found["error_rate"] = failed / (answered + failed)
    if batches > 0:
        found["batch_ms"], found["rows_per_batch"] = 1e3 * took_s / batches, rows / batches
    values, weights = _pooled(steps)
    if values.size:
        found["mean_ms"] = float(values @ weights / weights.sum())
        found["queue_ms"] = 1e3 * sum(s.wait_s for s in steps) / max(answered, 1e-9)
        for name, level in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            found[name] = quantile(values, weights, level, edges_ms)
    return found


def _pooled(steps: Sequence[Step]) -> tuple[FloatArray, FloatArray]:
    """All latencies, and how many requests each stands for."""
    some = [s for s in steps if s.latencies_ms.size]
    if not some:
        return np.empty(0), np.empty(0)
    weights = [np.full(s.latencies_ms.size, s.answered / s.latencies_ms.size) for s in some]
    return np.concatenate([s.latencies_ms for s in some]), np.concatenate(weights)


def histogram(values: FloatArray, weights: FloatArray, edges_ms: FloatArray) -> FloatArray:
    """How many requests fell into each bucket, shape (edges_ms.size,)."""
    counts = np.bincount(np.searchsorted(edges_ms, values), weights, minlength=edges_ms.size)
    return np.asarray(counts, dtype=np.float64)


def step_histogram(step: Step, edges_ms: FloatArray) -> FloatArray:
    """The buckets of one step."""
    return histogram(*_pooled([step]), edges_ms)


def quantile(values: FloatArray, weights: FloatArray, level: float, edges_ms: FloatArray | None) -> float:
    """A percentile in ms: exact, or as PromQL's histogram_quantile reads it from buckets (linear inside the bucket,
    the last finite edge beyond it)."""
    if edges_ms is None or edges_ms.size < 2:
        order = np.argsort(values)
        reached = np.cumsum(weights[order])
        place = int(np.searchsorted(reached, level * reached[-1] - 1e-9))
        return float(values[order[min(place, values.size - 1)]])
    counts = histogram(values, weights, edges_ms)
    reached = np.cumsum(counts)
    rank = level * reached[-1]
    place = int(np.searchsorted(reached, rank - 1e-9))
    if place >= edges_ms.size - 1:
        return float(edges_ms[-2])
    low = float(edges_ms[place - 1]) if place else 0.0
    before = float(reached[place - 1]) if place else 0.0
    inside = (rank - before) / max(float(counts[place]), 1e-9)
    high = float(edges_ms[place])
    return float(low + (high - low) * min(max(inside, 0.0), 1.0))
