"""What a signal is: its name, its unit, which way is worse, and how small a change is no news."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["up", "down", "both", "none"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of a service.

    worse: the direction in which a change hurts ("both": either is suspicious; "none": context, never an anomaly).
    log: compare on a log1p scale (heavy-tailed, positive).
    floor: the smallest absolute change that is news, in the signal's unit.
    without: what is off where a service does not export it.
    """

    name: str
    unit: str
    worse: Direction
    title: str
    log: bool = False
    floor: float = 0.0
    without: str = ""
