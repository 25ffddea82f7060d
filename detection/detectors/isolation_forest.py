"""One isolation forest for all services with the same signals, over robust-normalised features.

Fitted on history, never on the window that it judges; no `contamination`: the threshold is calibrated outside.
"""

from __future__ import annotations

import numpy as np

from detection.methods import Joint
from detection.panel import Floats
from detection.series import Arrays
from detection.trees import fit_trees, score_rows

TREES = 100
SAMPLES = 512
FIT_ROWS = 100_000


class SharedForest(Joint):
    """Sees many signals moving a little at once; blind to one signal of many, which the votes see."""

    name = "isolation_forest"
    share = 0.02
    pooled = True
    steps = 2

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def fit(self, rows: Floats) -> dict[str, Floats]:
        """rows: (services, T, features); at most FIT_ROWS of them are used, evenly spread."""
        flat = rows.reshape(-1, rows.shape[2])
        flat = flat[:: max(1, -(-flat.shape[0] // FIT_ROWS))]
        return fit_trees(np.ascontiguousarray(flat), trees=TREES, samples=SAMPLES, seed=self._seed)

    def score(self, rows: Floats, arrays: Arrays) -> Floats:
        """-score_samples of each row: (services, T), about 0.5 for ordinary ones."""
        return score_rows(rows.reshape(-1, rows.shape[2]), arrays).reshape(rows.shape[:2])

    def running(self, raw: Floats) -> Floats:
        """The smaller of two judgements in a row."""
        out: Floats = np.minimum(raw, np.concatenate([raw[:, :1], raw[:, :-1]], axis=1))
        return out

    def weights(self, row: Floats, arrays: Arrays, signals: int) -> Floats:
        """How far the score falls when a signal is put back to normal."""
        variants = np.repeat(row[None], signals + 1, axis=0)
        for j in range(signals):
            variants[j + 1, [j, signals + j]] = 0
        scores = self.score(variants[None], arrays)[0]
        out: Floats = np.maximum(scores[0] - scores[1:], 0)
        return out
