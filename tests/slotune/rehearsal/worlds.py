"""Histories of a small service whose numbers follow from its causes, for tests."""

from __future__ import annotations

import numpy as np

from detection.model import Lever, MetricWindow, Service, Slo, Span
from slotune.rehearsal.counterfactual import Counterfactual, History, usual
from slotune.rehearsal.drivers import DESIRED, Drivers, drivers

START_S, STEP_S, WINDOW_S = 1_700_000_000.0, 15.0, 60.0
SERVICE = Service(
    name="ranker", serving="triton", slo=Slo(p95_ms=100.0), mode="act",
    levers={
        "batch_size": Lever(name="batch_size", actuator="none", minimum=1, maximum=32, effect_delay_s=5.0),
        "replicas": Lever(name="replicas", actuator="none", minimum=1, maximum=6, cost_per_hour=2.0, effect_delay_s=30.0),
    },
)  # fmt: skip


def history(points: int = 240, *, qps: float = 100.0, surge: float = 1.0, batch: int = 4) -> History:
    """Two replicas, batches of s(b) = 8 + 0.5 b ms; from the middle on `surge` times the load, answered all the same."""
    span = Span(START_S, START_S + (points - 1) * STEP_S, STEP_S)
    rng = np.random.default_rng(1)
    load = np.where(np.arange(points) < points // 2, qps, surge * qps)
    rows = np.clip(1.0 + load / qps * rng.uniform(0.5, 1.0, points), 1.0, batch)
    took = (8.0 + 0.5 * rows) * np.exp(0.01 * rng.standard_normal(points))
    values = {
        "qps": load, "p95_ms": np.full(points, 25.0) * np.exp(0.02 * rng.standard_normal(points)),
        "mean_ms": took + 4.0, "queue_ms": np.full(points, 3.0), "batch_ms": took, "rows_per_batch": rows,
        "queue_depth": np.full(points, 0.3), "replicas": np.full(points, 2.0), DESIRED: np.full(points, 2.0),
        "batch_size": np.full(points, float(batch)), "batch_timeout_ms": np.zeros(points),
        "busy": load / rows * took / 1e3 / 2, "error_rate": np.zeros(points),
    }  # fmt: skip
    return History(MetricWindow("ranker", span, values, "histogram"), {})


def causes(of: History) -> Drivers:
    return drivers(of.window, SERVICE, WINDOW_S)


def world(of: History, at_s: float = START_S + 600.0) -> Counterfactual:
    found = causes(of)
    return Counterfactual(SERVICE, of, found, usual(found, SERVICE), WINDOW_S, at_s)
