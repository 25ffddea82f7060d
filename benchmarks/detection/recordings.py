"""Made-up recordings of inference services, with faults of nine kinds put in at known times.

A service has a daily curve of requests, autocorrelated noise, and latency, queue and busyness coupled through its
load (rho / (1 - rho)). A stand-in for recordings of the demo service: it shows what a fault of known size costs to
find, not how often real services are odd.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, MetricWindow, Service, Slo, Span

STEP_S = 300.0
HISTORY_DAYS = 7
FAULT_POINTS = 12
KINDS = (
    "slow_compute",
    "traffic_surge",
    "traffic_drop",
    "errors",
    "queue_backlog",
    "gpu_memory_leak",
    "fluctuation",
    "load_failures",
    "outage",
)


@dataclass(frozen=True)
class Case:
    """A service with at most one fault: kind "" for none; start_s and end_s of the fault."""

    service: Service
    window: MetricWindow
    kind: str
    start_s: float
    end_s: float


def ar1(rng: np.random.Generator, n: int, phi: float, sd: float) -> FloatArray:
    """Autocorrelated noise with standard deviation sd."""
    shocks = rng.normal(scale=sd * np.sqrt(1 - phi**2), size=n)
    out = np.empty(n)
    last = rng.normal(scale=sd)
    for i in range(n):
        last = phi * last + shocks[i]
        out[i] = last
    return out


def make(seed: int, per_kind: int = 3, healthy: int = 9, judged_days: float = 1.0) -> list[Case]:
    """Services of every fault kind and some without a fault; the same seed gives the same services."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in KINDS for _ in range(per_kind)] + [""] * healthy
    return [_case(rng, f"{kind or 'healthy'}-{i}", kind, judged_days) for i, kind in enumerate(kinds)]


def _case(rng: np.random.Generator, name: str, kind: str, judged_days: float) -> Case:
    n = int((HISTORY_DAYS + judged_days) * 86_400 / STEP_S)
    start_s = 1_700_006_400.0
    span = Span(start_s, start_s + (n - 1) * STEP_S, STEP_S)
    t = span.times()
    swing, phase = rng.uniform(0.1, 0.4), rng.uniform(0, 2 * np.pi)
    peak = float(10 ** rng.uniform(1.3, 3))
    load = (1 + swing * np.sin(2 * np.pi * t / 86_400 + phase)) * np.exp(ar1(rng, n, 0.8, 0.06))
    first = int(HISTORY_DAYS * 86_400 / STEP_S) + int(rng.integers(12, n - HISTORY_DAYS * 288 - FAULT_POINTS - 12))
    at = np.arange(first, first + FAULT_POINTS)
    compute = np.exp(ar1(rng, n, 0.7, 0.03)) * rng.uniform(4, 20)
    if kind == "traffic_surge":
        load[at] *= rng.uniform(1.7, 2.5)
    if kind == "traffic_drop":
        load[at] *= rng.uniform(0.2, 0.5)
    if kind == "slow_compute":
        compute[at] *= rng.uniform(1.4, 2.0)
    rho = np.clip(rng.uniform(0.25, 0.4) * load * compute / np.median(compute), 0.01, 0.93)
    queue = compute * rho / (1 - rho) * np.exp(ar1(rng, n, 0.5, 0.12))
    depth = rho**2 / (1 - rho) * np.exp(ar1(rng, n, 0.3, 0.2)) * 3
    if kind == "queue_backlog":
        queue[at] += rng.uniform(3, 8) * np.median(queue)
        depth[at] += rng.uniform(40, 120)
    mean = compute + queue
    p95 = mean * 2.2 * np.exp(ar1(rng, n, 0.4, 0.06))
    if kind == "fluctuation":
        p95[at] *= np.where(np.arange(FAULT_POINTS) % 2, 1.55, 0.62)
        mean[at] *= np.where(np.arange(FAULT_POINTS) % 2, 1.4, 0.7)
    errors = np.abs(ar1(rng, n, 0.3, 0.0008))
    memory = rng.uniform(0.4, 0.65) + ar1(rng, n, 0.9, 0.006)
    failures = np.zeros(n)
    if kind == "errors":
        errors[at] += rng.uniform(0.02, 0.06)
    if kind == "gpu_memory_leak":
        memory[at] += np.linspace(0.08, rng.uniform(0.2, 0.3), FAULT_POINTS)
    if kind == "load_failures":
        failures[at] = 0.3
    values = {
        "p95_ms": p95, "mean_ms": mean, "p99_ms": p95 * 1.4 * np.exp(ar1(rng, n, 0.3, 0.08)), "queue_ms": queue,
        "queue_depth": depth, "batch_ms": compute, "qps": peak * load, "error_rate": np.minimum(errors, 1.0),
        "gpu_memory": np.clip(memory, 0, 1), "busy": rho, "load_failures": failures,
    }  # fmt: skip
    if kind == "outage":
        for series in values.values():
            series[at] = np.nan
    slo = Slo(p95_ms=round(float(3 * np.median(p95[: HISTORY_DAYS * 288]))), for_s=300.0, error_rate=0.02)
    service = Service(name=name, serving="recorded", slo=slo)
    return Case(service, MetricWindow(name, span, values, "histogram"), kind, float(t[at[0]]), float(t[at[-1]]))
