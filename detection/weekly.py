"""The week of a series: by how much its weekdays differ from each other, once two weeks agree that they do.

A service whose weekends are busier is well on Saturday. So what a slot of the week (half an hour) usually is above or
below the same time of all days is taken out of a series before anything else looks at it, in learning as in judging;
days that are like the others are left alone, and a single odd day never becomes a habit: one week says nothing, of two
the smaller deviation counts where both have the same sign, of three or more the median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray
from detection.panel import Floats
from detection.series import DAY_S, Arrays, at_slots, last_hour, median_last, robust_spread

WEEK_S = 7 * DAY_S
SLOT_S = 1800.0
DAYS = 7
AGREEMENT = 0.5
"""Correlation between weeks from which on last week foretells this one better than nothing does (2(1 - r) < 1)."""
QUARTERS = 4
EARLY_S = 900.0
"""A habit may begin this much earlier or later than usual without being news."""
REACH = 6
"""Slots on either side over which the scatter of a time of day is averaged: three hours, for it is hard to measure."""
INCIDENT = 6.0
"""A difference between weeks of more than this many usual ones is an incident in one of them."""
MOST_SPREAD = 4.0
"""A day that scatters more than this many times as much as the others is not believed to do so out of habit."""


def slot_s_of(step_s: float) -> float:
    """Length of a slot for series of this step: half an hour, or the step where it is longer, in whole parts a day."""
    return DAY_S / max(1, round(DAY_S / max(SLOT_S, step_s)))


def week_slots(times_s: FloatArray, slot_s: float) -> NDArray[np.int64]:
    """The slot of the week (UTC) that each time falls into; a slot holds its end, as the bins of a panel do."""
    slots = round(WEEK_S / slot_s)
    return (np.ceil(times_s / slot_s - 1e-9).astype(np.int64) - 1) % slots


def week_table(x: Floats, times_s: FloatArray, end_s: float, weeks: int, slot_s: float) -> Floats:
    """Mean per week back from end_s and slot of the week: (series, weeks, slots), NaN where nothing is known.

    x: (series, T), compressed. times_s: ascending, to end_s.
    """
    slots = round(WEEK_S / slot_s)
    back = np.floor((end_s - times_s) / WEEK_S + 1e-9).astype(np.int64)
    keep = (back >= 0) & (back < weeks)
    out = np.full((x.shape[0], weeks * slots), np.nan, np.float32)
    if not keep.any():
        return out.reshape(-1, weeks, slots)
    x, cell = x[:, keep], back[keep] * slots + week_slots(times_s[keep], slot_s)
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    known = np.isfinite(x)
    sums = np.add.reduceat(np.where(known, x, 0), starts, axis=1, dtype=np.float64)
    counts = np.add.reduceat(known, starts, axis=1, dtype=np.int32)
    with np.errstate(invalid="ignore", divide="ignore"):
        out[:, cell[starts]] = sums / counts
    return out.reshape(-1, weeks, slots)


def learn_week(table: Floats) -> dict[str, Floats]:
    """What `habit_of` needs, from a (series, weeks, slots) table.

    week_offset: (series, slots), 0 where a day is like the others or the weeks do not agree. week_usual: the same time
    of all days, (series, slots of a day). week_spread: see _spread.
    """
    rows, weeks, slots = table.shape
    by_day = table.reshape(rows, weeks * DAYS, slots // DAYS)
    usual = median_last(by_day.transpose(0, 2, 1))
    deviation = table - np.tile(usual, DAYS)[:, None]
    habit = _agreed(_smooth(deviation))
    whole = _agreement(deviation[:, :, None, :])[:, 0]
    days = _agreement(deviation.reshape(rows, weeks, DAYS, slots // DAYS))
    use = (whole >= AGREEMENT)[:, None] & (days >= AGREEMENT)
    offset = np.where(_with_edges(use, deviation), habit, 0)
    return {
        "week_offset": offset.astype(np.float32),
        "week_usual": np.nan_to_num(usual).astype(np.float32),
        "week_spread": _spread(table, use),
    }


def _with_edges(use: NDArray[np.bool_], deviation: Floats) -> NDArray[np.bool_]:
    """The slots of the days with habits, and of the quarters of a day right before and after them that agree by
    themselves: a busy Saturday may begin on Friday evening. (series, slots).

    use: (series, DAYS). deviation: (series, weeks, slots).
    """
    rows, weeks, slots = deviation.shape
    if slots % (DAYS * QUARTERS):
        return np.repeat(use, slots // DAYS, axis=1)
    agree = _agreement(deviation.reshape(rows, weeks, DAYS * QUARTERS, -1)) >= AGREEMENT
    whole = np.repeat(use, QUARTERS, axis=1)
    beside = np.roll(whole, 1, axis=1) | np.roll(whole, -1, axis=1)
    return np.repeat(whole | (beside & agree), slots // (DAYS * QUARTERS), axis=1)


def _smooth(deviation: Floats) -> Floats:
    """Median with both neighbours, which keeps edges: shape kept."""
    near = np.stack([np.roll(deviation, shift, axis=2) for shift in (-1, 0, 1)], axis=-1)
    return median_last(near)


def _agreed(deviation: Floats) -> Floats:
    """What the weeks agree on, (series, slots): the median of three or more, of two the smaller of one sign, else 0."""
    count = np.isfinite(deviation).sum(axis=1)
    known = np.nan_to_num(deviation)
    low = np.where(np.isfinite(deviation), known, np.inf).min(axis=1)
    high = np.where(np.isfinite(deviation), known, -np.inf).max(axis=1)
    both = np.where(low > 0, low, np.where(high < 0, high, 0))
    middle = median_last(deviation.transpose(0, 2, 1))
    out: Floats = np.where(count >= 3, middle, np.where(count == 2, both, 0))
    return out


def _agreement(deviation: Floats) -> Floats:
    """How well neighbouring weeks foretell each other, -1..1, 0 where unknown: (series, days) of (series, weeks, days,
    slots). Not centred: that all of a Saturday is higher is what it looks for."""
    a, b = deviation[:, :-1], deviation[:, 1:]
    known = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(known, a, 0), np.where(known, b, 0)
    together = (a * b).sum(axis=(1, 3))
    alone = np.sqrt((a**2).sum(axis=(1, 3)) * (b**2).sum(axis=(1, 3)))
    out: Floats = together / np.maximum(alone, 1e-12)
    return out


@dataclass(frozen=True)
class Habit:
    """The habits of the week of some series at some times: arrays of shape (series, T).

    offset: above (or below) usual, the same time of all days. spread: by how much more than on ordinary days the series
    scatters there, 1 where it does not.
    """

    offset: Floats
    usual: Floats
    spread: Floats

    def out_of(self, x: Floats) -> Floats:
        """x as it would be on an ordinary day."""
        out: Floats = self.usual + (x - self.offset - self.usual) / self.spread
        return out

    def into(self, x: Floats) -> Floats:
        """The way back of `out_of`, for what people see."""
        out: Floats = self.usual + self.offset + (x - self.usual) * self.spread
        return out

    def at(self, rows: slice | int, columns: slice | int) -> Habit:
        """Of some rows and columns."""
        return Habit(self.offset[rows, columns], self.usual[rows, columns], self.spread[rows, columns])


def habit_of(x: Floats, times_s: FloatArray, stats: Arrays) -> Habit | None:
    """The habits in x, (series, T), at times_s; None where no series has one.

    Of the habits of a quarter of an hour around each time the one that explains the value best.
    """
    if "week_offset" not in stats or not stats["week_offset"].any():
        return None
    rows = np.flatnonzero(stats["week_offset"].any(axis=1))
    offset, usual = stats["week_offset"][rows], stats["week_usual"][rows]
    slots = offset.shape[1]
    slot_s, day = WEEK_S / slots, slots // DAYS
    now = week_slots(times_s, slot_s)
    level = usual[:, now % usual.shape[1]]
    rest, best = x[rows] - level, offset[:, now]
    for shift_s in (-EARLY_S, EARLY_S):
        near = week_slots(times_s + shift_s, slot_s)
        columns = np.flatnonzero(near != now)
        other = offset[:, near[columns]]
        nearer = np.abs(rest[:, columns] - other) < np.abs(rest[:, columns] - best[:, columns])
        best[:, columns] = np.where(nearer, other, best[:, columns])
    spread = np.where(best != 0, stats["week_spread"][rows][:, now % day], np.float32(1))
    found = Habit(np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32), np.ones(x.shape, np.float32))
    found.offset[rows], found.usual[rows], found.spread[rows] = best, level, spread
    return found


def _spread(table: Floats, use: NDArray[np.bool_]) -> Floats:
    """By how much more than other days the days with habits scatter, by time of day: (series, slots of a day).

    table: (series, weeks, slots). use: (series, DAYS), the days with habits. Weeks are compared with each other: what
    they have in common is the habit. Never below 1: a quiet day is no reason to look closer.
    """
    rows, weeks, slots = table.shape
    if weeks < 2:
        return np.ones((rows, slots // DAYS), np.float32)
    apart = np.abs(np.diff(table, axis=1)).reshape(rows, weeks - 1, DAYS, slots // DAYS)
    # one incident is no scatter
    most = INCIDENT * np.nan_to_num(median_last(apart.reshape(rows, -1)), nan=np.inf)
    apart = np.minimum(apart, most[:, None, None, None])
    its, other = (_by_time(apart, chosen) for chosen in (use, ~use))
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.nan_to_num(its / other, nan=1.0, posinf=1.0)
    out: Floats = np.clip(factor, 1.0, MOST_SPREAD).astype(np.float32)
    return out


def _by_time(apart: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Mean of (series, weeks, DAYS, slots) over weeks, the chosen days and REACH slots around: (series, slots)."""
    known = np.isfinite(apart) & chosen[:, None, :, None]
    total = np.where(known, apart, 0).sum(axis=(1, 2))
    count = known.sum(axis=(1, 2)).astype(np.float32)
    near = range(-REACH, REACH + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Floats = sum(np.roll(total, k, axis=1) for k in near) / sum(np.roll(count, k, axis=1) for k in near)
    return out


def hour_scale(x: Floats, times_s: FloatArray, step_s: float, stats: Arrays) -> Floats:
    """The usual deviation of an hour's level from the clock-time centre, (series,); NaN where no habit is known.

    x: (series, T), compressed, without the habits of the week.
    """
    out = np.full(x.shape[0], np.nan, np.float32)
    if "week_offset" not in stats:
        return out
    rows = np.flatnonzero(stats["week_offset"].any(axis=1))
    if rows.size:
        rest = x[rows] - at_slots(stats["clock_center"][rows], times_s, step_s)
        out[rows] = np.fmax(robust_spread(last_hour(rest, step_s)), stats["least"][rows])
    return out
