"""Freeze hours: parsing them, and whether a time lies in one. Wall-clock times of a named zone, DST included."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK_MIN = 7 * 24 * 60
_CLOCK = r"(\d{1,2}):(\d{2})"
_DAY = "(" + "|".join(DAYS) + ")[a-z]*"
_WEEKLY = re.compile(rf"^{_DAY}\s+{_CLOCK}\s*[-–]\s*{_DAY}\s+{_CLOCK}$", re.IGNORECASE)
_DAILY = re.compile(rf"^{_CLOCK}\s*[-–]\s*{_CLOCK}$")
_WHOLE = re.compile(rf"^{_DAY}(?:\s*[-–]\s*{_DAY})?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Freeze:
    """A stretch of the week in minutes since Monday 00:00 (end excluded, may wrap), or two absolute local times."""

    text: str
    spans_min: tuple[tuple[int, int], ...] = ()
    start: datetime | None = None
    end: datetime | None = None

    def holds(self, local: datetime) -> bool:
        if self.start is not None and self.end is not None:
            return self.start <= local.replace(tzinfo=None) < self.end
        minute = local.weekday() * 1440 + local.hour * 60 + local.minute
        return any(start <= minute < end or start <= minute + WEEK_MIN < end for start, end in self.spans_min)


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone: write a name such as Europe/Berlin or UTC") from None


def parse_freeze(text: str) -> Freeze:
    """Raises ValueError with an example of what is right."""
    stripped = text.strip()
    if "/" in stripped:
        return _absolute(text, stripped)
    if match := _WEEKLY.match(stripped):
        day, hour, minute, end_day, end_hour, end_minute = match.groups()
        return Freeze(text, (_span(_minute(day, hour, minute, text), _minute(end_day, end_hour, end_minute, text)),))
    if match := _DAILY.match(stripped):
        start, end = _clock(match[1], match[2], text), _clock(match[3], match[4], text)
        end += 1440 if end <= start else 0
        return Freeze(text, tuple((day * 1440 + start, day * 1440 + end) for day in range(7)))
    if match := _WHOLE.match(stripped):
        first = DAYS.index(match[1].lower())
        last = DAYS.index((match[2] or match[1]).lower())
        return Freeze(text, (_span(first * 1440, (last + 1) * 1440),))
    raise ValueError(_wrong(text))


def frozen_until(at_s: float, freezes: Sequence[Freeze], tz: ZoneInfo) -> tuple[Freeze, float] | None:
    """The freeze that holds at `at_s` and when (epoch seconds) nothing is frozen any more; None when none holds."""
    first = next((freeze for freeze in freezes if freeze.holds(datetime.fromtimestamp(at_s, tz))), None)
    if first is None:
        return None
    minute_s = (at_s // 60) * 60
    # A minute is the grammar's resolution; two weeks are longer than any weekly freeze.
    for step in range(1, 2 * WEEK_MIN):
        local = datetime.fromtimestamp(minute_s + step * 60, tz)
        if not any(freeze.holds(local) for freeze in freezes):
            return first, minute_s + step * 60
    return first, minute_s + timedelta(days=14).total_seconds()


def _absolute(text: str, stripped: str) -> Freeze:
    try:
        start, end = (datetime.fromisoformat(part.strip()) for part in stripped.split("/"))
    except ValueError:
        raise ValueError(_wrong(text)) from None
    if start.tzinfo or end.tzinfo or end <= start:
        raise ValueError(_wrong(text))
    return Freeze(text, start=start, end=end)


def _span(start: int, end: int) -> tuple[int, int]:
    return (start, end) if end > start else (start, end + WEEK_MIN)


def _clock(hour: str, minute: str, text: str) -> int:
    if int(hour) > 24 or int(minute) > 59 or (int(hour) == 24 and int(minute)):
        raise ValueError(_wrong(text))
    return int(hour) * 60 + int(minute)


def _minute(day: str, hour: str, minute: str, text: str) -> int:
    return DAYS.index(day.lower()) * 1440 + _clock(hour, minute, text)


def _wrong(text: str) -> str:
    return (
        f'{text!r} is not a freeze: write "Fri 18:00-Mon 08:00", "22:00-06:00", "Sat" or '
        '"2026-12-23 12:00/2027-01-04 08:00"'
    )
