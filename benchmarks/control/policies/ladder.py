"""Fixed rungs: a larger batch, then INT8."""

from __future__ import annotations

import numpy as np

from benchmarks.control.runs import INT8_DELAY_S, SWEEP_S, Eyes, Run, set_batch, set_int8
from benchmarks.control.scenarios import END_S, Scenario
from benchmarks.control.simulator import SimulatedService


def ladder(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """The article's ladder with fixed thresholds: P95 over the SLO for a minute: batch x2; two minutes later INT8."""
    run, eyes = Run(service), Eyes(service)
    rungs = ["batch_size"] + (["precision"] if scenario.precision else [])
    ready_s = 0.0
    while service.now_s < END_S:
        service.advance(service.now_s + SWEEP_S)
        p95 = eyes.look("p95_ms", seconds=60.0)["p95_ms"]
        if service.now_s < ready_s or not rungs or not (np.isfinite(p95).all() and (p95 > scenario.slo_ms).all()):
            continue
        if rungs.pop(0) == "batch_size":
            set_batch(run, min(scenario.batch_max, 2 * service.batch), service.timeout_ms)
            ready_s = service.now_s + 120.0
        else:
            set_int8(run)
            ready_s = service.now_s + 120.0 + INT8_DELAY_S
    return run
