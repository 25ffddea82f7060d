"""When a knob stands where it should: the one comparison of wanted and found values."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tuning.model import Knob

TOLERANCE = 1e-6
"""Relative: control endpoints round, and a float travels through JSON and labels."""


def same_knobs(wanted: Mapping[str, Knob], found: Mapping[str, Knob]) -> bool:
    """Whether every wanted knob that somebody can set is found at its value.

    `replicas` beside `min_replicas` is information: the autoscaler moves it by itself.
    """
    ignored = {"replicas"} if "min_replicas" in wanted else set()
    return all(name in found and same(value, found[name]) for name, value in wanted.items() if name not in ignored)


def same(one: object, other: object) -> bool:
    """3, 3.0 and "3" are one value; two texts are compared as texts, for "1" and "1.0" may be two versions."""
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    left, right = _number(one), _number(other)
    if left is None or right is None:
        return one == other
    return left == right or abs(left - right) <= TOLERANCE * max(1.0, abs(left), abs(right))


def _number(value: object) -> float | None:
    """None for what is no finite number; a switch (true, false) is none either."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
