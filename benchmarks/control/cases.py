"""A case: a scenario with a seed, from the table of named ones or from the generator, and what is true of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from benchmarks.control.generator import draw
from benchmarks.control.runs import cured
from benchmarks.control.scenarios import END_S, ONSET_S, SCENARIOS, Scenario
from benchmarks.control.simulator import SimulatedService


@dataclass(frozen=True)
class Case:
    """stream: "named", "dev" or "report". number: place in the table, or number of the draw. seed: luck and size."""

    stream: str
    number: int
    seed: int = 1

    @property
    def name(self) -> str:
        return SCENARIOS[self.number].name if self.stream == "named" else f"{self.stream} {self.number}"

    def scenario(self) -> Scenario:
        """What happens; the causes of a drawn case are those that its simulation shows."""
        if self.stream == "named":
            return SCENARIOS[self.number]
        found = draw(self.stream, self.number)
        whole = found.scenario()
        if len(found.troubles) < 2:
            return whole
        return replace(whole, causes=causes_of_pair(self, [found.scenario((t,)) for t in found.troubles]))

    def kinds(self) -> str:
        """What was drawn, for people; of a named case its name."""
        if self.stream == "named":
            return self.name
        return " + ".join(t.kind for t in draw(self.stream, self.number).troubles) or "nothing wrong"


def begin(scenario: Scenario, seed: int) -> SimulatedService:
    """The service at the onset: the same history for every policy."""
    service = SimulatedService(
        scenario.profile,
        scenario.faults(seed),
        batch=scenario.batch,
        timeout_ms=scenario.timeout_ms,
        replicas=scenario.replicas,
        seed=1000 + seed,
    )
    service.int8 = scenario.int8
    service.advance(ONSET_S)
    if scenario.falls_back:
        service.set_int8(False, delay_s=0.0)
    if scenario.misset is not None:
        service.set_batch(*scenario.misset, delay_s=0.0)
    return service


def causes_of_pair(case: Case, alone: list[Scenario]) -> tuple[str, ...]:
    """Of two troubles those that are causes: one is if it breaks the SLO alone, or if without it the SLO holds."""
    breaks = []
    for scenario in alone:
        service = copy.deepcopy(begin(scenario, case.seed))
        service.advance(END_S)
        breaks.append(not cured(scenario, service))
    one, other = (scenario.causes[0] for scenario in alone)
    # Without the first there is the second alone, and the other way round.
    first, second = breaks
    told = ((one, first, second), (other, second, first))
    return tuple(dict.fromkeys(name for name, own, rest in told if own or not rest))
