"""watch_services: one sweep over all services, three task instances however many they are.

By hand: trigger it from the UI at any time; choose services, or none for all of them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from slotune_airflow import steps
from slotune_airflow.wiring import dag_facts, default_args

FACTS = dag_facts()


@dag(
    dag_id="watch_services",
    description="Every few minutes: read the metrics of all services, find what is wrong, start tune_service for it",
    is_paused_upon_creation=FACTS.paused_at_first,
    schedule=FACTS.watch_every,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=max(4 * FACTS.watch_every, timedelta(minutes=10)),
    default_args=default_args(),
    tags=["slotune"],
    doc_md=__doc__,
    params={
        "services": Param(
            [],
            type="array",
            items={"type": "string"},
            examples=list(FACTS.services),
            title="Services",
            description="Which services to look at; none chosen means all",
        )
    },
)
def watch_services() -> None:
    @task
    def pull_metrics() -> dict[str, Any]:
        return steps.pull_metrics(get_current_context())

    @task
    def detect_anomalies(sweep: dict[str, Any]) -> dict[str, Any]:
        return steps.detect_anomalies(get_current_context(), sweep)

    @task
    def open_incidents(sweep: dict[str, Any]) -> dict[str, Any]:
        return steps.open_incidents(get_current_context(), sweep)

    open_incidents(detect_anomalies(pull_metrics()))


watch_services()
