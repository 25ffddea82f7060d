"""Local outlier factor over the features of a service (Breunig et al. 2000): confirms what the joint detectors say.

Costs a table of distances per service, so it is off by default and never starts an alarm of its own.
"""

from __future__ import annotations

import numpy as np

from detection.methods import Joint
from detection.panel import Floats
from detection.series import Arrays

NEIGHBOURS = 20
REFERENCE = 400


class LocalOutlier(Joint):
    """Keeps up to 400 evenly spread rows of history per service and compares densities with them."""

    name = "local_outlier"
    confirms_above = 1.5

    def fit(self, rows: Floats) -> dict[str, Floats]:
        """rows: (services, T, features). Reference rows, their k-distances and reachability densities."""
        stride = max(1, -(-rows.shape[1] // REFERENCE))
        reference = np.ascontiguousarray(rows[:, ::stride])
        reach, density = [], []
        for service in reference:
            distance = _distances(service, service)
            np.fill_diagonal(distance, np.inf)
            near, far = _nearest(distance)
            reach.append(far)
            density.append(_density(distance, near, far))
        return {"reference": reference, "reach": np.stack(reach), "density": np.stack(density)}

    def score(self, rows: Floats, arrays: Arrays) -> Floats:
        """The local outlier factor of each row: (services, C); about 1 for ordinary ones."""
        out = np.empty(rows.shape[:2], np.float32)
        for i, part in enumerate(rows):
            distance = _distances(part, arrays["reference"][i])
            near, _ = _nearest(distance)
            own = _density(distance, near, arrays["reach"][i])
            out[i] = arrays["density"][i][near].mean(axis=1) / own
        return out


def _distances(a: Floats, b: Floats) -> Floats:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    out: Floats = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
    return out


def _nearest(distance: Floats) -> tuple[np.ndarray, Floats]:
    k = min(NEIGHBOURS, distance.shape[1] - 1)
    near = np.argpartition(distance, k - 1, axis=1)[:, :k]
    far: Floats = np.take_along_axis(distance, near, 1).max(axis=1)
    return near, far


def _density(distance: Floats, near: np.ndarray, reach: Floats) -> Floats:
    reached = np.maximum(np.take_along_axis(distance, near, 1), reach[near])
    out: Floats = (1.0 / np.maximum(reached.mean(axis=1), 1e-6)).astype(np.float32)
    return out
