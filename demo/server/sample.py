"""A bounded, uniform sample of the inputs that came: material for calibration."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np


class Reservoir:
    """Algorithm R (Vitter 1985): every row seen so far is in the sample with the same probability."""

    def __init__(self, capacity: int, seed: int) -> None:
        self._capacity, self._random = capacity, random.Random(seed)
        self._rows: list[np.ndarray] = []
        self.seen = 0

    def add(self, rows: np.ndarray) -> None:
        for row in rows:
            self.seen += 1
            if len(self._rows) < self._capacity:
                self._rows.append(np.array(row))  # a copy: the row is a view of the request's whole body
            elif (place := int(self._random.random() * self.seen)) < self._capacity:
                self._rows[place] = np.array(row)

    def npz(self, name: str, width: int) -> bytes:
        """The sample as .npz: the array `name` of shape [rows, width], and `seen`."""
        rows = np.stack(self._rows) if self._rows else np.zeros((0, width), np.float32)
        out = io.BytesIO()
        arrays: dict[str, Any] = {name: rows, "seen": np.array(self.seen)}
        np.savez(out, **arrays)
        return out.getvalue()
