"""What can be wrong with a training job, read from its iterations: slower ones, none, waiting for data, the loss. Pure.

The latest stretch of a window is held against its own earlier part, on a log scale (a loss that is never negative is
too). Medians carry a standard error from the series' own scatter, widened by its first-order autocorrelation (the
variance of a mean times (1 + phi) / (1 - phi)); what is smaller than a set share is no news however sure it is. A step
and a growth are told apart by which of a step and a bent line fits the course better, each at its best place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow

ITERATION, RATE, DATA_WAIT, LOSS, GPU = "iteration_ms", "iterations_per_s", "data_wait_ms", "loss", "gpu_util"
TRAINING_SIGNALS = (ITERATION, RATE, DATA_WAIT, LOSS)
LEAST_POINTS = 24
"""Fewest samples of a window of which anything is said: six for each quarter."""
SLOWER = 1.2
"""An iteration takes this many times as long, at least: epochs and lengths of sequences move it by less."""
SURE_ERRORS = 4.0
"""Standard errors of a difference of medians: every sweep looks, and scatter has heavy tails."""
GROWS_FIT = 0.8
"""What is left over by the bent line, of what a step leaves over, at most where it is called a growth."""
STALLED_S = 600.0
"""How long no iteration has ended: checkpoints and evaluations pause a job for minutes."""
WAITS_SHARE = 0.3
"""Share of an iteration that it waits for its data from which the data bound it: prefetching hides all of a wait that
is shorter than the computing beside it."""
GPU_RESTS = 0.5
"""Busy share of the GPU under which it rests most of an iteration."""
RISES = 1.05
"""The loss is this many times its lowest quarter, at least: mini-batches move it by less."""
FLAT = 0.005
"""Share of the loss by which it moved at most, from the first quarter to the last, where it is called flat."""
FLAT_S = 3600.0
"""Shortest window of which that is said."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. name: of the cause. since_s: since when (epoch seconds). observed, usual: of the signal,
    in its unit; usual NaN where there is none."""

    name: str
    signal: str
    since_s: float
    observed: float
    usual: float
    sentence: str


@dataclass(frozen=True)
class _Course:
    """The finite samples of a signal: times in epoch seconds and values, shape (n,)."""

    times: FloatArray
    values: FloatArray

    @property
    def quarters(self) -> list[FloatArray]:
        return np.array_split(self.values, 4)


def findings(window: MetricWindow) -> tuple[Finding, ...]:
    """Everything that is wrong at the end of the window, what hurts most first; () where too little is known."""
    looks = (_stalled, _lost, _rising, _slower, _waits, _rests, _flat)
    return tuple(found for look in looks if (found := look(window)) is not None)


def _course(window: MetricWindow, signal: str, *, log: bool = True) -> _Course | None:
    values = window.values.get(signal)
    if values is None:
        return None
    known = np.isfinite(values) & ((values > 0) if log else True)
    if known.sum() < LEAST_POINTS or not known[-max(2, known.size // 12) :].any():
        return None
    kept = values[known]
    return _Course(window.span.times()[known], np.log(kept) if log else kept)


def _left_over(values: FloatArray) -> FloatArray:
    """What a straight line leaves over: a part that moves on the whole is no wider for it."""
    places = np.arange(values.size, dtype=np.float64)
    return np.asarray(values - np.polyval(np.polyfit(places, values, 1), places), dtype=np.float64)


def _phi(left: FloatArray) -> float:
    """First-order autocorrelation within 0..0.95."""
    total = float(left @ left)
    return min(max(float(left[1:] @ left[:-1]) / total, 0.0), 0.95) if total > 0 else 0.0


def _error(*parts: FloatArray) -> float:
    """Standard error of the difference of the parts' medians. A median of n normal values scatters as their mean does,
    times sqrt(pi / 2)."""
    variance = 0.0
    for part in parts:
        left = _left_over(part)
        spread = 1.4826 * float(np.median(np.abs(left)))
        phi = _phi(left)
        variance += math.pi / 2 * max(spread, 1e-3) ** 2 / part.size * (1 + phi) / (1 - phi)
    return math.sqrt(variance)


def _median(values: FloatArray) -> float:
    return float(np.median(values))


def _tail(window: MetricWindow, signal: str) -> float | None:
    """Median of the last quarter; None where too little is known."""
    course = _course(window, signal, log=False)
    return _median(course.quarters[-1]) if course is not None else None


# Iterations -----------------------------------------------------------------------------------------------------------


def _stalled(window: MetricWindow) -> Finding | None:
    """Iterations ended before, and none has for STALLED_S while the job still tells its counter."""
    rates = window.values.get(RATE)
    if rates is None:
        return None
    times, known = window.span.times(), np.isfinite(rates)
    if not known.any() or not (rates[known] > 0).any() or rates[known][-1] > 0:
        return None
    moved_s = float(times[known][np.flatnonzero(rates[known] > 0)[-1]])
    still_s = float(times[known][-1]) - moved_s
    if still_s < STALLED_S:
        return None
    usual = _median(rates[known & (rates > 0)])
    return Finding(
        "training_stalled", RATE, moved_s, 0.0, usual,
        f"no iteration has ended for {still_s / 60:.0f} minutes; before, one did every {1 / usual:.3g} s",
    )  # fmt: skip


def _slower(window: MetricWindow) -> Finding | None:
    course = _course(window, ITERATION)
    if course is None:
        return None
    before, now = course.values[: course.values.size // 2], course.quarters[-1]
    moved = _median(now) - _median(before)
    if moved <= math.log(SLOWER) or moved <= SURE_ERRORS * _error(before, now):
        return None
    place, grows = _shape(course.values)
    old, new = math.exp(_median(before)), math.exp(_median(now))
    how = ", more with every minute" if grows else ""
    return Finding(
        "slower_iterations", ITERATION, float(course.times[place]), new, old,
        f"an iteration takes {_ms(new)} and took {_ms(old)}: {new / old:.1f} times as long{how}",
    )  # fmt: skip


def _shape(values: FloatArray) -> tuple[int, bool]:
    """(where what moved began, whether it grows since): the better of the best step and the best bend."""
    places = range(max(3, values.size // 8), values.size - 3)
    steps = [float(np.var(values[:k]) * k + np.var(values[k:]) * (values.size - k)) for k in places]
    bends = [_bend(values, k) for k in places]
    grows = min(bends) < GROWS_FIT * min(steps)
    fits = bends if grows else steps
    return places[int(np.argmin(fits))], grows


def _bend(values: FloatArray, at: int) -> float:
    """Sum of squares left over by a level until `at` and a line from there."""
    ramp = np.maximum(np.arange(values.size, dtype=np.float64) - at, 0.0)
    columns = np.column_stack([np.ones(values.size), ramp])
    fitted = columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
    return float(((values - fitted) ** 2).sum())


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1e3:.1f} s"


# What it waits for ----------------------------------------------------------------------------------------------------


def _share(window: MetricWindow) -> float | None:
    """Share of an iteration that it waits for its data; None where either is not known."""
    wait, whole = _tail(window, DATA_WAIT), _tail(window, ITERATION)
    return wait / whole if wait is not None and whole else None


def _waits(window: MetricWindow) -> Finding | None:
    share, whole, gpu = _share(window), _tail(window, ITERATION), _tail(window, GPU)
    if share is None or whole is None or share < WAITS_SHARE:
        return None
    beside = f", and the GPU is {gpu:.0%} busy" if gpu is not None else ""
    return Finding(
        "data_bound", DATA_WAIT, _since(window, lambda w: _share_at(w) >= WAITS_SHARE), share * whole, math.nan,
        f"an iteration of {_ms(whole)} waits {_ms(share * whole)} ({share:.0%}) for its data{beside}",
    )  # fmt: skip


def _rests(window: MetricWindow) -> Finding | None:
    """The GPU rests while iterations go on, and it is not known to be the data that it waits for."""
    gpu, whole, share = _tail(window, GPU), _tail(window, ITERATION), _share(window)
    if gpu is None or whole is None or gpu >= GPU_RESTS or (share is not None and share >= WAITS_SHARE):
        return None
    waits = "what it waits for is not exported" if share is None else f"its data take {share:.0%} of an iteration"
    return Finding(
        "gpu_rests", GPU, _since(window, lambda w: w.values[GPU] < GPU_RESTS), gpu, math.nan,
        f"the GPU is {gpu:.0%} busy in iterations of {_ms(whole)}, and {waits}",
    )  # fmt: skip


def _share_at(window: MetricWindow) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(window.values[DATA_WAIT] / window.values[ITERATION], dtype=np.float64)


def _since(window: MetricWindow, bad: Callable[[MetricWindow], NDArray[np.bool_]]) -> float:
    """When the stretch began that lasts until the end with most of its samples bad."""
    flags = np.asarray(bad(window), dtype=np.float64)[::-1]
    lasting = np.flatnonzero(np.cumsum(flags) >= 0.8 * np.arange(1, flags.size + 1))
    return float(window.span.times()[flags.size - 1 - (lasting[-1] if lasting.size else 0)])


# The loss -------------------------------------------------------------------------------------------------------------


def _lost(window: MetricWindow) -> Finding | None:
    """The loss was a number and is none while iterations go on: what is not finite is no sample."""
    loss, rates = window.values.get(LOSS), window.values.get(RATE)
    if loss is None or rates is None or not np.isfinite(loss).any():
        return None
    times = window.span.times()
    last = int(np.flatnonzero(np.isfinite(loss))[-1])
    since_s, after = float(times[last]), rates[last + 1 :]
    going = after[np.isfinite(after)]
    if float(times[-1]) - since_s < STALLED_S or not going.size or _median(going) <= 0:
        return None
    return Finding(
        "loss_rising", LOSS, since_s, math.inf, float(loss[last]),
        f"the loss is no number any more, and was {loss[last]:.3g}, while iterations go on",
    )  # fmt: skip


def _rising(window: MetricWindow) -> Finding | None:
    course = _course(window, LOSS)
    if course is None:
        return None
    *earlier, now = course.quarters
    lowest = min(earlier, key=_median)
    moved = _median(now) - _median(lowest)
    if moved <= math.log(RISES) or moved <= SURE_ERRORS * _error(lowest, now):
        return None
    place, _ = _shape(course.values)
    old, new = math.exp(_median(lowest)), math.exp(_median(now))
    return Finding(
        "loss_rising", LOSS, float(course.times[place]), new, old,
        f"the loss is {new:.3g} and was {old:.3g}: it rises",
    )  # fmt: skip


def _flat(window: MetricWindow) -> Finding | None:
    """Known to have stood still, which is another thing than not known to have moved."""
    course = _course(window, LOSS)
    seen_s = window.span.end_s - window.span.start_s
    if course is None or seen_s < FLAT_S:
        return None
    first, *_, last = course.quarters
    moved = abs(_median(last) - _median(first))
    if moved + 2 * _error(first, last) > FLAT:
        return None
    level = math.exp(_median(last))
    return Finding(
        "loss_flat", LOSS, float(course.times[0]), level, math.exp(_median(first)),
        f"the loss is {level:.4g} and has moved by less than {FLAT:.1%} in {seen_s / 60:.0f} minutes",
    )  # fmt: skip
