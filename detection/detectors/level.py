"""Distance from the median in robust standard deviations."""

from __future__ import annotations

from detection.methods import Band, View
from detection.panel import Floats


class Level(Band):
    """Like sigma, but neither the centre nor the width moves with a few outliers in the history."""

    name = "level"

    def band(self, view: View) -> tuple[Floats, Floats]:
        """Median and four robust standard deviations."""
        return view.column("q50"), 4 * view.column("level_scale")
