"""The AR(1) fit against the textbook: dense matrices instead of whitening, and scipy's t instead of a bisection."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from detection.model import FloatArray
from tuning.verification.autocorrelation import HISTORY_BLOCK, PHI, Level, Side, _fit, phi_weights, shift

RNG = np.random.default_rng(7)
WHOLE = 4.0 + 0.1 * RNG.normal(size=12)
GAPS = WHOLE.copy()
GAPS[[0, 4, 5, 9]] = np.nan


def dense(points: FloatArray, phi: float) -> tuple[float, float, float, float]:
    """(level, variance factor, sum of squares, restricted log likelihood) by matrix inversion."""
    index = np.flatnonzero(np.isfinite(points))
    y, ones = points[index], np.ones(index.size)
    inverse = np.linalg.inv(phi ** np.abs(index[:, None] - index[None, :]).astype(float))
    information = float(ones @ inverse @ ones)
    level = float(ones @ inverse @ y) / information
    squares = float((y - level) @ inverse @ (y - level))
    _, determinant = np.linalg.slogdet(inverse)
    likelihood = -0.5 * (-determinant + math.log(information) + (index.size - 1) * math.log(squares))
    return level, 1 / information, squares, likelihood


def test_the_grid_reaches_from_independent_to_nearly_a_walk() -> None:
    assert PHI[0] == 0.0 and PHI[-1] == 0.98 and 0.9 in PHI
    assert (np.diff(PHI) > 0).all() and np.diff(PHI)[:18] == pytest.approx(0.05)


@pytest.mark.parametrize("points", [WHOLE, GAPS], ids=["whole", "with gaps"])
def test_the_fit_is_generalised_least_squares(points: FloatArray) -> None:
    fit = _fit(points, 0.0)
    expected = np.array([dense(points, float(phi)) for phi in PHI])
    assert fit.freedom == int(np.isfinite(points).sum()) - 1
    for found, column in zip((fit.level, fit.factor, fit.squares, fit.log_likelihood), expected.T, strict=True):
        np.testing.assert_allclose(found, column, rtol=1e-8)


def test_a_constant_series_has_the_noise_of_the_floor() -> None:
    fit = _fit(np.full(9, 4.0), 0.01**2)
    np.testing.assert_allclose(fit.squares, 8 * 0.01**2)


def test_independent_sides_are_a_welch_t() -> None:
    before, after = Side(WHOLE), Side(WHOLE[:8] * 0.9)
    difference, level = shift(before, after, history=None, prior=0.35, noise_floor=0.0)
    variances = [np.var(s.points, ddof=1) / s.points.size for s in (before, after)]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 11 + variances[1] ** 2 / 7)
    assert difference.centre[0] == pytest.approx(after.points.mean() - before.points.mean())
    assert difference.scale[0] == pytest.approx(math.sqrt(sum(variances)))
    assert difference.freedom[0] == pytest.approx(freedom)
    assert (level.centre[0], level.freedom[0]) == pytest.approx((after.points.mean(), 7))
    assert level.scale[0] == pytest.approx(math.sqrt(variances[1]))


def test_the_measured_variance_is_a_floor_of_each_side() -> None:
    quiet = Side(np.full(9, 4.0), measurement_variance=0.04)
    difference, _ = shift(quiet, Side(np.full(9, 3.0)), history=None, prior=0.35, noise_floor=0.01)
    assert difference.scale[0] == pytest.approx(math.sqrt((0.04 + 0.0001) / 9))


def autocorrelated(phi: float, n: int) -> FloatArray:
    rng, out = np.random.default_rng(3), [0.0]
    while len(out) < n:
        out.append(phi * out[-1] + math.sqrt(1 - phi**2) * rng.normal())
    return np.asarray(out)


@pytest.mark.parametrize(("phi", "low", "high"), [(0.0, 0.0, 0.15), (0.6, 0.45, 0.75), (0.9, 0.8, 0.96)])
def test_a_long_history_tells_phi(phi: float, low: float, high: float) -> None:
    weight = phi_weights([], autocorrelated(phi, 12 * HISTORY_BLOCK), 0.35)
    assert weight.sum() == pytest.approx(1.0)
    assert low <= float(weight @ PHI) <= high


def test_a_days_course_is_no_autocorrelation() -> None:
    noise = autocorrelated(0.0, 12 * HISTORY_BLOCK)
    steps = np.repeat(10.0 * np.arange(12), HISTORY_BLOCK)
    np.testing.assert_allclose(phi_weights([], noise + steps, 0.35), phi_weights([], noise, 0.35), atol=1e-6)


@pytest.mark.parametrize(("length", "counts"), [(30, False), (31, True), (59, True)])
def test_half_a_block_is_the_least_that_tells(length: int, counts: bool) -> None:
    nothing = phi_weights([], None, 0.35)
    found = phi_weights([], autocorrelated(0.9, length), 0.35)
    assert bool(np.abs(found - nothing).max() > 1e-3) is counts


def test_the_prior_is_weak_and_prefers_independence() -> None:
    """Per unit of phi (1 - phi)^prior: the density, the grid's spacing taken off."""
    density = phi_weights([], None, 2.0) / np.gradient(PHI)
    assert density[0] / density[10] == pytest.approx((1 / (1 - PHI[10])) ** 2)


def level(*parts: tuple[float, float, float, float], extra: float = 0.0) -> Level:
    centre, scale, freedom, weight = (np.array(column) for column in zip(*parts, strict=True))
    return Level(centre, scale, freedom, weight, extra)


def test_a_level_is_a_mixture_of_ts() -> None:
    two = level((0.0, 1.0, 5.0, 0.25), (2.0, 0.5, 9.0, 0.75))
    assert two.mean == 1.5
    assert two.below(1.0) == pytest.approx(0.25 * stats.t.cdf(1.0, 5) + 0.75 * stats.t.cdf(-2.0, 9))
    low, high = two.interval(0.9)
    assert (two.below(low), two.below(high)) == pytest.approx((0.05, 0.95), abs=1e-6)


def test_what_is_known_of_the_load_shifts_and_widens() -> None:
    moved = level((0.0, 3.0, 8.0, 1.0)).shifted(-1.0, 16.0)
    assert (moved.mean, moved.extra_variance) == (-1.0, 16.0)
    assert moved.below(4.0) == pytest.approx(stats.t.cdf(1.0, 8))
    assert moved.interval(0.8) == pytest.approx([-1 + 5 * stats.t.ppf(0.1, 8), -1 + 5 * stats.t.ppf(0.9, 8)], abs=1e-6)
    assert moved.shifted(0.0, 9.0).extra_variance == 25.0


FLAT = {
    "flat": np.full(12, math.log(41.3)),
    "flat but for rounding": math.log(41.3) + 1e-15 * RNG.normal(size=12),
    "one point": np.array([math.log(41.3)]),
    "two equal points": np.full(2, math.log(41.3)),
    "two points": np.array([3.0, 3.2]),
    "one point among gaps": np.array([np.nan, 3.0, np.nan]),
}


@pytest.mark.parametrize("floor", [0.0, 0.01])
@pytest.mark.parametrize("before", FLAT.values(), ids=list(FLAT))
@pytest.mark.parametrize("after", FLAT.values(), ids=list(FLAT))
def test_a_shift_of_flat_or_short_series_is_finite(before: FloatArray, after: FloatArray, floor: float) -> None:
    for found in shift(Side(before), Side(after), history=np.full(240, 3.0), prior=0.35, noise_floor=floor):
        assert np.isfinite([found.mean, *found.interval(0.9), found.below(0.0)]).all()
        assert found.weight.sum() == pytest.approx(1.0) and (found.scale > 0).all()


def test_a_series_without_variance_says_nothing_about_phi() -> None:
    prior = phi_weights([], None, 0.35)
    for name in ("flat", "flat but for rounding", "one point", "two equal points"):
        np.testing.assert_allclose(phi_weights([_fit(FLAT[name], 0.0)], None, 0.35), prior)
    np.testing.assert_allclose(phi_weights([], np.full(240, math.log(41.3)), 0.35), prior)


def test_no_point_is_no_level() -> None:
    with pytest.raises(ValueError, match="at least one"):
        _fit(np.full(3, np.nan), 0.0)
