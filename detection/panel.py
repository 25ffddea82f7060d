"""Windows as matrices: the signals of many services on one grid, which is what the detectors compute on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow
from detection.signals import SIGNALS, Signal

Floats = NDArray[np.float32]


def signal_of(name: str) -> Signal:
    """The table's entry, or for a series of one's own a signal that may go wrong in both directions."""
    return SIGNALS.get(name) or Signal(name, "", "both", name)


@dataclass(frozen=True)
class Panel:
    """Services with the same signals on the same grid.

    times: shape (T,), epoch seconds, ascending by step_s. values: float32, shape (services, signals, T), raw units,
    NaN for gaps.
    """

    services: tuple[str, ...]
    signals: tuple[str, ...]
    step_s: float
    times: FloatArray
    values: Floats

    def select(self, keep: Sequence[int]) -> Panel:
        """The panel of some of its services."""
        index = np.asarray(keep, dtype=np.int64)
        return Panel(tuple(self.services[i] for i in keep), self.signals, self.step_s, self.times, self.values[index])

    def compressed(self) -> Floats:
        """The values with heavy-tailed signals as log1p, which makes ratios into differences."""
        return compress(self.values, self.signals)


def compress(values: Floats, signals: Sequence[str]) -> Floats:
    """log1p of the signals that the table marks as heavy-tailed; shape (services, signals, ...) kept."""
    log = np.array([signal_of(name).log for name in signals])
    if not log.any():
        return values
    out = values.copy()
    out[:, log] = np.log1p(np.maximum(out[:, log], 0.0))
    return out


def group_windows(windows: Mapping[str, MetricWindow], signals: Sequence[str] | None = None) -> Iterator[Panel]:
    """Panels of the windows that share grid and signals; `signals` limits (and orders) what is taken."""
    groups: dict[tuple[float, int, float, tuple[str, ...]], list[MetricWindow]] = defaultdict(list)
    for window in windows.values():
        names = sorted(window.values) if signals is None else [name for name in signals if name in window.values]
        if names and window.span.points > 0:
            groups[window.span.start_s, window.span.points, window.span.step_s, tuple(names)].append(window)
    for (_, _, step_s, names_), members in groups.items():
        values = np.empty((len(members), len(names_), members[0].span.points), dtype=np.float32)
        for i, window in enumerate(members):
            for j, name in enumerate(names_):
                values[i, j] = _clean(window.values[name])
        yield Panel(tuple(window.service for window in members), names_, step_s, members[0].span.times(), values)


def _clean(values: FloatArray) -> FloatArray:
    # beyond float32 a number is as unusable as infinity
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(values) < 1e30, values, np.nan)


def panel_at(
    windows: Mapping[str, MetricWindow],
    services: Sequence[str],
    signals: Sequence[str],
    step_s: float,
    at_s: float,
    points: int,
) -> Panel:
    """The last `points` steps up to at_s of the named services and signals, each step the mean of its samples.

    Bins end at at_s, so the newest one is complete; live samples finer than step_s are averaged, coarser ones stand
    in the bin that they fall into. What is missing is NaN.
    """
    times = at_s - step_s * np.arange(points - 1, -1, -1, dtype=np.float64)
    values = np.full((len(services), len(signals), points), np.nan, dtype=np.float32)
    bins: dict[tuple[float, int, float], tuple[NDArray[np.int64], NDArray[np.bool_]]] = {}
    for i, name in enumerate(services):
        window = windows.get(name)
        if window is None:
            continue
        key = (window.span.start_s, window.span.points, window.span.step_s)
        if key not in bins:
            index = np.ceil((window.span.times() - times[-1]) / step_s - 1e-9).astype(np.int64) + points - 1
            bins[key] = index, (index >= 0) & (index < points)
        index, inside = bins[key]
        present = [j for j, signal in enumerate(signals) if signal in window.values]
        if present and inside.any():
            stacked = np.stack([window.values[signals[j]][inside] for j in present])
            values[i, present] = _bin_means(stacked, index[inside], points)
    return Panel(tuple(services), tuple(signals), step_s, times, values)


def _bin_means(stacked: FloatArray, index: NDArray[np.int64], points: int) -> FloatArray:
    """Means per bin of shape (rows, n) samples; index is ascending. NaN where a bin has no number."""
    stacked = _clean(stacked)
    known = np.isfinite(stacked)
    starts = np.flatnonzero(np.diff(index, prepend=index[0] - 1))
    sums = np.add.reduceat(np.where(known, stacked, 0.0), starts, axis=1)
    counts = np.add.reduceat(known, starts, axis=1, dtype=np.int64)
    out = np.full((stacked.shape[0], points), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[:, index[starts]] = sums / counts
    return out
