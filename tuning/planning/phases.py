"""A neighbour that comes and goes: how slow, for which share of the time and how long, from means over a rate window.

A posterior on a grid, since a minute of windowed means leaves much open: what is not known is drawn, and each draw is
simulated. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray
from tuning.planning import thresholds as th


@dataclass(frozen=True)
class Phases:
    """Batch times that come and go: `ratio` times as slow for `share` (0..1) of every `period_s` seconds. fast: batch
    time in between over the learned line (1: as learned)."""

    share: float
    ratio: float
    period_s: float
    fast: float = 1.0

    @property
    def sustained(self) -> float:
        """Batch time over the learned line of a server that never rests: its rate is the mean of both rates."""
        return self.fast / (1 - self.share + self.share / self.ratio)

    @property
    def slow(self) -> float:
        """Batch time in a slow phase over the learned line."""
        return self.fast * self.ratio


@dataclass(frozen=True)
class Seen:
    """What was measured since the onset.

    paces: for each replica (or for all, where replicas are not exported) times in seconds and mean batch times over the
    learned line, each over the rate window before, shape (2, k). begins_s: what came before has no slow phase. noise:
    the means' relative standard error. cv2: squared variation of single batch times on top of the usual (None: not
    exported). busy: share of the time that batches are computed. sizes: whether batches are of several sizes, so that
    what varies between sizes is not in cv2.
    """

    paces: Sequence[FloatArray]
    rate_window_s: float
    begins_s: float
    noise: float
    cv2: float | None
    busy: float
    sizes: bool = False


def posterior(seen: Seen, draws: int) -> tuple[Phases, ...]:
    """`draws` equally likely explanations of what was seen, from the mildest to the worst; () where nothing was."""
    points = sum(pace.shape[1] for pace in seen.paces)
    if not points:
        return ()
    axes = (th.PHASE_PERIODS_S, th.PHASE_SHARES, th.PHASE_RATIOS, th.PHASE_FAST)
    period, share, ratio, fast = (np.asarray(axis, dtype=np.float64) for axis in np.meshgrid(*axes, indexing="ij"))
    beside = (1 - th.FAST_AS_BEFORE) / (len(th.PHASE_FAST) - 1)
    chance = np.asarray(np.log(np.where(fast == 1.0, th.FAST_AS_BEFORE, beside)))
    weight = batches_of(seen.busy, share, ratio)
    for pace in seen.paces:
        chance = chance + _fits(pace, seen, weight, ratio, fast)
    if seen.cv2 is not None:
        slow = share * weight / (share * weight + 1 - share)
        expected = slow * (1 - slow) * (ratio - 1) ** 2 / (1 + slow * (ratio - 1)) ** 2
        off = np.log(max(seen.cv2, th.PHASE_CV2_LEAST) / np.maximum(expected, th.PHASE_CV2_LEAST))
        # What is averaged over few periods varies with where they began.
        noise = th.PHASE_CV2_NOISE * np.sqrt(1 + period / seen.rate_window_s)
        noise = np.where(off < 0, np.maximum(noise, th.PHASE_CV2_HIDDEN), noise) if seen.sizes else noise
        chance = chance - 0.5 * (off / noise) ** 2
    worst = (fast * ratio).ravel()
    order = np.argsort(worst, kind="stable")
    likely = np.exp(chance - chance.max()).ravel()[order]
    levels = (np.arange(draws) + 0.5) / draws
    chosen = order[np.searchsorted(np.cumsum(likely) / likely.sum(), levels)]
    grid = (share, ratio, period, fast)
    return tuple(Phases(*(float(values.ravel()[k]) for values in grid)) for k in chosen)


def batches_of(busy: float, share: FloatArray, ratio: FloatArray) -> FloatArray:
    """Batches per second in slow phases over those in fast ones, 1/ratio to 1; shapes broadcast.

    A slow phase that carries its load computes as many. One that does not never rests: it computes 1/ratio of what a
    fast phase could, which computes for (busy - share) / (1 - share) of its time.
    """
    rested = np.maximum((busy - share) / (1 - share), 1e-3)
    full = busy * ratio >= 1 + share * (ratio - 1)
    return np.where(full, np.clip(1 / (ratio * rested), 1 / ratio, 1.0), 1.0)


def _fits(pace: FloatArray, seen: Seen, weight: FloatArray, ratio: FloatArray, fast: FloatArray) -> FloatArray:
    """Log likelihood of one series of means, over every place of the period, shape of the grid.

    Means over windows that overlap are not independent: each counts by what is new in it.
    """
    times, values = pace
    step_s = float(np.median(np.diff(times))) if times.size > 1 else seen.rate_window_s
    new = min(1.0, step_s / seen.rate_window_s)
    periods, shares = (np.asarray(axis) for axis in (th.PHASE_PERIODS_S, th.PHASE_SHARES))
    places = (np.arange(th.PHASE_PLACES) + 0.5) / th.PHASE_PLACES
    begins_s, ends_s = min(seen.begins_s, float(times[-1])) - times[0], times - times[0]
    starts_s = np.clip(ends_s - seen.rate_window_s, begins_s, None)
    ends_s = np.maximum(ends_s, begins_s)
    total = np.full((*weight.shape, places.size), 0.0)
    # One place of the period at a time keeps the arrays small.
    for k, place in enumerate(places):
        first_s = place * periods[:, None, None]
        slow_s = _slow_until(ends_s + first_s, periods, shares) - _slow_until(starts_s + first_s, periods, shares)
        part = slow_s[:, :, None, None, :] / seen.rate_window_s
        counted = weight[..., None]
        slow = part * counted / (part * counted + 1 - part)
        off = np.log(values / (fast[..., None] * (1 + (ratio[..., None] - 1) * slow))) / seen.noise
        total[..., k] = -0.5 * new * np.minimum(off**2, th.NIS_LIMIT).sum(axis=-1)
    top = total.max(axis=-1)
    return np.asarray(top + np.log(np.exp(total - top[..., None]).mean(axis=-1)))


def _slow_until(at_s: FloatArray, periods: FloatArray, shares: FloatArray) -> FloatArray:
    """Seconds of slow phases up to `at_s`, where each period begins with its slow phase; negative times count back."""
    period, slow = periods[:, None, None], periods[:, None, None] * shares[None, :, None]
    whole = np.floor(at_s / period)
    return np.asarray(whole * slow + np.minimum(at_s - whole * period, slow))
