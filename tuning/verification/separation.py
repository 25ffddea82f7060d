"""The case that needs no statistics: what came of the change lies far below what led to it.

An overloaded queue does not scatter around a level: it grows before the change and drains after it, and a test that
assumes a level takes both ramps for autocorrelation and finds nothing certain. Looked at are the later half of the look
before (the queue has grown) and of the look after (it has drained). Where the WORST point after the change is at most
`SEPARATION` of the BEST point before it, at no smaller load, the verdict rests on no such assumption.

With no effect, 15 AR(1) points a side and 10 % noise, a gap of a factor of two between the two ranges is more than four
standard deviations wide even at phi = 0.9; `python -m benchmarks.verdicts` counts how often it happens.
"""

from __future__ import annotations

import math

import numpy as np

from detection.model import FloatArray
from tuning.model import Interval
from tuning.verification.points import Points

SEPARATION = 0.5
LEAST_BEFORE = 3


def separated(old: Points, new: Points, least_after: int, level: float) -> Interval | None:
    """The effect (ratio of medians; low and high from the extremes) where the sides are far apart, else None."""
    before, after = later_half(old, LEAST_BEFORE), later_half(new, least_after)
    if before.size < LEAST_BEFORE or after.size < least_after or new.censored:
        return None
    worst_after, best_before = float(after.max()), float(before.min())
    if worst_after - best_before > math.log(SEPARATION):
        return None
    return Interval(
        value=math.exp(float(np.median(after) - np.median(before))),
        low=math.exp(float(after.min() - before.max())),
        high=math.exp(worst_after - best_before),
        level=level,
    )


def later_half(side: Points, least: int) -> FloatArray:
    """The known points of the later half of a look, `least` of them where there are so many; shape (k,)."""
    points = side.side.points[np.isfinite(side.side.points)]
    return points[-max(least, points.size // 2) :]
