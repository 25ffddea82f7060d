"""Has the queue that stood at the change drained? Pure: how long to let a change settle, from what is measured then.

The planner's settle time is estimated before the change. While a change is being made (an INT8 build takes minutes) an
overloaded queue goes on growing, and P95 shows the backlog until it is gone, however good the new setting is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray

LEAST_POINTS = 6
PEAK_SHARE = 0.05
FALL = 0.02
"""Share by which the queue must fall within the later half of the points to count as draining, noise left aside."""


@dataclass(frozen=True)
class Settled:
    """settle_s: seconds after the change from which P95 shows the new setting. reason: why it is longer, else ""."""

    settle_s: float
    reason: str = ""


def settled(
    times_s: FloatArray,
    queue: FloatArray,
    *,
    settle_s: float,
    rate_window_s: float,
    floor: float,
    bound_s: float,
) -> Settled:
    """When the queue has drained, plus the rate window behind P95; never less than `settle_s`, never over `bound_s`.

    times_s: seconds since the change, ascending. queue: waiting requests at those times, NaN where unknown. floor: a
    queue of this length is none. A queue that has not drained yet is extrapolated along its least-squares line through
    the later half of the points; one that does not fall there is no reason to wait: the verdict may see it.
    """
    known = np.isfinite(queue) & (times_s >= 0)
    times, waiting = times_s[known], queue[known]
    if times.size < LEAST_POINTS or settle_s >= bound_s:
        return Settled(settle_s)
    none = max(floor, PEAK_SHARE * float(waiting.max()))
    over = np.flatnonzero(waiting > none)
    if not over.size:
        return Settled(settle_s)
    if over[-1] + 1 < times.size:
        drained_s = float(times[over[-1] + 1])
    else:
        left_s = _left_s(times, waiting, none)
        if left_s is None:
            return Settled(settle_s)
        drained_s = float(times[-1]) + left_s
    needed_s = min(bound_s, drained_s + rate_window_s)
    if needed_s <= settle_s:
        return Settled(settle_s)
    peak = float(waiting.max())
    return Settled(needed_s, f"{peak:.0f} requests waited; drained {drained_s:.0f} s after the change")


def _left_s(times: FloatArray, waiting: FloatArray, none: float) -> float | None:
    """Seconds from the last point until the queue is `none`; None where it is not falling."""
    t, q = times[times.size // 2 :], waiting[times.size // 2 :]
    slope, level = np.polyfit(t - t[-1], q, 1)
    fall = -float(slope) * float(t[-1] - t[0])
    noise = float(np.std(q - level - slope * (t - t[-1])))
    if fall < max(FALL * float(q[0]), 2 * noise):
        return None
    return max(0.0, (float(level) - none) / -float(slope))
