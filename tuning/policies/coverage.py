"""Whether a lever's predictions hold as often as their intervals promise; where they do not, slotune asks first.

An interval at 90 % should hold nine times of ten. Held much less often it is no ground to act on; held always it is so
wide that it says nothing, and cures are missed for it. Pure: the state is a fold over the verdicts, oldest first, so
that nothing has to be remembered and the same history always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Literal

Off = Literal["narrow", "wide", ""]
LOW, HIGH = 0.85, 0.97
"""Between these the coverage of a 90 % interval is as good as promised."""
ENOUGH = 15
"""Verdicts since the last turn; fewer say nothing."""
NEWEST = 100
"""Verdicts that count: what the model was long ago is not what it is."""
LATEST = 20
"""Verdicts by which a lever comes back."""
BY_CHANCE = 0.05
"""A share outside the band holds a lever back only where a coverage at the edge of the band would come to it, or to
worse, more seldom than this: 9 of 15 are too few, all of 100 are too many, 29 of 29 say nothing yet."""


@dataclass(frozen=True)
class Coverage:
    """inside, of: of the newest verdicts. off: whether the intervals are too narrow, or so wide that they say little.
    turned: after how many verdicts in all that began, or ended; 0 where it never began."""

    inside: int
    of: int
    off: Off
    turned: int

    @property
    def asks(self) -> bool:
        """Whether slotune asks before it pulls the lever."""
        return bool(self.off)

    @property
    def share(self) -> float | None:
        return self.inside / self.of if self.of else None

    @property
    def text(self) -> str:
        return f"{self.inside} of the last {self.of} predictions lay in their interval"


def coverage(held: Sequence[bool]) -> Coverage:
    """Of a lever's verdicts, oldest first: whether each observed P95 lay in its predicted interval.

    With each turn the counting begins anew: what held a lever back does not hold it for ever. Intervals that were too
    narrow have to have held in the LATEST verdicts; those that were too wide have to have failed often enough.
    """
    off: Off = ""
    turned = 0
    for count in range(1, len(held) + 1):
        newest = held[max(turned, count - (LATEST if off == "narrow" else NEWEST)) : count]
        if len(newest) >= ENOUGH and (now := _off(sum(newest), len(newest), off)) != off:
            off, turned = now, count
    newest = held[max(turned, len(held) - NEWEST) :]
    if off and len(newest) < ENOUGH:  # what it was held back for is told until there is more
        newest = held[max(0, turned - NEWEST) :]
    return Coverage(sum(newest), len(newest), off, turned)


def _off(inside: int, of: int, before: Off) -> Off:
    share = inside / of
    if before == "narrow":
        return before if share < LOW else ""
    if before == "wide":
        return before if share > HIGH else ""
    if LOW <= share <= HIGH or not _unlikely(inside, of):
        return ""
    return "narrow" if share < LOW else "wide"


@cache
def _unlikely(inside: int, of: int) -> bool:
    """Whether a coverage at the nearer edge comes to this, or to worse, more seldom than BY_CHANCE: a binomial tail."""
    few = inside / of < LOW
    counts, edge = (range(inside + 1), LOW) if few else (range(inside, of + 1), HIGH)
    return sum(comb(of, k) * edge**k * (1 - edge) ** (of - k) for k in counts) <= BY_CHANCE
