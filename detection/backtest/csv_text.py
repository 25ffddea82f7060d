"""CSV as people export it: separators, headers, units in the values, decimal commas, epochs of any unit.

What can be read is read as it was meant; what could mean two things is refused in a sentence, because a number that is
wrong by a thousand looks like any other.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from detection.errors import ConfigError
from detection.model import FloatArray
from detection.outside_text import printable
from detection.signals import SIGNALS

MAX_BYTES = 1 << 30
TIMESTAMP = "timestamp"
_TIMES = ("timestamp", "time", "_time", "datetime", "date", "ts", "date_time", "@timestamp", "epoch")
_VALUES = ("value", "_value")
_SEPARATORS = ",;\t|"
_GAPS = ("", "nan", "null", "none", "na", "n/a", "-", "undefined", "inf", "+inf", "-inf", "infinity")
_NUMBER = re.compile(r"^([+-]?(?:\d[\d.,' \u00a0\u202f]*|[.,]\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s].*)?$")
_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "secs": 1e3, "min": 60e3,
       "mins": 60e3, "m": 60e3, "h": 3600e3, "hour": 3600e3, "hours": 3600e3}  # fmt: skip
_COUNT = {"": 1.0, "k": 1e3, "mil": 1e6, "m": 1e6, "bil": 1e9, "g": 1e9}
_RATE = ("/s", "ps", "req/s", "reqps", "rps", "ops", "ops/s", "qps", "requests/s", "1/s", "hz")
_ISO = re.compile(r"^\d{4}-?\d\d-?\d\d")
_DATE = re.compile(r"^(\d{1,2})([./-])(\d{1,2})\2(\d{2,4})(.*)$")


@dataclass(frozen=True)
class Table:
    """columns: texts by name. comma: whether a comma in a number stands before its decimals."""

    columns: dict[str, pd.Series]
    comma: bool


def read(file: Path) -> Table:
    """The file's columns as texts; the column of times is `timestamp`. ConfigError with what is wrong."""
    text = _text(file)
    lines = text.splitlines()
    first = 0
    separator = ""
    while first < len(lines) and (not lines[first].strip() or lines[first].startswith("#") or _told(lines[first])):
        separator = _told(lines[first]) or separator
        first += 1
    if first >= len(lines) - 1:
        raise ConfigError("holds no rows", where=str(file))
    separator = separator or max(_SEPARATORS, key=lambda s: _outside_quotes(lines[first]).count(s))
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(lines[first:])),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
        )
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"cannot be read as CSV ({printable(error, 120)})", where=str(file)) from error
    if frame.empty:
        raise ConfigError("holds no rows", where=str(file))
    names = [_name(str(name)) for name in frame.columns]
    columns: dict[str, pd.Series] = {}
    for name, column in zip(names, (frame.iloc[:, i] for i in range(frame.shape[1])), strict=True):
        if name in columns:
            raise ConfigError(f"the column {printable(name, 60)!r} is there twice", where=str(file))
        columns[name] = column.fillna("").str.strip()
    return Table(columns, comma=separator != ",")


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"is larger than {MAX_BYTES >> 20} MB; cut it", where=str(file))
        data = file.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = unpacked.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ConfigError(f"is larger than {MAX_BYTES >> 20} MB unpacked; cut it", where=str(file))
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot be read ({type(error).__name__})", where=str(file)) from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=str(file)) from error


def _told(line: str) -> str:
    """The separator that a first line `sep=;` names, as spreadsheets write it."""
    match = re.match(r'^"?sep=(.)"?\s*$', line, re.IGNORECASE)
    return match[1] if match else ""


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _name(header: str) -> str:
    word = header.strip().strip('"')
    lower = word.lower()
    return TIMESTAMP if lower in _TIMES else "value" if lower in _VALUES else lower if lower in SIGNALS else word


def numbers(name: str, column: pd.Series, comma: bool, file: Path) -> FloatArray:
    """A column's numbers in the signal's own unit (ms, share, 1/s); NaN for gaps.

    ConfigError where a unit is none that the signal can have, or where less than half can be read at all.
    """
    unit_of = SIGNALS[name].unit if name in SIGNALS else ""
    texts, places = np.unique(column.to_numpy(dtype=object).astype(str), return_inverse=True)
    found = np.full(texts.size, np.nan)
    unreadable: list[str] = []
    units: set[str] = set()
    for index, text in enumerate(texts):
        if text.strip().lower() in _GAPS:
            continue
        match = _NUMBER.match(text.strip())
        value = _plain(match[1], comma) if match else None
        if match is None or value is None:
            unreadable.append(text)
            continue
        unit = (match[2] or "").strip()
        units.add(unit)
        factor = _factor(unit, unit_of)
        if factor is None:
            wanted = {"ms": "a time", "share": "a share", "1/s": "a rate"}.get(unit_of, "a plain number")
            raise ConfigError(
                f"the value {printable(text, 40)!r} of {printable(name, 40)} has a unit that is not {wanted}; "
                "export plain numbers",
                where=str(file),
            )
        found[index] = value * factor
    if name not in SIGNALS and len(units) > 1:
        said = ", ".join(sorted(printable(unit or "none", 20) for unit in units)[:4])
        raise ConfigError(f"the values of {printable(name, 40)} have several units ({said})", where=str(file))
    counts = np.bincount(places.ravel(), minlength=texts.size)
    lost = int(counts[np.isin(texts, unreadable)].sum()) if unreadable else 0
    if lost * 2 > column.size:
        raise ConfigError(
            f"most values of {printable(name, 40)} are no numbers (for example {printable(unreadable[0], 40)!r})",
            where=str(file),
        )
    return np.asarray(found[places.ravel()], dtype=np.float64)


def _plain(text: str, comma: bool) -> float | None:
    """A number with its separators read: 1,234.5 and 1.234,5 and 1234,5."""
    digits = re.sub(r"[' \u00a0\u202f]", "", text)
    dots, commas = digits.count("."), digits.count(",")
    if commas and dots:
        decimal = "," if digits.rfind(",") > digits.rfind(".") else "."
    elif commas > 1 or (commas and not comma and re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", digits)):
        decimal = "."
    else:
        decimal = "," if commas else "."
    if digits.count(decimal) > 1:
        return None
    other = "." if decimal == "," else ","
    try:
        return float(digits.replace(other, "").replace(decimal, "."))
    except ValueError:
        return None


def _factor(unit: str, wanted: str) -> float | None:
    """From a unit to the signal's; None where it cannot be one. A value without a unit is in the signal's own."""
    word = unit.lower()
    if not word:
        return 1.0
    if wanted == "ms":
        return _MS.get(word)
    if wanted in ("share", ""):
        if word == "%":
            return 0.01 if wanted == "share" else 1.0
        return None if wanted == "share" else 1.0
    for ending in sorted(_RATE, key=len, reverse=True) if wanted == "1/s" else ():
        if word.endswith(ending):
            return _COUNT.get(word.removesuffix(ending).strip())
    if word in ("rows", "requests", "req", "reqs", "replicas", "x"):
        return 1.0
    return _COUNT.get(word)


def seconds(column: pd.Series, file: Path) -> FloatArray:
    """Times as epoch seconds, NaN where one cannot be read; times without a zone are UTC.

    Epochs may be in seconds, milliseconds, microseconds or nanoseconds: only one of them lies between 1973 and 2286.
    """
    numeric = pd.to_numeric(column.str.replace(",", ".", regex=False), errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numeric).mean() > 0.5:
        return _epochs(numeric, file)
    filled = [text for text in column if text]
    stamps = _iso(column) if filled and _ISO.match(filled[0]) else _dated(column, filled, file)
    # As with epochs: what lies outside is no time of any recording, and beyond 2262 no time that can be counted in ns.
    stamps = stamps.where(stamps.dt.year.between(1970, 2261))
    delta = (stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1s")
    found: FloatArray = np.asarray(delta.to_numpy(dtype=np.float64), dtype=np.float64)
    if not np.isfinite(found).any():
        shown = printable(filled[0], 40) if filled else ""
        raise ConfigError(
            f"no timestamp can be read (the first is {shown!r}); use ISO 8601 or epoch seconds", where=str(file)
        )
    _no_summer_time(column, found, file)
    return found


def _iso(column: pd.Series) -> pd.Series:
    # pandas takes words such as "today" for a time as well
    return pd.to_datetime(column.where(column.str.match(r"\d"), ""), utc=True, errors="coerce", format="ISO8601")


def _epochs(numeric: FloatArray, file: Path) -> FloatArray:
    usual = float(np.nanmedian(np.abs(numeric)))
    scale = next((s for s in (1.0, 1e3, 1e6, 1e9) if usual / s < 1e10), None)
    if scale is None:
        raise ConfigError("its timestamps are no time since 1970 in seconds, ms, us or ns", where=str(file))
    found = numeric / scale
    # years 1970 to 2286; what lies outside is no time of any recording
    found = np.where((found >= 0) & (found < 1e10), found, np.nan)
    if not np.isfinite(found).any():
        raise ConfigError("its timestamps are no time since 1970 in seconds, ms, us or ns", where=str(file))
    return found


def _dated(column: pd.Series, filled: list[str], file: Path) -> pd.Series:
    """Dates of the kinds 30.11.2026 and 11/30/2026, where the whole column says which number is the day."""
    parts = [match for text in filled if (match := _DATE.match(text))]
    if not parts:
        return _iso(column)
    firsts, seconds_ = max(int(m[1]) for m in parts), max(int(m[3]) for m in parts)
    if parts[0][2] != "." and firsts <= 12 and seconds_ <= 12:
        raise ConfigError(
            f"{printable(filled[0], 40)!r} can be two dates (which number is the day?); use ISO 8601 or epoch seconds",
            where=str(file),
        )
    day_first = parts[0][2] == "." or firsts > 12
    dates = column.where(column.str.match(_DATE), "")
    return pd.to_datetime(dates, utc=True, errors="coerce", dayfirst=day_first, format="mixed")


def _no_summer_time(column: pd.Series, found: FloatArray, file: Path) -> None:
    """Local times repeat an hour in autumn: which of the two a sample belongs to is lost."""
    if column.str.contains(r"(?:Z|[+-]\d\d:?\d\d)$", regex=True).any():
        return
    at = found[np.isfinite(found)]
    steps = np.diff(at)
    usual = float(np.median(steps)) if steps.size else 0.0
    back = np.flatnonzero(np.abs(steps + 3600.0 - usual) < 1.0)
    if 0 < usual < 3600.0 and back.size and (steps < 0).sum() == back.size and back.size <= 1 + at.size * usual / 15e6:
        when = pd.Timestamp(at[back[0]], unit="s")
        raise ConfigError(
            f"its times go back by an hour after {when:%Y-%m-%d %H:%M}: these are local times over the end of summer "
            "time; export them in UTC or with their offset",
            where=str(file),
        )
