"""Any lever to any value."""

from __future__ import annotations

import numpy as np

from benchmarks.control.runs import INT8_DELAY_S, SWEEP_S, Eyes, Run, set_batch, set_int8, set_replicas
from benchmarks.control.scenarios import END_S, Scenario
from benchmarks.control.simulator import SimulatedService


def random_lever(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """A minute over the SLO: any lever to any value, three tries at most, two minutes apart."""
    run, eyes, rng = Run(service), Eyes(service), np.random.default_rng(seed)
    ready_s, tries = 0.0, 0
    while service.now_s < END_S:
        service.advance(service.now_s + SWEEP_S)
        p95 = eyes.look("p95_ms", seconds=60.0)["p95_ms"]
        late = np.isfinite(p95).all() and (p95 > scenario.slo_ms).all()
        if service.now_s < ready_s or not late or tries >= 3:
            continue
        lever = rng.choice(["batch_size", "replicas"] + (["precision"] if scenario.precision else []))
        if lever == "batch_size":
            set_batch(run, int(rng.integers(1, scenario.batch_max + 1)), service.timeout_ms)
        elif lever == "replicas":
            set_replicas(run, int(rng.integers(1, scenario.replicas_max + 1)))
        else:
            set_int8(run)
        ready_s, tries = service.now_s + 120.0 + (INT8_DELAY_S if lever == "precision" else 0.0), tries + 1
    return run
