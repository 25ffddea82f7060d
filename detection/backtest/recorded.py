"""Recorded history from CSV files, brought onto a regular grid; whatever is odd about it is counted and said.

Two forms: one CSV of series,timestamp,value (each series is judged on its own), or a folder of CSV files, each one
service with a timestamp column and one column per signal. How the text of such files is read: `csv_text`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detection.backtest import csv_text
from detection.backtest.csv_text import TIMESTAMP
from detection.errors import ConfigError
from detection.model import FloatArray, MetricWindow, Span

VALUE = "value"
MAX_POINTS = 5_000_000
Oddities = dict[str, int]


@dataclass(frozen=True)
class Recording:
    """One recorded service or series.

    window: on the grid. stamps: for each grid point the newest original timestamp in its cell (epoch seconds), NaN
    where the cell is empty. odd: what was wrong with the data, by kind.
    """

    name: str
    window: MetricWindow
    stamps: FloatArray
    odd: Oddities = field(default_factory=dict)


def load(path: Path, step_s: float | None = None) -> list[Recording]:
    """All recordings of a path, sorted by name. step_s: another resolution than the data's own.

    Raises ConfigError with the file and what is wrong with it.
    """
    if path.is_dir():
        files = sorted(path.glob("*.csv")) + sorted(path.glob("*.csv.gz"))
        if not files:
            raise ConfigError("there are no .csv files in this folder", where=str(path))
        return [of_service(file, step_s) for file in files]
    if not path.exists():
        raise ConfigError("there is no such file or folder", where=str(path))
    table = csv_text.read(path)
    missing = {"series", TIMESTAMP, VALUE} - set(table.columns)
    if missing:
        raise ConfigError(f"the columns {', '.join(sorted(missing))} are missing", where=str(path))
    frame = pd.DataFrame({name: table.columns[name] for name in ("series", TIMESTAMP, VALUE)})
    return [
        to_grid(
            str(name),
            csv_text.seconds(part[TIMESTAMP], path),
            {VALUE: csv_text.numbers(VALUE, part[VALUE], table.comma, path)},
            step_s,
        )
        for name, part in frame.groupby("series", sort=True)
    ]


def from_window(window: MetricWindow) -> Recording:
    """A window that was read from a source, as a recording."""
    known = np.any([np.isfinite(series) for series in window.values.values()], axis=0)
    return Recording(window.service, window, np.where(known, window.span.times(), np.nan))


def of_service(file: Path, step_s: float | None = None) -> Recording:
    """One service's recording: a timestamp column and one column per signal. Raises ConfigError."""
    if not file.is_file():
        raise ConfigError("there is no such file", where=str(file))
    table = csv_text.read(file)
    if TIMESTAMP not in table.columns:
        raise ConfigError("the column timestamp is missing", where=str(file))
    signals = [name for name in table.columns if name not in (TIMESTAMP, "series", "service")]
    if not signals:
        raise ConfigError("there is no column besides timestamp", where=str(file))
    name = file.name.removesuffix(".gz").removesuffix(".csv")
    columns = {signal: csv_text.numbers(signal, table.columns[signal], table.comma, file) for signal in signals}
    return to_grid(name, csv_text.seconds(table.columns[TIMESTAMP], file), columns, step_s)


def to_grid(name: str, seconds: FloatArray, columns: dict[str, FloatArray], step_s: float | None = None) -> Recording:
    """Samples at any times onto a regular grid of their own (or the given) step; the means of what falls together.

    seconds: shape (n,), any order, repeats allowed (the last one counts). columns: by signal, shape (n,).
    """
    odd: Oddities = {}
    readable = np.isfinite(seconds)
    _count(odd, "unreadable timestamps", int((~readable).sum()))
    _count(odd, "out of order", int((np.diff(seconds[readable]) < 0).sum()))
    order = np.flatnonzero(readable)[np.argsort(seconds[readable], kind="stable")]
    at = seconds[order]
    last = np.append(np.diff(at) > 0, True)
    _count(odd, "repeated timestamps", int((~last).sum()))
    order, at = order[last], at[last]
    own_s = step_of(at)
    step_s = max(step_s or own_s, own_s)
    _count(odd, "irregular steps", int((np.abs(np.diff(at) / own_s - 1) > 0.1).sum()))
    points = round((at[-1] - at[0]) / step_s) + 1
    if points > MAX_POINTS:
        raise ConfigError(
            f"{name} spans {(at[-1] - at[0]) / 86400:.0f} days at a step of {step_s:g} s, which is more than "
            f"{MAX_POINTS:,} points; cut the recording or give a longer step"
        )
    # a bin holds the samples up to and including its time, so that nothing is judged before it happened
    cell = np.clip(np.ceil((at - at[0]) / step_s - 0.5), 0, points - 1).astype(np.int64)
    span = Span(float(at[0]), float(at[0]) + (points - 1) * step_s, step_s)
    values = {signal: _means(series[order], cell, points, odd) for signal, series in columns.items()}
    stamps = np.full(points, np.nan)
    stamps[cell] = at
    _count(odd, "gaps", int(np.isnan(stamps).sum()))
    return Recording(name, MetricWindow(name, span, values), stamps, odd)


def _count(odd: Oddities, kind: str, number: int) -> None:
    if number:
        odd[kind] = odd.get(kind, 0) + number


def step_of(at: FloatArray) -> float:
    """The usual distance of ascending times, over four of them so that jitter averages out; 60 s for one."""
    lag = min(4, at.size - 1)
    return float(max(np.median(at[lag:] - at[:-lag]) / lag, 1e-3)) if lag > 0 else 60.0


def _means(values: FloatArray, cell: NDArray[np.int64], points: int, odd: Oddities) -> FloatArray:
    _count(odd, "infinite values", int(np.isinf(values).sum()))
    _count(odd, "missing values", int(np.isnan(values).sum()))
    known = np.isfinite(values)
    sums = np.bincount(cell[known], values[known], points)
    counts = np.bincount(cell[known], minlength=points)
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
