"""The case that needs no statistics: every point after the change lies far below every point before it.

An overloaded queue does not scatter around a level, it grows; a test that assumes a level takes the ramp for
autocorrelation and finds nothing certain. Where the WORST point after the change is at most `SEPARATION` of the BEST
point before it, at no smaller load, the verdict does not rest on any such assumption.

With no effect, 15 AR(1) points a side and 10 % noise, a gap of a factor of two between the two ranges is more than four
standard deviations wide even at phi = 0.9; `python -m benchmarks.verdicts` counts how often it happens.
"""

from __future__ import annotations

import math

import numpy as np

from tuning.model import Interval
from tuning.verification.points import Points

SEPARATION = 0.5
LEAST_BEFORE = 3


def separated(old: Points, new: Points, least_after: int, level: float) -> Interval | None:
    """The effect (ratio of medians; low and high from the extremes) where the sides are far apart, else None."""
    before = old.side.points[np.isfinite(old.side.points)]
    after = new.side.points[np.isfinite(new.side.points)]
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
