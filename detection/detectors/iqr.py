"""Tukey's fences: the quartiles, and three times their distance beyond."""

from __future__ import annotations

import numpy as np

from detection.methods import Band, View
from detection.panel import Floats


class Iqr(Band):
    """The classic box plot at its outer fences; blind where half of the history is one value."""

    name = "iqr"

    def band(self, view: View) -> tuple[Floats, Floats]:
        """Middle of the quartiles, and half their distance plus three times their distance."""
        low, high = view.column("q25"), view.column("q75")
        return (low + high) * np.float32(0.5), np.float32(3.5) * (high - low) + view.column("least")
