"""One case through every policy: what each did, scored, from finished cells where there are some."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.control import score
from benchmarks.control.cases import Case, begin
from benchmarks.control.cells import LOOP, Cells
from benchmarks.control.oracle import oracle
from benchmarks.control.policies import POLICIES
from benchmarks.control.runs import SWEEP_S, Run, alarm_s
from benchmarks.control.scenarios import ONSET_S, Scenario
from benchmarks.control.simulator import SimulatedService

LATE_S = 60.0
"""When the oracle acts where the SLO's rule never speaks, in seconds after the onset."""


@dataclass
class _Stage:
    """A case's scenario, its service at the onset and the run without any change: simulated once, if anybody asks."""

    case: Case
    kept: dict[str, object] = field(default_factory=dict)

    def _once(self, name: str, make: Callable[[], object]) -> object:
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    @property
    def scenario(self) -> Scenario:
        found = self._once("scenario", self.case.scenario)
        assert isinstance(found, Scenario)
        return found

    def start(self) -> SimulatedService:
        """A twin of the service at the onset."""
        found = self._once("start", lambda: begin(self.scenario, self.case.seed))
        assert isinstance(found, SimulatedService)
        return copy.deepcopy(found)

    @property
    def idle(self) -> Run:
        found = self._once("idle", lambda: POLICIES["nothing"](self.scenario, self.start(), self.case.seed))
        assert isinstance(found, Run)
        return found


def one(case: Case, names: Sequence[str], ground: Cells, loop: Cells) -> list[dict[str, object]]:
    """The rows of a case, in the order of `names`."""
    stage = _Stage(case)
    rows = {name: _row(stage, name, loop if name in LOOP else ground) for name in names if name in POLICIES}
    if "oracle" in names:
        rows["oracle"] = _oracle_row(stage, ground)
        curable, eased = (bool(rows["oracle"].pop(name)) for name in ("curable", "eased"))
        for row in rows.values():
            row["kind"] = score.kind_of(str(row["kind"]), curable, eased)
    return [rows[name] for name in names if name in rows]


def _row(stage: _Stage, name: str, cells: Cells) -> dict[str, object]:
    case = stage.case
    kept = cells.get(case.name, case.seed, name)
    if kept is None:
        run = stage.idle if name == "nothing" else POLICIES[name](stage.scenario, stage.start(), case.seed)
        kept = {**score.judge(stage.scenario, case.seed, name, run, stage.idle.service), "kinds": case.kinds()}
        cells.put(case.name, case.seed, name, kept)
    return kept


def _oracle_row(stage: _Stage, cells: Cells) -> dict[str, object]:
    case = stage.case
    kept = cells.get(case.name, case.seed, "oracle")
    if kept is None:
        run, curable, eased = oracle(stage.scenario, stage.start(), _first_sweep_s(stage))
        row = score.judge(stage.scenario, case.seed, "oracle", run, stage.idle.service)
        kept = {**row, "curable": curable, "eased": eased, "kinds": case.kinds()}
        cells.put(case.name, case.seed, "oracle", kept)
    return kept


def _first_sweep_s(stage: _Stage) -> float:
    """The first sweep after the SLO's rule speaks: nobody who watches it can act before, whoever that is."""
    spoke_s = alarm_s(stage.scenario, stage.idle.service)
    if spoke_s is None:
        return ONSET_S + LATE_S
    return ONSET_S + SWEEP_S * max(1, math.ceil((spoke_s - ONSET_S) / SWEEP_S))
