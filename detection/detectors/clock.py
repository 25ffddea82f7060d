"""The same clock time over the past days: median and spread per quarter of an hour."""

from __future__ import annotations

from detection.methods import Band, View
from detection.panel import Floats


class Clock(Band):
    """Takes the daily curve out; where there are fewer than three days it is the level."""

    name = "clock"

    def band(self, view: View) -> tuple[Floats, Floats]:
        """The clock-time median and four of its robust standard deviations."""
        center, scale = view.clock
        return center, 4 * scale
