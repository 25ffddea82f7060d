"""The production loop on a simulated service: its levers, and time that only passes while the loop waits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

from detection.model import Service
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Change, Knob, Receipt, Setting

START_S = 1_700_000_000.0
"""Epoch time of the simulation's second 0."""


class Simulation(Protocol):
    """now_s: seconds since its start."""

    now_s: float

    def advance(self, until_s: float) -> None: ...


class SimulatedLever(ABC):
    """One lever of a simulated service, absolute and idempotent like the real ones."""

    name = "simulated"

    def __init__(self, simulation: Simulation, lever: str) -> None:
        self.lever, self._simulation = lever, simulation

    @abstractmethod
    def _setting(self) -> Setting:
        """The setting now."""

    @abstractmethod
    def _put(self, knobs: Mapping[str, Knob]) -> None:
        """Change knobs to these values."""

    def read(self, service: Service) -> Setting:
        return self._setting()

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before = {knob: value for knob, value in self._setting().values.items() if knob in change.new}
        self._put(change.new)
        return Receipt(
            id=key,
            plan_id="",
            service=service.name,
            lever=self.lever,
            before=before,
            after=dict(change.new),
            applied=True,
            changed=before != change.new,
            at_s=START_S + self._simulation.now_s,
        )


class _Over(Exception):
    """The scenario ends while the loop waits."""


def run_until(parts: Parts, simulation: Simulation, end_s: float, sweep_s: float) -> None:
    """tuning.loop.run_once, sweep after sweep, as in production, until the simulation's second `end_s`."""

    def now() -> float:
        return START_S + simulation.now_s

    def wait_until(at_s: float) -> None:
        target = math.ceil(at_s - START_S)
        if target >= end_s:
            simulation.advance(end_s)
            raise _Over
        simulation.advance(target)

    try:
        while simulation.now_s < end_s:
            before = simulation.now_s
            run_once(parts, now, wait_until)
            simulation.advance(min(end_s, max(simulation.now_s, before + sweep_s)))
    except _Over:
        pass
