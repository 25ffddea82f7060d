"""A service of known speed without a process: one server, a fixed service time, Poisson arrivals (M/D/1)."""

from __future__ import annotations

import numpy as np

from slotune.stress.model import OK, Raw, Seen

SERVICE_S = 0.02


def waits(rng: np.random.Generator, gaps_s: np.ndarray) -> np.ndarray:
    """Waiting times by Lindley's recursion, W = max(0, W + S - A)."""
    steps = np.cumsum(SERVICE_S - gaps_s)
    return steps - np.minimum.accumulate(np.minimum(steps, 0.0))


def seen(rate: float, length_s: float, rng: np.random.Generator, **changed: np.ndarray) -> Seen:
    gaps = rng.exponential(1 / rate, max(40, round(rate * length_s)))
    due = np.cumsum(gaps)
    latency = (waits(rng, gaps) + SERVICE_S) * 1000
    fields = {
        "due_s": due,
        "lag_ms": np.full(due.size, 0.4),
        "latency_ms": latency,
        "first_ms": np.full(due.size, np.nan),
        "status": np.full(due.size, OK, dtype=np.int8),
        "gap_ms": np.empty(0),
        "gap_of": np.empty(0, dtype=np.int64),
    }
    return Seen(**{**fields, **changed})


def raw(rate: float, length_s: float, rng: np.random.Generator, stopped: str = "", cpu: float = 0.1, **changed: np.ndarray) -> Raw:
    return Raw(rate, rate, 1000.0, 1000.0 + length_s, seen(rate, length_s, rng, **changed), stopped, cpu)


def true_knee(limit_ms: float) -> float:
    """The rate at which the P95 of a long run is the limit, by bisection on runs of the same random numbers."""
    low, high = 1.0, 1 / SERVICE_S
    for _ in range(12):
        middle = 0.5 * (low + high)
        rng = np.random.default_rng(7)
        p95 = np.quantile(seen(middle, 300_000 / middle, rng).latency_ms, 0.95)
        low, high = (middle, high) if p95 <= limit_ms else (low, middle)
    return 0.5 * (low + high)
