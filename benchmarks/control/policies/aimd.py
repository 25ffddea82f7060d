"""Additive increase, multiplicative decrease of the batch."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.control.runs import Eyes, Run, set_batch
from benchmarks.control.scenarios import END_S, Scenario
from benchmarks.control.simulator import SimulatedService


def aimd(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """Clipper's batching: every 5 s one row more while P95 meets the SLO, 10 % fewer once it does not."""
    run, eyes = Run(service), Eyes(service)
    while service.now_s < END_S:
        service.advance(service.now_s + 5.0)
        p95 = eyes.look("p95_ms")["p95_ms"][-1]
        if not np.isfinite(p95):
            continue
        wanted = service.batch + 1 if p95 <= scenario.slo_ms else math.floor(0.9 * service.batch)
        wanted = max(1, min(scenario.batch_max, wanted))
        if wanted != service.batch:
            set_batch(run, wanted, service.timeout_ms)
    return run
