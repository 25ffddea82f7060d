"""What planning costs: `slotune plan` as a process, and 100 different incidents planned in one process. CPU seconds."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.control.cases import begin
from benchmarks.control.cells import ROOT
from benchmarks.control.policies.slotune import make_parts
from benchmarks.control.scenarios import ONSET_S, SCENARIOS, Scenario
from benchmarks.simulated import START_S
from detection.model import Incident
from tuning.loop.observe import observe
from tuning.model import Observation
from tuning.ports import Planner

INCIDENTS = 100
_SEEN_S = 75.0


def measure() -> dict[str, object]:
    """CPU seconds (user and system) of one `slotune plan` process and of 100 plans in this one."""
    slotune = Path(sys.executable).with_name("slotune")
    command: list[str | Path] = [slotune, "plan", "--observation", "docs/examples/observation.json", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    process_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    asked = [incident(SCENARIOS[k % len(SCENARIOS)], 1 + k // len(SCENARIOS)) for k in range(INCIDENTS)]
    began = time.process_time()
    changed = sum(bool(planner.propose(one, seen, ()).chosen.changes) for planner, one, seen in asked)
    took_s = time.process_time() - began
    return {
        "slotune_plan_cpu_s": round(process_s, 2),
        "incidents": INCIDENTS,
        "incidents_with_a_change": changed,
        "incidents_cpu_s": round(took_s, 2),
    }


def incident(scenario: Scenario, seed: int) -> tuple[Planner, Incident, Observation]:
    """A scenario as it looks 75 s after the fault."""
    service = begin(scenario, seed)
    service.advance(ONSET_S + _SEEN_S)
    parts, _ = make_parts(scenario, service)
    at_s = START_S + service.now_s
    found = Incident(
        id=f"{scenario.name} {seed}",
        service="simulated",
        symptom="latency",
        tier="act",
        severity="critical",
        opened_at_s=START_S + ONSET_S,
        detected_at_s=at_s,
        signals=("p95_ms",),
        anomalies=(),
        reason="measured for its cost",
    )
    return parts.planner, found, observe(parts, parts.services["simulated"], at_s)
