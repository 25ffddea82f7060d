"""What the DAG files need while they are parsed: the interval, the names for the forms. Light, and never raises.

A broken services.yaml must not make the DAGs vanish: they keep their defaults, and their first task fails with the
sentences that say what is wrong (see slotune_airflow.steps).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from detection.errors import ConfigError
from slotune.compose import load_settings
from slotune_airflow.failures import tell_failure
from tuning.settings import Settings

LET_IT_CHOOSE = "let it choose"
ALL_LEVERS = ("batch_size", "replicas", "precision", "release", "variant", "admission", "breaker", "restart")
WITH_A_VALUE = ("batch_size", "replicas")
SHOWN = 20
"""Bounds that fit below the form's field."""


@dataclass(frozen=True)
class DagFacts:
    """watch_every, learn_every: intervals. review: cron. services: names for the form. approval: time to answer.

    build_queue: the Airflow queue of quantize_int8 (None: the default). levers, bounds, value_range: what services have
    of them, for the form. paused_at_first: whether a DAG that Airflow has not seen yet begins paused; None: as Airflow
    is set."""

    watch_every: timedelta = timedelta(minutes=5)
    learn_every: timedelta = timedelta(hours=1)
    review: str = "0 7 * * 1"
    services: tuple[str, ...] = ()
    approval: timedelta = timedelta(minutes=30)
    build_queue: str | None = None
    levers: tuple[str, ...] = ALL_LEVERS
    bounds: tuple[str, ...] = ()
    value_range: tuple[int, int] = (1, 1_000_000)
    paused_at_first: bool | None = None


def dag_facts() -> DagFacts:
    try:
        settings = load_settings()
    except ConfigError:
        return DagFacts()
    return _facts(settings)


def _facts(settings: Settings) -> DagFacts:
    services = settings.service_values()
    moved = [(s.name, lever) for s in services for name, lever in sorted(s.levers.items()) if name in WITH_A_VALUE]
    having = {name for service in services for name in service.levers}
    ends = [(int(lever.minimum), int(lever.maximum)) for _, lever in moved]
    return DagFacts(
        watch_every=timedelta(seconds=settings.schedule.watch_every_s),
        learn_every=timedelta(seconds=settings.schedule.learn_every_s),
        review=settings.schedule.review,
        services=tuple(service.name for service in services),
        approval=timedelta(seconds=settings.safety.approval_timeout_s),
        build_queue=settings.build_queue(),
        levers=tuple(name for name in ALL_LEVERS if name in having) or ALL_LEVERS,
        bounds=tuple(f"{name} {lever.name} {lever.minimum:g} to {lever.maximum:g}" for name, lever in moved[:SHOWN]),
        value_range=(min(low for low, _ in ends), max(high for _, high in ends)) if ends else (1, 1_000_000),
        paused_at_first=False if settings.schedule.switched_on else None,
    )


def on_queue(name: str | None) -> dict[str, Any]:
    """The operator's argument for a queue; none for Airflow's default."""
    return {} if name is None else {"queue": name}


def default_args() -> dict[str, Any]:
    """Every task may be run again: all steps are idempotent. People hear of one that failed for good."""
    retries = {"retries": 2, "retry_delay": timedelta(seconds=10)}
    return {"owner": "slotune", **retries, "on_failure_callback": tell_failure}
