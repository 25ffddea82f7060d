"""When a replica's memory will reach its limit: a line through what it used since it was started, with its interval.

Memory that fills once (a cache, a pool, the first requests) is no leak, so that the line has to rise in each quarter of
what is seen, at half the slope of the whole at least. Samples of memory are far from independent: the slope's
standard error is widened by the autocorrelation of what the line leaves over (first order, as for a regression with
AR(1) errors: variance times (1 + phi) / (1 - phi)); where what is left over may be a random walk (Dickey and Fuller
1979: n (phi - 1) above their 5 % value with a trend), it is the drift's of one (the steps' deviation times the root of
their number, over the time). Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, MetricWindow

MEMORY, LIMIT, UPTIME = "memory_gb", "memory_limit_gb", "uptime_s"
LEAST_POINTS = 12
LEAST_SHARE = 0.02
"""Of the limit: memory that has not grown by this much is no news, however steadily it grows."""
STEADY = 0.5
"""The slope of each quarter over that of the whole line, at least: what slows down may stop by itself, and what has
just begun would be taken for slower than it is."""
FRESH_S = 60.0
"""A replica whose newest sample is older, and older than three steps, is not there any more."""
FELL = 0.1
"""A share of its memory that a process hardly gives back in one step: it is another one, where none tells its age."""
NEWS = 0.5
"""The part of a rise that has to lie above all that was seen before it: memory that is collected now and then rises as
steadily in between."""
AT_LIMIT = 0.9
"""Share of the limit from which an earlier peak was the end of a process, and not its habit."""
GROWS_T = 3.0
"""Standard errors of the slope from which memory grows at all: every sweep looks, and memory wanders."""
UNIT_ROOT = -21.8
"""Dickey and Fuller's 5 % value of n (phi - 1) with a trend: above it a random walk is not ruled out."""
SURE_T = 1.645
"""Standard errors of the interval (90 %)."""


@dataclass(frozen=True)
class Leak:
    """level, limit: in GB, per_hour: GB. left_s, soonest_s, latest_s: until the limit, as the line and its interval
    say. since_s: from when on it is seen."""

    level: float
    limit: float
    per_hour: float
    left_s: float
    soonest_s: float
    latest_s: float
    since_s: float

    def text(self) -> str:
        """For people."""
        return (
            f"memory {self.level:.3g} GB grows by {self.per_hour:.2g} GB an hour and reaches its limit of "
            f"{self.limit:.3g} GB in {lasting(self.left_s)} ({lasting(self.soonest_s)} to {lasting(self.latest_s)})"
        )


def lasting(seconds: float) -> str:
    """A stretch of time for people: "170 s", "25 min", "3.5 h", "4 days"."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def leak_of(window: MetricWindow, at_s: float, warm_up_s: float, for_s: float) -> Leak | None:
    """The leak of one replica at `at_s`; None where its memory does not surely grow towards a known limit.

    It may have begun at any time: of all that is seen, its last half, quarter and so on, the longest stretch in which
    it grows counts, and none shorter than for_s.
    """
    values, limits = window.values.get(MEMORY), window.values.get(LIMIT)
    limit = window.last(LIMIT) if limits is not None else None
    if values is None or not limit:
        return None
    times = window.span.times()
    known = np.isfinite(values) & (times <= at_s)
    if not known.any() or at_s - times[known][-1] > max(FRESH_S, 3 * window.span.step_s):
        return None  # a replica that has gone leaks no more
    began_s = _began_s(window, times[known], values[known])
    mine = times[known] >= (began_s + warm_up_s if began_s is not None else times[0])
    t, y = times[known][mine], values[known][mine]
    peaks = np.maximum.accumulate(y if window.last(UPTIME) is not None else values[known])
    before = np.concatenate([[-np.inf], peaks])[-t.size - 1 : -1]
    while t.size >= LEAST_POINTS and t[-1] - t[0] >= for_s:
        found = _grown(t, y, limit, float(before[-t.size]))
        if found is not None:
            return found
        t, y = t[t.size // 2 :], y[y.size // 2 :]
    return None


def _grown(t: FloatArray, y: FloatArray, limit: float, peak: float) -> Leak | None:
    """The stretch as a leak. peak: the highest before it; what was there before, below the limit, comes and goes."""
    slope, error = _line(t, y)
    rise = slope * float(t[-1] - t[0])
    if peak < AT_LIMIT * limit and float(y[-1]) - peak < NEWS * rise:
        return None
    quarters = [_slope(a, b) for a, b in zip(np.array_split(t, 4), np.array_split(y, 4), strict=True)]
    grows = slope > GROWS_T * error and min(quarters) >= STEADY * slope
    if not grows or rise < LEAST_SHARE * limit:
        return None
    middle, since_middle_s = float(y.mean()), float(t[-1] - t.mean())

    def left_s(slope: float) -> float:
        """From the end on: lines of all slopes turn around the middle of what was seen."""
        return max((limit - middle) / slope - since_middle_s, 0.0)

    return Leak(
        level=middle + slope * since_middle_s,
        limit=limit,
        per_hour=slope * 3600,
        left_s=left_s(slope),
        soonest_s=left_s(slope + SURE_T * error),
        latest_s=left_s(slope - SURE_T * error),
        since_s=float(t[0]),
    )


def _began_s(window: MetricWindow, t: FloatArray, y: FloatArray) -> float | None:
    """When the process that runs now was started: as it says, or where its memory fell; None: before what is seen."""
    uptime = window.values.get(UPTIME)
    if uptime is not None and np.isfinite(uptime).any():
        last = int(np.flatnonzero(np.isfinite(uptime))[-1])
        return float(window.span.times()[last] - uptime[last])
    fell = np.flatnonzero(y[1:] < (1 - FELL) * y[:-1])
    return float(t[fell[-1] + 1]) if fell.size else None


def _slope(t: FloatArray, y: FloatArray) -> float:
    if t.size < 2:
        return 0.0
    centred = t - t.mean()
    return float((centred @ (y - y.mean())) / (centred @ centred))


def _line(t: FloatArray, y: FloatArray) -> tuple[float, float]:
    """(slope, its standard error) of the least squares line."""
    slope = _slope(t, y)
    rest = y - y.mean() - slope * (t - t.mean())
    spread = float(rest @ rest)
    steps = np.diff(y) - slope * np.diff(t)
    wanders = float(steps.std()) * np.sqrt(steps.size) / float(t[-1] - t[0])
    if spread <= 0:
        return slope, wanders
    phi = float(np.clip((rest[1:] @ rest[:-1]) / spread, 0.0, 0.98))
    if t.size * (phi - 1) > UNIT_ROOT:
        return slope, wanders
    centred = t - t.mean()
    variance = spread / max(t.size - 2, 1) / float(centred @ centred)
    return slope, float(np.sqrt(variance * (1 + phi) / (1 - phi)))
