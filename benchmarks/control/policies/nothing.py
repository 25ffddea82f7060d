"""Nobody does anything."""

from __future__ import annotations

from benchmarks.control.runs import Run
from benchmarks.control.scenarios import END_S, Scenario
from benchmarks.control.simulator import SimulatedService


def nothing(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    service.advance(END_S)
    return Run(service, held=True)
