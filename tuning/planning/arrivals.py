"""How many requests come, which under saturation is more than what is answered, and how unevenly. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from detection.model import FloatArray, MetricWindow
from tuning.model import Interval, Observation
from tuning.planning import thresholds as th
from tuning.planning.forecast import Forecast, forecast, trend_start
from tuning.planning.reading import Reading, first, settled, tail
from tuning.planning.settings import PlanningSettings


def arrivals(observation: Observation, onset: float, now: Reading, settings: PlanningSettings) -> Forecast | None:
    """The rate of arrivals at the time when a change would be looked at.

    Answered requests are not arrivals while a queue grows: the growth of the queue is added (queue_depth), or, where
    only the waiting time w is exported, arrivals = answered / (1 - dw/dt), the fluid relation of an overloaded queue.
    """
    window, rate_window_s = observation.window, settings.rate_window_s
    since = settled(window, onset, settings)
    times, asked = tail(window, "qps", -math.inf)
    if not (times >= since - 1e-9).any():
        return None
    counted = _depths(window)[1].size >= th.LEVEL_POINTS
    if now.busy is None or now.busy > th.MAY_QUEUE or counted:
        # A server that is full for a part of each window only (bursts, a neighbour) looks busy for that part on
        # average, so a queue that is counted is asked whatever the busy share. A rise is looked for in what is asked
        # for: what a full server answers stands still while the load grows.
        saturated = (now.busy or 0.0) > th.SATURATED
        asked = np.maximum(asked + queue_growth(window, times, asked, since, rate_window_s, saturated), 0.0)
    start = trend_start(times, asked, [k * rate_window_s for k in th.TREND_WINDOWS], rate_window_s)
    part = times >= (since if start is None else min(start, since)) - 1e-9
    horizon_s = settings.verify_window_s + 2 * rate_window_s
    return forecast(times[part], asked[part], horizon_s, observation.history)


def queue_growth(
    window: MetricWindow, times: FloatArray, qps: FloatArray, since: float, rate_window_s: float, saturated: bool
) -> FloatArray:
    """Requests per second that join the queue (or leave it: below 0) without being answered, at each of `times`.

    Over the same window as the rate, arrivals = answered + growth exactly. A saturated server answers at a constant
    rate, so there a shorter window is as exact and shows sooner that a burst is over.
    """
    depth_t, depth = _depths(window)
    if depth.size >= th.LEVEL_POINTS:
        span = max(2 * window.span.step_s, rate_window_s * th.SATURATED_WINDOW) if saturated else rate_window_s
        before = np.interp(times - span, depth_t, depth)
        return np.asarray((np.interp(times, depth_t, depth) - before) / span, dtype=np.float64)
    wait_t, wait = tail(window, "queue_ms", since)
    if wait.size < th.LEVEL_POINTS:
        return np.zeros_like(qps)
    slope = float(np.clip(np.polyfit(wait_t - wait_t[0], wait / 1e3, 1)[0], 0.0, th.WAIT_GROWTH_MAX))
    if slope * (wait_t[-1] - wait_t[0]) < th.WAIT_RISE * float(wait.max()) / 1e3:
        return np.zeros_like(qps)
    return np.where(times >= since - 1e-9, qps * slope / (1 - slope), 0.0)


def _depths(window: MetricWindow) -> tuple[FloatArray, FloatArray]:
    """(times, counts) of what waits, all that was seen."""
    return tail(window, "queue_depth", -math.inf)


def draining_arrivals(window: MetricWindow, capacity: float) -> Interval | None:
    """The rate of arrivals while a queue falls: capacity less the fall, by the newest counts; None while it does not
    fall by more than three standard errors of two Poisson streams.

    After a burst this is known long before the mean over a rate window is.
    """
    points = max(th.LEVEL_POINTS, round(th.DRAIN_SEEN_S / window.span.step_s) + 1)
    depth = window.values.get("queue_depth", np.empty(0))[-points:]
    if depth.size < points or not (np.isfinite(depth).all() and (np.diff(depth) < 0).all()):
        return None
    seconds = (points - 1) * window.span.step_s
    fall, error = float(depth[0] - depth[-1]) / seconds, math.sqrt(2 * capacity / seconds)
    if fall <= th.DRAIN_ERRORS * error:
        return None
    rate = max(capacity - fall, th.DRAIN_RATE_MIN * capacity)
    low = max(rate - th.Z90 * error, th.DRAIN_RATE_MIN / 2 * capacity)
    return Interval(value=rate, low=low, high=rate + th.Z90 * error)


def burstiness(observation: Observation, now: Reading) -> float:
    """Squared variation of the gaps now; where not exported, that of the history, else 1 (independent users)."""
    before = observation.history.last("arrival_cv2") if observation.history else None
    return float(np.clip(first(now.arrival_cv2, before, 1.0) or 1.0, *th.CV2_RANGE))


def counted_burstiness(
    window: MetricWindow, until_s: float, signal: str, rate_window_s: float
) -> tuple[float, float]:
    """(squared variation of the gaps between arrivals, its log scatter) as the counts of rate windows until then tell.

    Counts of windows much longer than a gap scatter by cv2 times their mean (index of dispersion of a renewal process:
    Cox and Lewis, "The statistical analysis of series of events", 1966, ch. 4). Second differences of windows that do
    not overlap take waves and trends out. A prior of Poisson arrivals counts as `DISPERSION_PRIOR` degrees of freedom.
    until_s: an end before the trouble, for a rate that steps up and down is another thing than the luck of gaps.
    """
    values = window.values.get(signal, np.empty(0))
    stride = max(1, round(rate_window_s / window.span.step_s))
    seen = values[window.span.times() < until_s][::-1][::stride] * rate_window_s if values.size else values
    apart, middle = seen[2:] - 2 * seen[1:-1] + seen[:-2], (seen[2:] + seen[1:-1] + seen[:-2]) / 3
    known = np.isfinite(apart)
    counts = float(middle[known].sum())
    if counts <= 0:
        return 1.0, 0.0
    # Neighbouring second differences share two of their three counts.
    freedom = float(known.sum()) / 2
    found, whole = float((apart[known] ** 2).sum()) / 6 / counts, th.DISPERSION_PRIOR + freedom
    level = (th.DISPERSION_PRIOR + freedom * found) / whole
    return float(np.clip(level, *th.CV2_RANGE)), math.sqrt(2 / whole)


def counted(rate: Forecast, cv2: float, seconds: float) -> Forecast:
    """The same with the luck of its count: as many as came in `seconds` scatter by the root of cv2 times their number.

    Rates over windows that overlap are alike whatever they are wrong by, so their own scatter does not tell.
    """
    if not (rate.qps.value > 0 and seconds > 0):
        return rate
    value = rate.qps.value
    luck = math.sqrt(cv2 / (value * seconds))
    below = math.hypot(math.log(value / max(min(rate.qps.low, value), 1e-9)), th.Z90 * luck)
    above = math.hypot(math.log(max(rate.qps.high, value) / value), th.Z90 * luck)
    low, high = value * math.exp(-below), value * math.exp(above)
    return replace(rate, qps=rate.qps.model_copy(update={"low": low, "high": high}))


def backlog(now: Reading, window: MetricWindow, settings: PlanningSettings) -> float:
    """Requests waiting: counted where exported (the newest count: a growing queue has no level), else by Little's law
    from the mean wait."""
    newest = window.last("queue_depth", settings.rate_window_s)
    if newest is not None or now.queue_depth is not None:
        return max(0.0, first(newest, now.queue_depth) or 0.0)
    return max(0.0, (now.queue_ms or 0.0) / 1e3 * (now.qps or 0.0))
