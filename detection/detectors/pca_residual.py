"""PCA residual over the features of a whole service: what its signals do that they never did together."""

from __future__ import annotations

import numpy as np

from detection.methods import Joint
from detection.panel import Floats
from detection.series import Arrays, running_mean

EXPLAINED = 0.9
LEAST = 0.05


class PcaResidual(Joint):
    """A basis per service; the score is the length of what the basis does not explain."""

    name = "pca_residual"
    share = 0.58
    steps = 6

    def fit(self, rows: Floats) -> dict[str, Floats]:
        """rows: (services, T, features). basis: (services, features, features); mean, sd: (services, features).

        The basis holds the leading components that explain 90 % of the variance; the rest of its columns are zero.
        """
        mean = rows.mean(axis=1)
        covariance = np.einsum("stf,stg->sfg", rows - mean[:, None], rows - mean[:, None], optimize=True)
        values, vectors = np.linalg.eigh(covariance / max(1, rows.shape[1] - 1))
        order = np.argsort(-values, axis=1)
        spread: Floats = np.maximum(np.take_along_axis(values, order, 1), 0).astype(np.float32)
        vectors = np.take_along_axis(vectors, order[:, None, :], 2)
        before = np.cumsum(spread, axis=1) - spread
        keep = before < EXPLAINED * np.maximum(spread.sum(axis=1, keepdims=True), 1e-12)
        arrays = {"basis": (vectors * keep[:, None, :]).astype(np.float32), "mean": mean.astype(np.float32)}
        # every third row tells the spread well enough
        arrays["sd"] = (self.left_over(rows[:, ::3], arrays).std(axis=1) + LEAST).astype(np.float32)
        return arrays

    def residual(self, rows: Floats, arrays: Arrays) -> Floats:
        """What the basis leaves of each row in units of what it usually leaves of that feature, shape of rows."""
        out: Floats = self.left_over(rows, arrays) / arrays["sd"][:, None]
        return out

    def left_over(self, rows: Floats, arrays: Arrays) -> Floats:
        """What the basis leaves of each row, shape of rows."""
        centred = rows - arrays["mean"][:, None]
        explained = (centred @ arrays["basis"]) @ arrays["basis"].transpose(0, 2, 1)
        out: Floats = (centred - explained).astype(np.float32)
        return out

    def score(self, rows: Floats, arrays: Arrays) -> Floats:
        """Root of the summed squares of the residual: (services, T)."""
        out: Floats = np.sqrt((self.residual(rows, arrays) ** 2).sum(axis=2)).astype(np.float32)
        return out

    def running(self, raw: Floats) -> Floats:
        """The mean of `steps` judgements (fewer at the start)."""
        return running_mean(raw, self.steps)

    def carried(self, rows: Floats, arrays: Arrays, signals: int) -> Floats:
        """The squared residual of both features of a signal."""
        return super().carried(self.residual(rows, arrays), arrays, signals)
