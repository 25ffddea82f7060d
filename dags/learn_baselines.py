"""learn_baselines: hourly, what is normal for every service, from history without incidents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import dag, get_current_context, task

from slotune_airflow import steps
from slotune_airflow.wiring import dag_facts, default_args

FACTS = dag_facts()


@dag(
    dag_id="learn_baselines",
    description="Learn what is normal for each service from its history",
    is_paused_upon_creation=FACTS.paused_at_first,
    schedule=FACTS.learn_every,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=default_args(),
    tags=["slotune"],
    doc_md=__doc__,
)
def learn_baselines() -> None:
    @task(task_id="learn_baselines")
    def learn() -> dict[str, Any]:
        return steps.learn_baselines(get_current_context())

    learn()


learn_baselines()
