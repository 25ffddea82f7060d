"""Comparing two short autocorrelated series: the shift of their level, with an interval that does not lie.

Model: each side is a level plus AR(1) noise, the same phi on both sides, a noise of its own on each (an overloaded
service is noisier than a healthy one). phi is not estimated and then believed: it is integrated over a grid, weighted
by the restricted likelihood (Patterson and Thompson 1971; Harville 1974) of both sides and of blocks of the history,
times a weak prior. Given phi, generalised least squares whitens each side, and the shift is a Welch t; the answer is
the mixture of these t distributions over phi. `python -m benchmarks.verdicts` measures what that is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from detection.model import FloatArray

PHI: FloatArray = np.concatenate([np.linspace(0.0, 0.9, 19), np.array([0.93, 0.95, 0.965, 0.98])])
HISTORY_BLOCK = 60
"""Points of a history block: long against the autocorrelation, short against the day's course."""
ROUNDING = 1e-9
"""Noise that is not told from none, as a share of the level (or of 1): well above what floating point makes of equal
numbers, far below what anybody measures."""


@dataclass(frozen=True)
class Side:
    """Equally spaced points of one side (log P95), shape (n,), NaN for gaps; measurement variance where known."""

    points: FloatArray
    measurement_variance: float = 0.0

    @property
    def finite(self) -> int:
        return int(np.isfinite(self.points).sum())


@dataclass(frozen=True)
class Level:
    """A level, or a shift of levels, as a mixture of t distributions over phi; arrays have the shape of PHI."""

    centre: FloatArray
    scale: FloatArray
    freedom: FloatArray
    weight: FloatArray
    extra_variance: float = 0.0

    @property
    def mean(self) -> float:
        return float(self.weight @ self.centre)

    def below(self, x: float) -> float:
        """The probability that the level is below x."""
        scale = np.sqrt(self.scale**2 + self.extra_variance)
        return float(self.weight @ special.stdtr(self.freedom, (x - self.centre) / scale))

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval, by bisection: the mixture's distribution function is monotone."""
        scale = np.sqrt(self.scale**2 + self.extra_variance)[:, None]
        p = np.array([(1 - level) / 2, (1 + level) / 2])
        spread = 60.0 * float(scale.max()) + 1e-6
        low = np.full(2, float(self.centre.min()) - spread)
        high = np.full(2, float(self.centre.max()) + spread)
        for _ in range(45):
            middle = 0.5 * (low + high)
            below = self.weight @ special.stdtr(self.freedom[:, None], (middle - self.centre[:, None]) / scale)
            low, high = np.where(below < p, middle, low), np.where(below < p, high, middle)
        return float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2

    def shifted(self, by: float, variance: float = 0.0) -> Level:
        return Level(self.centre + by, self.scale, self.freedom, self.weight, self.extra_variance + variance)


@dataclass(frozen=True)
class _Fit:
    """One series at every phi: GLS level, its variance factor, innovation sum of squares, degrees of freedom."""

    level: FloatArray
    factor: FloatArray
    squares: FloatArray
    freedom: int
    log_likelihood: FloatArray


def _fit(points: FloatArray, floor_variance: float) -> _Fit:
    """Exact AR(1) likelihood with gaps: the step over a gap of k has correlation phi**k (marginal variance 1).

    Finite whatever the points are: a series without variance (or a single point) says nothing about phi, and no noise
    is less than that of rounding. Needs one finite point.
    """
    index = np.flatnonzero(np.isfinite(points))
    y = points[index]
    n = y.size
    if not n:
        raise ValueError("a level needs at least one finite point")
    phi = PHI[:, None]
    rho = phi ** np.diff(index)[None, :]
    variance = np.concatenate([np.ones((PHI.size, 1)), 1.0 - rho**2], axis=1)
    # whitened observations and whitened ones, shape (phi, n)
    wy = np.concatenate([np.full((PHI.size, 1), y[0]), y[1:] - rho * y[:-1]], axis=1) / np.sqrt(variance)
    w1 = np.concatenate([np.ones((PHI.size, 1)), 1.0 - rho], axis=1) / np.sqrt(variance)
    information = (w1**2).sum(axis=1)
    level = (w1 * wy).sum(axis=1) / information
    squares = ((wy - w1 * level[:, None]) ** 2).sum(axis=1)
    # One point has no noise of its own to tell: the floor is all there is, as of two points.
    freedom = max(1, n - 1)
    least = (ROUNDING * max(1.0, float(np.abs(y).max()))) ** 2
    # A floor on the marginal variance: without it a constant series would prove anything.
    floored = np.maximum(squares, freedom * max(floor_variance, least))
    if np.var(y) <= least:
        return _Fit(level, 1.0 / information, floored, freedom, np.zeros(PHI.size))
    log_likelihood = -0.5 * (np.log(variance).sum(axis=1) + np.log(information) + freedom * np.log(floored))
    return _Fit(level, 1.0 / information, floored, freedom, log_likelihood)


def phi_weights(sides: Sequence[_Fit], history: FloatArray | None, prior: float) -> FloatArray:
    """Posterior weights of PHI, shape of PHI, sum 1."""
    log_weight = prior * np.log1p(-PHI) + np.log(np.gradient(PHI))
    for fit in sides:
        log_weight = log_weight + fit.log_likelihood
    if history is not None:
        for start in range(0, history.size - HISTORY_BLOCK // 2, HISTORY_BLOCK):
            block = history[start : start + HISTORY_BLOCK]
            if np.isfinite(block).sum() >= HISTORY_BLOCK // 2:
                # Each block has a level and a noise of its own: the day's course is no autocorrelation.
                log_weight = log_weight + _fit(block, 0.0).log_likelihood
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(weight / weight.sum(), dtype=np.float64)


def shift(
    before: Side, after: Side, *, history: FloatArray | None, prior: float, noise_floor: float
) -> tuple[Level, Level]:
    """(shift of the level after - before, level after). Each side needs at least three finite points."""
    fits = [_fit(side.points, max(noise_floor**2, side.measurement_variance)) for side in (before, after)]
    weight = phi_weights(fits, history, prior)
    variances = [fit.squares / fit.freedom * fit.factor for fit in fits]
    total = variances[0] + variances[1]
    # Welch and Satterthwaite
    freedom = total**2 / sum(v**2 / fit.freedom for v, fit in zip(variances, fits, strict=True))
    difference = Level(fits[1].level - fits[0].level, np.sqrt(total), freedom, weight)
    after_freedom = np.full(PHI.size, float(fits[1].freedom))
    return difference, Level(fits[1].level, np.sqrt(variances[1]), after_freedom, weight)


def level(side: Side, *, prior: float, noise_floor: float) -> Level:
    """The level of one side, such as the differences of two that ran side by side; three finite points at least."""
    fit = _fit(side.points, max(noise_floor**2, side.measurement_variance))
    scale = np.sqrt(fit.squares / fit.freedom * fit.factor)
    return Level(fit.level, scale, np.full(PHI.size, float(fit.freedom)), phi_weights([fit], None, prior))
