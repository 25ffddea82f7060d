"""Worked examples for planners: an incident, and an observation of a service with any signals held at given levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detection.model import Incident, Lever, MetricWindow, Mode, Service, Slo, Span
from tuning.model import Observation, Setting

AT_S = 1_700_000_000.0


def make_service(
    *,
    levers: Sequence[str] = ("batch_size", "replicas", "precision"),
    p95_ms: float = 100.0,
    batch_max: float = 32,
    replicas_max: float = 10,
    mode: Mode = "act",
) -> Service:
    all_levers = {
        "batch_size": Lever(name="batch_size", actuator="http_config", minimum=1, maximum=batch_max, effect_delay_s=5),
        "replicas": Lever(
            name="replicas",
            actuator="kubernetes",
            minimum=1,
            maximum=replicas_max,
            cost_per_hour=1.2,
            effect_delay_s=30,
        ),
        "precision": Lever(name="precision", actuator="model_repository", cost_per_hour=0, effect_delay_s=120),
    }
    return Service(
        name="ranker",
        serving="slotune_demo",
        slo=Slo(p95_ms=p95_ms),
        mode=mode,
        levers={name: all_levers[name] for name in levers},
    )


def make_window(
    signals: Mapping[str, float | Sequence[float]], *, points: int = 61, step_s: float = 5.0
) -> MetricWindow:
    """A number is a constant series; a sequence is the series itself (its last `points` values)."""
    values = {}
    for name, value in signals.items():
        series = np.full(points, value) if isinstance(value, (int, float)) else np.asarray(value, dtype=float)
        values[name] = series.astype(np.float64)
    span = Span(AT_S - (points - 1) * step_s, AT_S, step_s)
    return MetricWindow("ranker", span, values, percentile_source="histogram")


def make_settings(
    *, batch: int = 1, timeout_ms: float = 0.0, replicas: int = 2, max_replicas: int = 10, precision: str = "fp32"
) -> dict[str, Setting]:
    return {
        "batch_size": Setting(lever="batch_size", values={"batch_size": batch, "batch_timeout_ms": timeout_ms}),
        "replicas": Setting(
            lever="replicas",
            values={"min_replicas": replicas, "max_replicas": max_replicas, "replicas": replicas},
            owner="HorizontalPodAutoscaler/ranker",
        ),
        "precision": Setting(lever="precision", values={"version": "1", "precision": precision}),
    }


def make_incident(symptom: str = "latency", *, attempt: int = 1) -> Incident:
    return Incident(
        id="inc-1",
        service="ranker",
        symptom=symptom,
        tier="act",
        severity="critical",
        opened_at_s=AT_S - 60,
        detected_at_s=AT_S - 5,
        signals=("p95_ms",),
        anomalies=(),
        reason="P95 over the SLO",
        attempt=attempt,
    )


SATURATED: dict[str, float] = {
    "qps": 120.0,
    "p95_ms": 600.0,
    "mean_ms": 400.0,
    "queue_ms": 385.0,
    "batch_ms": 15.0,
    "rows_per_batch": 1.0,
    "batch_size": 1.0,
    "batch_timeout_ms": 0.0,
    "busy": 1.0,
    "error_rate": 0.0,
    "replicas": 2.0,
}
"""Batch 1, two replicas, always busy, and a queue of 0.4 s."""


def make_observation(signals: Mapping[str, float | Sequence[float]] | None = None, **kwargs: object) -> Observation:
    service = kwargs.pop("service", None) or make_service()
    settings = kwargs.pop("settings", None) or make_settings()
    window = make_window(SATURATED if signals is None else signals)
    return Observation(service=service, window=window, at_s=AT_S, settings=settings, **kwargs)  # type: ignore[arg-type]
