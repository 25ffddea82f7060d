"""How far a service time or a share moved between two versions, with its interval and how sure that is. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from detection.model import FloatArray, MetricWindow
from tuning.model import Interval
from tuning.planning import latency_model as lm
from tuning.planning import thresholds as th
from tuning.planning.latency_model import LatencyModel
from tuning.planning.release_sides import Sides, median
from tuning.verification.autocorrelation import Level, Side
from tuning.verification.autocorrelation import shift as level_shift
from tuning.verification.settings import VerificationSettings

NOISE = VerificationSettings()
"""The noise that verdicts assume at least, and how much autocorrelation they expect."""


def line(side: MetricWindow, rows: str, time: str, rate_window_s: float) -> LatencyModel:
    """The line of one side; rates over one window are no independent measurements, so one a window counts. Where sizes
    hardly vary their noise would pass for a line without a slope: then they tell a time, and no slope."""
    times, sizes, lengths = side.span.times(), side.values[rows], side.values[time]
    good = np.flatnonzero(np.isfinite(sizes) & np.isfinite(lengths) & (lengths > 0) & (sizes > 0))
    stride = max(1, round(rate_window_s / side.span.step_s))
    kept = good[::-1][::stride][::-1] if good.size >= stride * th.LEVEL_POINTS else good
    if good.size:
        low, high = np.quantile(sizes[good], (th.RELEASE_QUANTILES[0], th.RELEASE_QUANTILES[-1]))
        if high < th.RELEASE_NARROW * low:
            sizes = np.full(sizes.shape, float(np.median(sizes[good])))
    return lm.learn(LatencyModel(), [(float(times[i]), max(float(sizes[i]), 1e-3), float(lengths[i])) for i in kept])


def with_slope(line: LatencyModel, learned: LatencyModel) -> LatencyModel:
    """The line, with the slope that was learned over days where this hour's sizes hardly varied: the same service, as
    slow as it is this hour."""
    if not (line.known and learned.known) or learned.rows_max <= line.rows_max:
        return line
    at = line.rows_max
    return learned.scaled(line.predict(at)[0] / learned.predict(at)[0])


def doubt(line: LatencyModel, at: float) -> float:
    """Relative variance of a line at a size."""
    mean, sd = line.predict(at)
    return (sd / mean) ** 2


def log_ratio(side: MetricWindow, line: LatencyModel, rows: str, time: str) -> FloatArray:
    """Logarithm of what was measured over what the line says at the same size, NaN for gaps."""
    sizes, lengths = side.values[rows], side.values[time]
    expected = np.array([line.predict(float(n))[0] if np.isfinite(n) and n > 0 else np.nan for n in sizes])
    return logs(lengths / expected)


def logs(values: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.isfinite(values) & (values > 0), np.log(values), np.nan), dtype=np.float64)


def shift(before: FloatArray, after: FloatArray) -> Level | None:
    """How far the level of logarithms moved; None where a side has too few points."""
    sides = Side(before), Side(after)
    if min(side.finite for side in sides) < th.LEVEL_POINTS:
        return None
    return level_shift(*sides, history=None, prior=NOISE.phi_prior, noise_floor=NOISE.noise_floor)[0]


def slower(level: Level) -> bool:
    return level.below(math.log(th.RELEASE_SLOWER)) <= 1 - th.RELEASE_SURE


def interval(level: Level) -> Interval:
    low, high = (math.exp(end) for end in level.interval(NOISE.interval_level))
    return Interval(value=math.exp(level.mean), low=low, high=high, level=NOISE.interval_level)


def times(slower: Interval) -> str:
    return f"{slower.value:.1f} times as long ({slower.low:.1f} to {slower.high:.1f})"


@dataclass(frozen=True)
class Rise:
    """Two shares of requests, the standard error of their difference, and the deviation that the old one has by chance
    over the requests of one rate window."""

    old: float
    new: float
    error: float
    counted: float = 0.0

    def beyond(self, least: float) -> bool:
        """Whether the difference is surely beyond `least` (above it, or below where that is negative)."""
        over = (self.new - self.old - least) * (1 if least >= 0 else -1)
        return over > _sure_errors() * self.error

    def text(self) -> str:
        half = special.ndtri(0.5 + NOISE.interval_level / 2) * self.error
        rise = self.new - self.old
        return f"{100 * rise:+.1f}, {100 * (rise - half):.1f} to {100 * (rise + half):.1f},"


def _sure_errors() -> float:
    """Standard errors that are as sure as a blame has to be."""
    return float(special.ndtri(th.RELEASE_SURE))


def share_rise(sides: Sides, signal: str) -> Rise | None:
    """Shares are counted: their noise is that of so many requests, and more where they scattered more than that.

    Points that overlap (a rate's window is longer than a step) are fewer than they look.
    """
    shares, variance, by_chance = [], 0.0, []
    for side in (sides.before, sides.after):
        values, rate = side.values[signal], median(side.values.get("qps"))
        known = values[np.isfinite(values)]
        if known.size < th.LEVEL_POINTS or not rate:
            return None
        share = float(known.mean())
        shares.append(share)
        seconds = known.size * side.span.step_s + sides.rate_window_s
        counted = max(share, 1 / (rate * seconds)) * (1 - min(share, 1.0)) / (rate * seconds)
        apart = max(1.0, known.size * side.span.step_s / sides.rate_window_s)
        scattered = float(known.var(ddof=1)) / apart if known.size >= th.RELEASE_POINTS else 0.0
        in_window = max(1.0, rate * sides.rate_window_s)
        by_chance.append(math.sqrt(max(share * (1 - share), 1 / in_window) / in_window))
        variance += max(counted, scattered, th.SHARE_NOISE**2 / apart)
    return Rise(shares[0], shares[1], math.sqrt(variance), by_chance[0])
