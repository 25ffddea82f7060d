"""Cron expressions as Airflow takes them: five fields, or one of its words."""

from __future__ import annotations

import re
from datetime import datetime

_SPELT_OUT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
_WORDS = ("@once", *_SPELT_OUT)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_PART = re.compile(r"^(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?$")


def cron_problem(text: str) -> str:
    """What is wrong with a cron expression; "" where it is one."""
    if text.strip() in _WORDS:
        return ""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return "is not a cron expression: write five fields, for example '0 7 * * 1' (Mondays at 07:00)"
    for value, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        if not all(_fits(part, low, high, words) for part in value.split(",")):
            return f"is not a cron expression: its {name} must be * or of {low} to {high}, for example '0 7 * * 1'"
    return ""


def matches(text: str, moment: datetime) -> bool:
    """Whether a cron expression names the minute of `moment`. "@once" names none: it is for a person's own trigger.

    As cron has it: where both days are restricted, one of them is enough.
    """
    fields = _SPELT_OUT.get(text.strip(), text).split()
    if len(fields) != len(_FIELDS):
        return False
    weekday = moment.isoweekday() % 7
    actual = (moment.minute, moment.hour, moment.day, moment.month, weekday)
    named = [
        any(_names(part, value, low, high, words) for part in field.split(","))
        for field, value, (_, low, high, words) in zip(fields, actual, _FIELDS, strict=True)
    ]
    # Sunday is 0 and 7.
    named[4] = named[4] or (weekday == 0 and any(_names(part, 7, 0, 7, _DAYS) for part in fields[4].split(",")))
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    days = named[2] or named[4] if either else named[2] and named[4]
    return named[0] and named[1] and named[3] and days


def _names(part: str, value: int, low: int, high: int, words: list[str]) -> bool:
    match = _PART.match(part)
    if match is None:
        return False
    step = int(match[3] or 1)
    if match[1] is None:
        first, last = low, high
    else:
        first = _number(match[1], low, words) or 0
        end = _number(match[2], low, words) if match[2] else (high if match[3] else first)
        last = first if end is None else end
    return first <= value <= last and (value - first) % max(step, 1) == 0


def _fits(part: str, low: int, high: int, words: list[str]) -> bool:
    match = _PART.match(part)
    if match is None or (match[3] is not None and int(match[3][:4]) == 0):
        return False
    numbers = [_number(word, low, words) for word in match.groups()[:2] if word is not None]
    return all(number is not None and low <= number <= high for number in numbers)


def _number(word: str, low: int, words: list[str]) -> int | None:
    if word.lower() in words:
        return words.index(word.lower()) + low
    return int(word) if word.isascii() and word.isdigit() and len(word) < 4 else None
