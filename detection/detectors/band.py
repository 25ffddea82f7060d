"""The 1 % to 99 % band of the history, a quarter of its half width beyond."""

from __future__ import annotations

import numpy as np

from detection.methods import Band, View
from detection.panel import Floats


class QuantileBand(Band):
    """Follows skewed distributions, which mean and median rules do not."""

    name = "band"

    def band(self, view: View) -> tuple[Floats, Floats]:
        """Middle of the band, and 1.25 of its half width."""
        low, high = view.column("q01"), view.column("q99")
        return (low + high) * np.float32(0.5), np.float32(0.625) * (high - low) + view.column("least")
