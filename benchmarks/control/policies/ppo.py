"""slotune's loop with the learned planner `ppo` in the planner's place: here it is carried out."""

from __future__ import annotations

from benchmarks.control.policies.slotune import slotune
from benchmarks.control.runs import Run
from benchmarks.control.scenarios import Scenario
from benchmarks.control.simulator import SimulatedService


def ppo(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    return slotune(scenario, service, seed, planner="ppo")
