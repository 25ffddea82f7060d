"""A circuit: closed (its share of the requests), open (none), half-open (a few, to see). Pure.

Every state has its way back to closed: an open circuit is probed when its rest is over, and a probe ends it one way or
the other. A probe that nobody could measure proves nothing, and opens it again.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

from detection.model import FloatArray
from tuning.policies.tables import ANY, table

State = Literal["closed", "half_open", "open"]
Seen = Literal["resting", "due", "looking", "silent", "failing", "well"]
Step = Literal["wait", "probe", "open", "close", "end"]
STATES: tuple[State, ...] = ("closed", "half_open", "open")
_SEEN: tuple[Seen, ...] = ("resting", "due", "looking", "silent", "failing", "well")
LEAST_POINTS = 3
"""Fewest values of a route's signals that say anything of it."""
# (where the circuit stands, what is seen of it) -> what follows
NEXT: Mapping[tuple[Hashable, ...], Step] = table(
    (STATES, _SEEN),
    [
        (("closed", ANY), "end"),
        (("open", "due"), "probe"),
        (("open", frozenset(_SEEN) - {"due"}), "wait"),
        (("half_open", frozenset({"resting", "due", "looking"})), "wait"),
        (("half_open", frozenset({"silent", "failing"})), "open"),
        (("half_open", "well"), "close"),
    ],
)


def rest_s(open_for_s: float, longest_s: float, failed: int) -> float:
    """How long an open circuit rests before it is probed: twice as long after every probe that failed."""
    return float(min(longest_s, open_for_s * 2.0 ** min(failed, 30)))


def seen(
    state: State,
    since_s: float,
    at_s: float,
    *,
    rests_s: float,
    probe_s: float,
    settle_s: float,
    values: Sequence[tuple[FloatArray, float]],
) -> Seen:
    """What is seen of a circuit that has stood so since `since_s`. values: of each of the route's signals, those since
    the state was in effect (settle_s after its begin) and the limit, NaN where there was none."""
    if state != "half_open":
        return "due" if at_s - since_s >= rests_s else "resting"
    known = [(found[np.isfinite(found)], limit) for found, limit in values]
    told = [(found, limit) for found, limit in known if found.size >= LEAST_POINTS]
    if any(bool((found[-LEAST_POINTS:] > limit).all()) for found, limit in told):
        return "failing"
    if at_s - since_s < settle_s + probe_s:
        return "looking"
    if len(told) < len(known) or not told:
        return "silent"
    return "well" if all(float(np.median(found)) <= limit for found, limit in told) else "failing"
