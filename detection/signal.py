"""What a signal is: its name, its unit, which way is worse, and how small a change is no news."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["up", "down", "both", "none"]
SignalClass = Literal["model", "inference", "resource", "data", "business"]
DIRECTIONS: tuple[Direction, ...] = ("up", "down", "both", "none")
CLASSES: tuple[SignalClass, ...] = ("model", "inference", "resource", "data", "business")


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of a service.

    worse: the direction in which a change hurts ("both": either is suspicious; "none": context, never an anomaly).
    log: compare on a log1p scale (heavy-tailed, positive).
    floor: the smallest absolute change that is news, in the signal's unit.
    without: what is off where a service does not export it.
    kind: its class: what the model is, how it serves, what it takes, what it eats, what it is worth.
    """

    name: str
    unit: str
    worse: Direction
    title: str
    log: bool = False
    floor: float = 0.0
    without: str = ""
    kind: SignalClass = "inference"
