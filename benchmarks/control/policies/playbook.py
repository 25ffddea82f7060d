"""slotune's loop with the fixed rules of the playbook in the planner's place."""

from __future__ import annotations

from benchmarks.control.policies.slotune import slotune
from benchmarks.control.runs import Run
from benchmarks.control.scenarios import Scenario
from benchmarks.control.simulator import SimulatedService


def playbook(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    return slotune(scenario, service, seed, planner="playbook")
