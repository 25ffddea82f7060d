"""review_week: resolution rate, time to resolve, false alarms, what each lever achieved; mailed with plots."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import dag, get_current_context, task

from slotune_airflow import steps
from slotune_airflow.wiring import dag_facts, default_args

FACTS = dag_facts()


@dag(
    dag_id="review_week",
    description="Mail what was resolved, how fast, and what each lever achieved",
    is_paused_upon_creation=FACTS.paused_at_first,
    schedule=FACTS.review,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=default_args(),
    tags=["slotune"],
    doc_md=__doc__,
)
def review_week() -> None:
    @task(task_id="review_week")
    def review() -> str:
        return steps.review_week(get_current_context())

    review()


review_week()
