"""Mean +- 3 standard deviations of the history."""

from __future__ import annotations

from detection.methods import Band, View
from detection.panel import Floats


class Sigma(Band):
    """Finds large excursions; a single wild hour in the history widens it, so it only ever votes."""

    name = "sigma"

    def band(self, view: View) -> tuple[Floats, Floats]:
        """Mean and three standard deviations."""
        return view.column("mean"), 3 * (view.column("sd") + view.column("least"))
