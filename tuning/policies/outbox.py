"""When a report is tried again: after a pause where it failed, after a long one where nobody said how it went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 3600.0
LOST_AFTER_S = 600.0
"""A try without an end after this long died with its process: it may have been sent, and a report told twice is better
than one that is lost."""
STEADY_TRIES = 20
"""So many tries follow each other after the first pause; an outage that outlasts them is a long one."""
_DOUBLINGS = math.ceil(math.log2(LONGEST_PAUSE_S / FIRST_PAUSE_S))
"""After so many the pause is the longest: no power of two becomes larger than a number can be."""


class Try(NamedTuple):
    number: int
    began_s: float
    failed: bool


def next_try(tries: Sequence[Try], at_s: float) -> int | None:
    """The number of the try to make now; None while one is under way, or too soon after one that failed."""
    if not tries:
        return 1
    last = max(tries)
    pause_s = min(FIRST_PAUSE_S * 2.0 ** min(max(last.number - STEADY_TRIES, 0), _DOUBLINGS), LONGEST_PAUSE_S)
    wait_s = pause_s if last.failed else LOST_AFTER_S
    return last.number + 1 if abs(at_s - last.began_s) >= wait_s else None
