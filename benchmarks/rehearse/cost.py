"""What a rehearsal costs: one synthetic service over many days, two incidents a week, on this machine."""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from detection.model import MetricWindow, Span
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.study import study
from tuning.services_yaml import loads

START_S, STEP_S = 1_699_920_000.0, 60.0
_SERVICE = """
  - name: service-{number}
    serving: triton
    selectors: {{model: m{number}}}
    slo: {{p95: 150ms}}
    levers:
      batch_size: {{actuator: triton, connection: triton, model: m, min: 1, max: 32}}
      replicas: {{connection: kube, min: 1, max: 8, namespace: a, target: b, cost_per_hour: 1.0, effect_delay: 60s}}
"""


def history(days: float, seed: int) -> History:
    """Ten signals with a daily course; twice a week, at its own times, the load is too much for an hour, and queues."""
    points = int(days * 86_400 / STEP_S)
    rng = np.random.default_rng(seed)
    span = Span(START_S, START_S + (points - 1) * STEP_S, STEP_S)
    t = np.arange(points) * STEP_S
    load = 60 * (1 + 0.4 * np.sin(2 * np.pi * t / 86_400)) * np.exp(0.03 * rng.standard_normal(points))
    depth = np.zeros(points)
    for start in np.arange(2.5 + rng.uniform(-1.0, 1.0), days, 3.5):
        first = int(start * 86_400 / STEP_S)
        load[first : first + 60] = 260.0
        depth[first : first + 60] = (260 - 2 * 4 / 0.04) * STEP_S * np.arange(1, min(61, points - first + 1))
    rows = np.clip(1 + load * 0.03, 1, 4)
    took = (20 + 5 * rows) * np.exp(0.02 * rng.standard_normal(points))
    answered = np.where(depth > 0, 200.0, load)
    wait_ms = np.where(depth > 0, 1e3 * depth / 200.0, 6.0)
    values = {
        "qps": answered, "p95_ms": wait_ms * 1.1 + 1.6 * took, "p50_ms": wait_ms + took, "mean_ms": wait_ms + took,
        "queue_ms": wait_ms, "queue_depth": depth, "batch_ms": took, "rows_per_batch": np.where(depth > 0, 4.0, rows),
        "error_rate": np.zeros(points), "replicas": np.full(points, 2.0), "batch_size": np.full(points, 4.0),
        "busy": np.minimum(1.0, answered / np.where(depth > 0, 4.0, rows) * took / 2e3),
    }  # fmt: skip
    return History(MetricWindow("x", span, values, "histogram"), {})


def settings_text(services: int) -> str:
    """services.yaml of so many services."""
    each = "".join(_SERVICE.format(number=k) for k in range(services))
    return "prometheus: {rate_window: 60s, step: 60s}\nservices:" + each


def measure(days: float, services: int = 1, jobs: int = 1) -> dict[str, object]:
    """CPU seconds of all processes, wall seconds; memory in MB: the largest of this process, of the others each."""
    names = [f"service-{k}" for k in range(services)]
    found = {name: history(days, k) for k, name in enumerate(names)}
    for name, one in found.items():
        found[name] = History(MetricWindow(name, one.window.span, one.window.values, "histogram"), {})
    cpu, wall = _cpu_s(), time.monotonic()
    result = study(loads(settings_text(services)), found, "cost", _tell, jobs=jobs).rehearsal
    return {
        "days": days,
        "services": services,
        "incidents": len(result.incidents),
        "changes": sum(service.changes for service in result.services),
        "jobs": jobs,
        "cpu_s": round(_cpu_s() - cpu, 1),
        "wall_s": round(time.monotonic() - wall, 1),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "memory_each_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _tell(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{share:.1%}", end="", file=sys.stderr)
