"""Percentiles beyond a histogram's last bucket: what a window can still say about a limit.

A histogram with the bounds 0.1, 0.5 and 1 s shows a P95 of exactly 1 s for every latency beyond it. Such a sample is
censored: "at least 1 s". Against a limit below the last bound that is enough. Against a limit above it nothing is known
from the percentile alone; the mean, which comes from sums and has no bounds, is then the only witness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow

PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_AT = 1.0 - 1e-9


def ceiling_ms(window: MetricWindow, signal: str) -> float | None:
    """The largest value that a signal can show; None where it has no such limit."""
    if signal in PERCENTILES and window.bounds_ms and window.percentile_source == "histogram":
        return window.bounds_ms[-1]
    return None


def censored(window: MetricWindow, signal: str) -> NDArray[np.bool_]:
    """Where a signal is only known to be at its ceiling or beyond; shape (points,)."""
    values, top = window.values[signal], ceiling_ms(window, signal)
    if top is None:
        return np.zeros(values.shape, dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        return np.asarray(values >= top * _AT, dtype=np.bool_)


def against(window: MetricWindow, signal: str, limit: float) -> FloatArray:
    """A signal as it may be held against a limit, shape (points,); NaN where nothing can be said.

    A censored sample counts as just beyond its ceiling where the limit lies within the histogram, as the mean where
    the limit lies beyond it and the mean exceeds the limit, and as unknown otherwise: never as healthy.
    """
    values = window.values[signal]
    at_top = censored(window, signal)
    if not at_top.any():
        return values
    top = ceiling_ms(window, signal) or 0.0
    if limit <= top * (1 + 1e-9):
        return np.where(at_top, np.maximum(values, top * (1 + 1e-6)), values)
    mean = window.values.get("mean_ms")
    if mean is None:
        return np.where(at_top, np.nan, values)
    with np.errstate(invalid="ignore"):
        return np.where(at_top, np.where(mean > limit, mean, np.nan), values)


def last_shown(window: MetricWindow, signal: str) -> str:
    """The newest number of a signal for people: "12.3 ms", or "at least 10000 ms" where it is censored."""
    value, top = window.last(signal), ceiling_ms(window, signal)
    if value is None:
        return "unknown"
    return f"at least {max(value, top):.0f} ms" if top is not None and value >= top * _AT else f"{value:.1f} ms"
