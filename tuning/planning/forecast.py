"""What the load will be when a change takes effect: constant, linear trend, or the same time last week.

Pure arithmetic on the window; the interval is 90 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, MetricWindow
from tuning.model import Interval
from tuning.planning import thresholds as th

WEEK_S = 7 * 86_400.0


@dataclass(frozen=True)
class Forecast:
    """The expected rate, how it was found, and (for a trend) by how much it grows per second, for how long it was seen
    to, and how far ahead `qps` is."""

    qps: Interval
    method: str
    slope: float = 0.0
    seen_s: float = 0.0
    horizon_s: float = 0.0

    def after(self, delay_s: float) -> Interval:
        """The rate `delay_s` after the horizon: what takes effect late meets a load that has grown on meanwhile.

        The low end is the trend that stops now.
        """
        if self.slope <= 0 or delay_s <= 0:
            return self.qps

        def grown(lasts: float, further: float) -> float:
            end_s, most_s = further * self.horizon_s, lasts * self.seen_s
            return self.slope * (min(further * (self.horizon_s + delay_s), most_s) - min(end_s, most_s))

        value = self.qps.value + grown(1.0, 1.0)
        high = max(value, self.qps.high + grown(th.TREND_LASTS, th.TREND_FURTHER))
        return self.qps.model_copy(update={"value": value, "high": high})


def forecast(times: FloatArray, qps: FloatArray, horizon_s: float, history: MetricWindow | None = None) -> Forecast:
    """The rate `horizon_s` after the last time. times, qps: shape (k,), finite, k >= 1, of the present regime only.

    A linear trend (least squares) counts only when it is 4 standard errors from zero AND moves the rate by 10 %
    over the points seen: a step that has just happened is no trend. It is followed for at most as long as it was
    seen (its upper end for twice as long), because nothing grows for ever. Where there is none, the growth of the same
    time last week is taken, if history covers it and was within 20 % of the present rate.
    """
    level = float(np.median(qps[-max(3, qps.size // 3) :])) if qps.size else 0.0
    noise = _noise(qps, level)
    if qps.size >= th.TREND_POINTS:
        slope, error, end = line(times, qps)
        seen = float(times[-1] - times[0])
        if abs(slope) > th.TREND_ERRORS * error and abs(slope) * seen > th.TREND_MOVED * level:
            ahead, later = min(horizon_s, seen), min(th.TREND_FURTHER * horizon_s, th.TREND_LASTS * seen)
            # A fall is followed half of the way down at most: what ebbs away need not go on doing so.
            floor = th.FALL_FLOOR * max(end, float(np.mean(qps[-3:])))
            near = _interval(max(floor, end + slope * ahead), noise + th.TREND_DOUBT * abs(slope) * ahead / level)
            # The upper end looks further: a change should still do when the trend has gone on for a while.
            high = max(near.high, (end + slope * later) * math.exp(th.Z90 * noise))
            return Forecast(near.model_copy(update={"high": high}), "linear trend", slope, seen, horizon_s)
    weekly = _last_week(times, level, horizon_s, history)
    if weekly is not None:
        return Forecast(_interval(weekly, max(noise, th.WEEK_NOISE)), "same time last week")
    return Forecast(_interval(level, noise), "constant")


def trend_start(
    times: FloatArray, qps: FloatArray, windows_s: Sequence[float], rate_window_s: float
) -> float | None:
    """Since when the rate has been rising along a line, looking back over everything seen; None where it has not.

    times, qps: shape (k,), ascending, finite. windows_s: stretches that are looked at, longest first. rate_window_s:
    the window that each value is a rate over.

    A ramp breaks the SLO long after it began, so what is seen since the onset of an incident is too short to show it.
    A line has to fit better than any single step does, and to have moved the rate by a fifth; the longest of the
    stretches that do is taken, from where its level turns into the rise (a line through both would be flatter than what
    goes on). Where none does, what was level and then began to rise is looked for.
    """
    step_s = float(np.median(np.diff(times))) if times.size > 1 else math.inf
    for seconds in windows_s:
        count = max(th.TREND_POINTS, round(seconds / step_s)) if math.isfinite(step_s) else math.inf
        if times.size < count:
            continue
        t, rate = times[-int(count) :], qps[-int(count) :]
        slope, error, _ = line(t, rate)
        moved = slope * float(t[-1] - t[0])
        clear = slope > th.TREND_ERRORS * error and moved > th.RISE_MOVED * float(rate.mean())
        if clear and _squares_of_line(t, rate) < _squares_of_step(rate):
            return _bent_at(t, rate, rate_window_s)
    return _bend(times, qps, rate_window_s)


def _bent_at(times: FloatArray, rate: FloatArray, rate_window_s: float) -> float:
    """Where the rise of a stretch begins: the place of the bend by which a level and a line fit it best."""
    places = times[times <= times[-1] - th.BEND_WINDOWS * rate_window_s]
    if not places.size:
        return float(times[0])
    slopes, bent = _fits(np.maximum(0.0, times[None] - places[:, None]), rate)
    return float(places[int(np.argmin(np.where(slopes > 0, bent, np.inf)))])


def _bend(times: FloatArray, rate: FloatArray, rate_window_s: float) -> float | None:
    """Where a level turned into a rise that goes on; None where a single step explains what is seen nearly as well.

    A step shows in a rate over one window as a ramp of just that window, so a rise that is two windows old is told from
    it by their fits (least squares over every place of the bend, and of the step).
    """
    if times.size < th.TREND_POINTS or not rate_window_s > 0:
        return None
    places = times[times <= times[-1] - th.BEND_WINDOWS * rate_window_s]
    if not places.size:
        return None
    slopes, bent = _fits(np.maximum(0.0, times[None] - places[:, None]), rate)
    steps = np.clip((times[None] - times[:-1, None]) / rate_window_s, 0.0, 1.0)
    stepped = float(_fits(steps, rate)[1].min())
    best = int(np.argmin(np.where(slopes > 0, bent, np.inf)))
    start, slope = float(places[best]), float(slopes[best])
    moved = slope * (float(times[-1]) - start)
    clear = slope > 0 and moved > th.RISE_MOVED * float(rate[times >= start].mean())
    return start if clear and float(bent[best]) < th.BEND_FITS * stepped else None


def _fits(shapes: FloatArray, rate: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least squares of level + slope * shape for each row of `shapes`: (slopes, sums of squared residuals)."""
    x, y = shapes - shapes.mean(axis=1, keepdims=True), rate - rate.mean()
    slopes = (x @ y) / np.maximum((x * x).sum(axis=1), 1e-12)
    return slopes, float(y @ y) - slopes * (x @ y)


def _squares_of_line(times: FloatArray, rate: FloatArray) -> float:
    t, r = times - times.mean(), rate - rate.mean()
    return float(r @ r - (t @ r) ** 2 / (t @ t))


def _squares_of_step(rate: FloatArray) -> float:
    """Sum of squared residuals of the best single step."""
    left = np.arange(1, rate.size)
    below, total = np.cumsum(rate)[:-1], float(rate.sum())
    return float(rate @ rate - np.max(below**2 / left + (total - below) ** 2 / (rate.size - left)))


def _interval(value: float, relative: float) -> Interval:
    spread = math.exp(th.Z90 * min(relative, 1.0))
    return Interval(value=value, low=value / spread, high=value * spread)


def _noise(qps: FloatArray, level: float) -> float:
    """Relative uncertainty of the level: the scatter between neighbours, averaged a little, never below 2 %."""
    if qps.size < th.LEVEL_POINTS or level <= 0:
        return th.RATE_NOISE_UNKNOWN
    scatter = float(np.median(np.abs(np.diff(qps)))) / 0.9539
    return float(np.clip(scatter / level / math.sqrt(2), *th.RATE_NOISE))


def line(times: FloatArray, qps: FloatArray) -> tuple[float, float, float]:
    """Slope per second, its standard error (for correlated residuals), and the line's value at the last time."""
    t = times - times.mean()
    slope = float(t @ (qps - qps.mean()) / (t @ t))
    residual = qps - qps.mean() - slope * t
    phi = float(np.clip((residual[1:] @ residual[:-1]) / max(residual @ residual, 1e-12), 0.0, 0.9))
    inflate = math.sqrt((1 + phi) / (1 - phi))
    error = inflate * math.sqrt(float(residual @ residual) / max(1, qps.size - 2) / float(t @ t))
    return slope, error, float(qps.mean() + slope * t[-1])


def _last_week(times: FloatArray, level: float, horizon_s: float, history: MetricWindow | None) -> float | None:
    """The level times last week's growth from this time to the horizon; None where history does not fit."""
    values = history.values.get("qps") if history is not None else None
    if history is None or values is None or not times.size or level <= 0:
        return None
    then = history.span.times()
    known = np.isfinite(values)
    ends = (float(times[-1]) - WEEK_S, float(times[-1]) - WEEK_S + horizon_s)
    # A gap (an incident, no scrape) says nothing, and nothing is read across it.
    if not known.any() or any(float(np.min(np.abs(then[known] - end))) > history.span.step_s for end in ends):
        return None
    base, ahead = (float(np.interp(end, then[known], values[known])) for end in ends)
    if base <= 0 or abs(base / level - 1) > th.WEEK_FITS:
        return None
    return level * ahead / base
