"""Kubernetes' horizontal pod autoscaler."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.control.runs import Eyes, Run, set_replicas
from benchmarks.control.scenarios import END_S, Scenario
from benchmarks.control.simulator import SimulatedService


def hpa(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """Kubernetes' published algorithm on utilisation with its defaults: target 80 %, sync 15 s, tolerance 0.1,
    scale up by at most max(100 %, 4 pods) per 15 s, scale down by the highest recommendation of 300 s."""
    run, eyes = Run(service), Eyes(service)
    recommended: list[tuple[float, int]] = []
    while service.now_s < END_S:
        service.advance(service.now_s + 15.0)
        busy = eyes.look("busy")["busy"][-1]
        if not np.isfinite(busy):
            continue
        ready = max(1, service.seconds[-1].ready)
        ratio = busy / 0.8
        wanted = service.desired if abs(ratio - 1) <= 0.1 else math.ceil(ready * ratio)
        wanted = max(scenario.replicas, min(scenario.replicas_max, wanted))
        recommended.append((service.now_s, wanted))
        recommended = [r for r in recommended if r[0] > service.now_s - 300.0]
        if wanted > service.desired:
            set_replicas(run, min(wanted, max(2 * service.desired, service.desired + 4)))
        elif (floor := max(r[1] for r in recommended)) < service.desired:
            set_replicas(run, floor)
    return run
