"""Cron expressions as Airflow takes them: five fields, or one of its words."""

from __future__ import annotations

import re

_WORDS = ("@once", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
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
