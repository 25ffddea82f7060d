"""What control endpoints answer, made finite and bounded before anything else sees it.

A value that came from outside ends in the ledger, in a mail and in the next request. So whatever a body holds leaves
here as an int of at most 2**53, a finite float, or printable text of bounded length: or not at all, with a sentence.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_WHOLE = 2**53
"""Beyond it JSON readers disagree about a number."""
MAX_DEPTH = 64
_DIGITS = 40
_VERSION = re.compile(r"[0-9]{1,18}")


class Unusable(Exception):
    """The answer, or a value in it, cannot be used; the text says why, in a few words that quote nothing."""


def parse(data: bytes) -> Any:
    """JSON of at most MAX_DEPTH levels; None for an empty body. Raises Unusable: not JSON, wrong encoding, too deep."""
    if not data.strip():
        return None
    try:
        value = json.loads(data, parse_int=_whole_or_float)
    except RecursionError as error:
        raise Unusable(f"JSON nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise Unusable("something that is not JSON") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return value
    raise Unusable(f"JSON nested deeper than {MAX_DEPTH} levels")


def whole(value: object, *, low: int = 0, high: int = MAX_WHOLE) -> int | None:
    """An integer within bounds; None for everything else, true and 8.5 included (8.0 is 8: some servers write that)."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_WHOLE:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None


def number(value: object, *, low: float = 0.0, high: float = float(MAX_WHOLE)) -> float | None:
    """A finite number within bounds; None for everything else, true included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if low <= value <= high and math.isfinite(value) else None


def version(value: object) -> str | None:
    """A version's number as a repository index has it (text or integer); None where it is none of at most 18 digits."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_WHOLE:
        value = str(value)
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        return None
    return str(int(value))


def rows(value: object) -> list[dict[str, Any]]:
    """The objects of a list; everything else in it is left out. Raises Unusable where it is no list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unusable(f"{type(value).__name__}, not a list")
    return [row for row in value if isinstance(row, dict)]


def _whole_or_float(digits: str) -> int | float:
    """Python takes seconds over a number of a million digits; beyond `_DIGITS` it is no setting of anything."""
    return int(digits) if len(digits) <= _DIGITS else float(digits)


def _inner(value: object) -> list[Any]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, dict | list)]
    return [inner for inner in value if isinstance(inner, dict | list)] if isinstance(value, list) else []
