"""From evidence to points: log P95 per step, from the series or, better, from the histogram's own buckets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.model import BucketWindow, FloatArray, MetricWindow
from detection.windows import ceiling_ms
from tuning.ports import Evidence
from tuning.verification.autocorrelation import Side
from tuning.verification.settings import VerificationSettings

P = 0.95
_EDGE = 1e-9
"""How close, as a logarithm, to the last edge is at it."""
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """One side's points and their times. source: "series" or "buckets".

    top_ms: the histogram's last finite edge; None where there is none. A point there is censored: its P95 lies there or
    anywhere beyond.
    """

    side: Side
    times_s: FloatArray
    source: str
    top_ms: float | None = None

    @property
    def n(self) -> int:
        return self.side.finite

    @property
    def at_top(self) -> BoolArray:
        """Which points are censored; shape (n,)."""
        if self.top_ms is None or not self.top_ms > 0:
            return np.zeros(self.side.points.shape, dtype=np.bool_)
        with np.errstate(invalid="ignore"):
            return np.asarray(self.side.points >= math.log(self.top_ms) - _EDGE, dtype=np.bool_)

    @property
    def censored(self) -> bool:
        return bool(self.at_top.any())

    @property
    def cut(self) -> float:
        """The share of the points that are censored; 0 without points."""
        return float(self.at_top.sum()) / self.n if self.n else 0.0

    def under(self, slo_ms: float) -> BoolArray:
        """Which of the known points are at an objective or below it; shape (known points,). A censored one is never."""
        known = np.isfinite(self.side.points)
        return np.asarray((self.side.points[known] <= math.log(slo_ms)) & ~self.at_top[known], dtype=np.bool_)


def quantile_of(upper_ms: FloatArray, counts: FloatArray, p: float) -> float:
    """The p quantile by linear interpolation inside its bucket, as Prometheus does; NaN without counts.

    In the last bucket (upper edge inf) the answer is its lower edge: "at least".
    """
    total = counts.sum()
    if not total > 0:
        return float("nan")
    cumulative = np.cumsum(counts)
    rank = p * total
    bucket = min(int(np.searchsorted(cumulative, rank, side="left")), upper_ms.size - 1)
    lower = float(upper_ms[bucket - 1]) if bucket else 0.0
    if not math.isfinite(upper_ms[bucket]):
        return lower
    inside = (rank - (cumulative[bucket] - counts[bucket])) / counts[bucket]
    return lower + (float(upper_ms[bucket]) - lower) * float(inside)


def quantile_variance(upper_ms: FloatArray, counts: FloatArray, p: float) -> float:
    """Sampling variance of the LOG of the quantile: binomial error of its rank, carried through the histogram."""
    total = counts.sum()
    if not total > 0:
        return math.inf
    error = math.sqrt(p * (1 - p) / total)
    low = quantile_of(upper_ms, counts, max(0.0, p - error))
    high = quantile_of(upper_ms, counts, min(1.0, p + error))
    return (0.5 * math.log(max(high, 1e-9) / max(low, 1e-9))) ** 2


def from_buckets(window: BucketWindow, per_point: float) -> Points | None:
    """Steps joined until each point rests on `per_point` requests, equally long; None with fewer than 3 points."""
    counts = window.counts
    known = np.isfinite(counts).all(axis=1)
    per_step = counts[known].sum(axis=1)
    if not per_step.size or not per_step.mean() > 0:
        return None
    join = max(1, math.ceil(per_point / float(per_step.mean())))
    groups = counts.shape[0] // join
    if groups < 3:
        return None
    # The newest steps are the ones that matter: leave out what is left over at the start.
    start = counts.shape[0] - groups * join
    joined = counts[start:].reshape(groups, join, -1).sum(axis=1)
    times = window.span.times()[start + join - 1 :: join]
    values = np.full(groups, np.nan)
    variances: list[float] = []
    for row, group in enumerate(joined):
        if not np.isfinite(group).all() or group.sum() < 0.5 * per_point:
            continue
        value = quantile_of(window.upper_ms, group, P)
        if value > 0:
            values[row] = math.log(value)
            variances.append(quantile_variance(window.upper_ms, group, P))
    if len(variances) < 3:
        return None
    return Points(Side(values, float(np.median(variances))), times, "buckets", last_edge_ms(window))


def last_edge_ms(window: BucketWindow | None) -> float | None:
    """The last finite edge of a histogram; None where it has none, or where there is no histogram."""
    finite = window.upper_ms[np.isfinite(window.upper_ms)] if window is not None else np.empty(0)
    return float(finite[-1]) if finite.size else None


def from_series(window: MetricWindow, buckets: BucketWindow | None = None, signal: str = "p95_ms") -> Points:
    """log of the P95 `signal`; zero, negative and missing are all "no point" (no latency is ever 0).

    buckets: the histogram beside it, which says where it ends where the window itself does not.
    """
    values = np.asarray(window.values.get(signal, np.empty(0)), dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(np.isfinite(values) & (values > 0), np.log(values), np.nan)
    times = window.span.times()[: logs.size]
    return Points(Side(logs), times, "series", ceiling_ms(window, signal) or last_edge_ms(buckets))


def both_sides(before: Evidence, after: Evidence, settings: VerificationSettings) -> tuple[Points, Points]:
    """The points of both sides, always from the same source: one from buckets and one from a series compare nothing.

    The series where its own history tells its autocorrelation, else the buckets, else the series.
    """
    first, second = (from_series(side.window, side.buckets, side.signal) for side in (before, after))
    series = first, second
    if all(side.n >= settings.min_points for side in series) and history_of(before) is not None:
        return series
    if before.buckets is not None and after.buckets is not None:
        old = from_buckets(before.buckets, settings.min_requests_per_point)
        new = from_buckets(after.buckets, settings.min_requests_per_point)
        if old is not None and new is not None and min(old.n, new.n) >= settings.min_points:
            return old, new
    return series


def history_of(evidence: Evidence) -> FloatArray | None:
    """log P95 of the history up to the look before the change, thinned to that look's step, shape (n,).

    None with fewer than 30 points, or with a coarser step: autocorrelation belongs to a step, and a rolling window of
    60 s that looks independent at 60 s is anything but at 15 s.
    """
    history, span = evidence.history, evidence.window.span
    if history is None:
        return None
    ratio = span.step_s / history.span.step_s
    every = round(ratio)
    if every < 1 or abs(ratio - every) > 0.01 * every:
        return None
    logs = from_series(history, signal=evidence.signal)
    kept: FloatArray = logs.side.points[logs.times_s <= span.end_s][::-1][::every][::-1]
    return kept if np.isfinite(kept).sum() >= 30 else None
