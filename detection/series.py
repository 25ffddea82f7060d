"""What is learned about single series: level, spread, the same clock time on past days, jumps against the last hour.

All functions work on matrices of shape (series, time), float32, NaN for gaps, heavy-tailed signals already as log1p.
Medians over gaps come from sorting: NaN sorts last, so the middle of the known part is an index away.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray
from detection.panel import Floats

DAY_S = 86_400.0
SLOT_S = 900.0
HOUR_S = 3600.0
MIN_DAYS = 3
Arrays = Mapping[str, NDArray[np.float32]]
# width of the 5-95 % range of a normal distribution in standard deviations
_RANGE = 3.29


def sorted_quantiles(ordered: Floats, count: NDArray[np.int64], q: float) -> Floats:
    """A quantile of each row of a row-sorted matrix whose first `count` entries are numbers; NaN for none."""
    position = np.maximum(count - 1, 0) * q
    low = position.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    weight = (position - low).astype(np.float32)
    rows = np.arange(ordered.shape[0])
    out: Floats = ordered[rows, low] * (1 - weight) + ordered[rows, high] * weight
    return out


def median_last(values: Floats) -> Floats:
    """Median over the last axis, NaN ignored; NaN where all are."""
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(values).sum(axis=-1)
    low = np.maximum(count - 1, 0) // 2
    high = np.maximum(count // 2, 0)
    high = np.minimum(high, np.maximum(count - 1, 0))
    a = np.take_along_axis(ordered, low[..., None], -1)[..., 0]
    b = np.take_along_axis(ordered, high[..., None], -1)[..., 0]
    out: Floats = (a + b) * np.float32(0.5)
    return out


def level_stats(x: Floats) -> dict[str, Floats]:
    """Quantiles, mean, standard deviation and number of known points of each series; arrays of shape (series,)."""
    ordered = np.sort(x, axis=1)
    count = np.isfinite(x).sum(axis=1)
    stats = {
        f"q{round(100 * q):02d}": sorted_quantiles(ordered, count, q) for q in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    }
    filled = np.where(np.isfinite(x), x, 0).astype(np.float64)
    n = np.maximum(count, 1)
    mean = filled.sum(axis=1) / n
    variance = np.where(np.isfinite(x), (x - mean[:, None]) ** 2, 0).sum(axis=1) / n
    stats["mean"] = mean.astype(np.float32)
    stats["sd"] = np.sqrt(variance).astype(np.float32)
    stats["n"] = count.astype(np.float32)
    return stats


def slots_of(times: FloatArray, step_s: float) -> tuple[int, FloatArray]:
    """Number of clock-time slots a day, and the fractional slot of each time (slot centres are whole numbers)."""
    slot_s = max(SLOT_S, step_s)
    slots = max(1, round(DAY_S / slot_s))
    return slots, (times % DAY_S) / (DAY_S / slots) - 0.5


def clock_table(x: Floats, times: FloatArray, step_s: float) -> tuple[Floats, NDArray[np.int64]]:
    """Mean per past day and slot: shape (series, days, slots), and the number of days that each series has."""
    slots, position = slots_of(times, step_s)
    slot = np.floor(position + 0.5).astype(np.int64) % slots
    # calendar days in UTC: the first and last may be partial, which the medians ignore
    day = np.floor(times / DAY_S).astype(np.int64)
    day -= day[0]
    days = int(day[-1]) + 1
    cell = day * slots + slot
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    known = np.isfinite(x)
    sums = np.add.reduceat(np.where(known, x, 0), starts, axis=1)
    counts = np.add.reduceat(known, starts, axis=1, dtype=np.int32)
    cells = np.full((x.shape[0], days * slots), np.nan, dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        cells[:, cell[starts]] = sums / counts
    table: Floats = cells.reshape(x.shape[0], days, slots)
    return table, np.isfinite(table).any(axis=2).sum(axis=1)


def smooth_median(table: Floats, reach: int = 2) -> Floats:
    """Median over days and neighbouring slots of a (series, days, slots) table: shape (series, slots)."""
    slots = table.shape[2]
    reach = min(reach, (slots - 1) // 2)
    near = [np.roll(table, shift, axis=2) for shift in range(-reach, reach + 1)]
    stacked = np.concatenate(near, axis=1).transpose(0, 2, 1)
    return median_last(np.ascontiguousarray(stacked))


def at_slots(table: Floats, times: FloatArray, step_s: float) -> Floats:
    """A (series, slots) table read at times, linear between slots and around midnight: shape (series, T)."""
    slots, position = slots_of(times, step_s)
    low = np.floor(position).astype(np.int64)
    weight = (position - low).astype(np.float32)
    out: Floats = table[:, low % slots] * (1 - weight) + table[:, (low + 1) % slots] * weight
    return out


def last_hour(x: Floats, step_s: float) -> Floats:
    """A robust level of the hour before each point (the point itself left out): the median of its three thirds.

    Shape kept; NaN where fewer than two thirds have a number. Linear in time, unlike a running median, and as
    indifferent to a burst of up to 20 minutes.
    """
    third = max(1, round(HOUR_S / 3 / step_s))
    known = np.isfinite(x)
    rows, n = x.shape
    # sums and counts over the `third` points before each point, from running totals; zero before the first point
    total = np.zeros((rows, n + third))
    np.cumsum(np.where(known, x, 0), axis=1, dtype=np.float64, out=total[:, third:])
    count = np.zeros((rows, n + third), np.float32)
    np.cumsum(known, axis=1, dtype=np.float32, out=count[:, third:])
    mean = np.full((rows, n + 2 * third + 1), np.nan, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        window = total[:, third:] - total[:, :-third]
        np.divide(window, count[:, third:] - count[:, :-third], out=mean[:, 2 * third + 1 :], casting="unsafe")
    # mean[:, 2 * third + t] is the third that ends just before t
    a, b, c = (mean[:, 2 * third - k * third :][:, :n] for k in range(3))
    middle = np.fmax(np.fmin(a, b), np.fmin(np.fmax(a, b), c))
    enough = (np.isfinite(a).astype(np.int8) + np.isfinite(b) + np.isfinite(c)) >= 2
    middle[~enough] = np.nan
    out: Floats = middle
    return out


def running_mean(scores: Floats, count: int) -> Floats:
    """Mean of each score and the count - 1 before it (fewer at the start): shape kept, (rows, C)."""
    total = np.cumsum(scores, axis=1, dtype=np.float64)
    out = total.copy()
    out[:, count:] -= total[:, :-count]
    n = np.minimum(np.arange(1, scores.shape[1] + 1), count)
    return (out / n).astype(np.float32)


def running_max(scores: Floats, count: int) -> Floats:
    """The largest of each score and the count - 1 before it (fewer at the start): shape kept, (rows, C)."""
    out = scores.copy()
    for back in range(1, min(count, scores.shape[1])):
        np.maximum(out[:, back:], scores[:, :-back], out=out[:, back:])
    return out


def floor_scale(center: Floats, log: NDArray[np.bool_]) -> Floats:
    """The least spread that is believed: 1 % of the level (in log1p terms for log series), never quite zero."""
    raw = np.where(log, np.expm1(np.minimum(center, 80)), np.abs(center))
    floor = np.where(log, 0.01 * raw / (1 + raw), 0.01 * raw)
    out: Floats = np.maximum(np.nan_to_num(floor), 1e-6).astype(np.float32)
    return out


def robust_spread(x: Floats) -> Floats:
    """(q95 - q05) / 3.29 of each row: a standard deviation that a few outliers cannot move."""
    ordered = np.sort(x, axis=1)
    count = np.isfinite(x).sum(axis=1)
    out: Floats = (sorted_quantiles(ordered, count, 0.95) - sorted_quantiles(ordered, count, 0.05)) / np.float32(_RANGE)
    return out


def learn_series(
    x: Floats, times: FloatArray, step_s: float, log: NDArray[np.bool_], hour: Floats | None = None
) -> dict[str, Floats]:
    """Everything about single series that the detectors share.

    x: (series, T). log: (series,), which series are log1p. hour: `last_hour` of x where it is known already. Returns
    arrays of shape (series,) and two of shape (series, slots), clock_center and clock_scale, which fall back to the
    level where there are fewer than three days.
    """
    stats = level_stats(x)
    center = stats["q50"]
    least = floor_scale(center, log)
    level = np.fmax((stats["q95"] - stats["q05"]) / np.float32(_RANGE), least)
    table, days = clock_table(x, times, step_s)
    clock = smooth_median(table)
    use = (days >= MIN_DAYS)[:, None] & np.isfinite(clock)
    clock = np.where(use, clock, center[:, None])
    residual = x - at_slots(clock, times, step_s)
    spread, _ = clock_table(np.abs(residual), times, step_s)
    pooled = np.fmax(robust_spread(residual), least)
    # mean |r| of a normal is 0.798 sd
    scale = np.float32(1.2533) * smooth_median(spread, 1)
    scale = np.where(use, np.fmax(scale, 0.5 * pooled[:, None]), level[:, None])
    jump = np.fmax(robust_spread(x - (last_hour(x, step_s) if hour is None else hour)), least)
    stats |= {
        "least": least,
        "level_scale": level,
        "residual_scale": pooled,
        "jump_scale": np.where(np.isfinite(jump), jump, level),
        "days": days.astype(np.float32),
        "clock_center": clock,
        "clock_scale": np.fmax(scale, least[:, None]),
    }
    return {name: values.astype(np.float32) for name, values in stats.items()}
