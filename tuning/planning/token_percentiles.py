"""Percentiles of simulated times of a language model: as they are, and as the server's histogram will read them.

A histogram knows how many values lie in each bucket; `histogram_quantile` of PromQL draws a straight line between the
bucket's edges. Where next to no value lies between two levels (tokens that came alone, and those that waited for
somebody's prompt), the percentile turns from one to the other with the share of the second: that share is known to the
luck of a look only, so both are told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from detection.model import FloatArray
from tuning.planning import thresholds as th
from tuning.planning.latency_model import normal_quantiles

LUCK = tuple(float(z) for z in normal_quantiles(np.array([1 / 6, 0.5, 5 / 6])))
"""Levels of a look's luck at which a percentile is read: the middles of three equal parts."""
_JITTER = np.exp(th.STEP_JITTER * normal_quantiles((np.arange(7) + 0.5) / 7))


def scattered(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(values, their share at or below, ascending) with the scatter of single iterations around what they take."""
    spread = np.outer(_JITTER, values).ravel()
    order = np.argsort(spread)
    below = np.cumsum(np.tile(weights, _JITTER.size)[order])
    return spread[order], np.asarray(below / below[-1])


def at(values: FloatArray, below: FloatArray, level: float) -> float:
    """The quantile `level` of values with their cumulative share."""
    return float(values[min(int(np.searchsorted(below, level)), values.size - 1)])


def exported(values: FloatArray, below: FloatArray, edges: Sequence[float], level: float) -> float:
    """The same as PromQL's histogram_quantile reads it from buckets that end at `edges`; beyond the last: that one."""
    shares = [0.0, *(float(below[k - 1]) if k else 0.0 for k in np.searchsorted(values, edges, side="right"))]
    found = int(np.searchsorted(shares, level))
    if found >= len(shares):
        return float(edges[-1])
    low = edges[found - 2] if found > 1 else 0.0
    return low + (edges[found - 1] - low) * (level - shares[found - 1]) / (shares[found] - shares[found - 1])


def levels(tail: float, count: float) -> tuple[float, ...]:
    """Where a look of `count` independent values reads the percentile with `tail` beyond it: Poisson's luck of how many
    lie there, at `LUCK`."""
    return tuple(1 - min(0.5, tail * math.exp(z / math.sqrt(max(tail * count, 1.0)))) for z in LUCK)


def p95(values: FloatArray) -> float:
    """The 95th percentile between the two nearest of sorted values (as numpy's default, without its checks)."""
    if not values.size:
        return 1e9
    ordered, place = np.sort(values), 0.95 * (values.size - 1)
    low = int(place)
    high = min(low + 1, values.size - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def noise(values: FloatArray, wanted: float) -> float:
    """Log scatter of the 95th percentile of one look with `wanted` requests, from stretches of the run."""
    if values.size < 24:
        return 0.5
    p95s = np.log([p95(piece) for piece in np.array_split(values, 4)])
    return float(np.clip(p95s.std() * math.sqrt(values.size / 4 / max(wanted, 1.0)), 0.02, 0.6))
