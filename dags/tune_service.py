"""tune_service: one run per attempt at an incident. Choose a lever, change it, verify P95, keep or roll back, mail.

By hand: trigger it from the UI, choose a service, and a lever or "let it choose"; dry run plans and mails only.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import Param, TriggerRule, dag, get_current_context, task

from slotune_airflow import steps
from slotune_airflow.operators import RollBackOperator, SettleOperator, VerifyP95Operator, ask_person
from slotune_airflow.wiring import ALL_LEVERS, LET_IT_CHOOSE, dag_facts, default_args, on_queue

FACTS = dag_facts()
ONE_OF_THEM = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS


@dag(
    dag_id="tune_service",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=16,
    default_args=default_args(),
    tags=["slotune"],
    doc_md=__doc__,
    params={
        "service": Param(
            None, type=["null", "string"], enum=[None, *FACTS.services], title="Service", description="Which service"
        ),
        "lever": Param(LET_IT_CHOOSE, type="string", enum=[LET_IT_CHOOSE, *ALL_LEVERS], title="Lever"),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Plan and mail, change nothing"),
        "incident_id": Param(None, type=["null", "string"], title="Incident", section="Set by watch_services"),
        "attempt": Param(1, type="integer", minimum=1, title="Attempt", section="Set by watch_services"),
    },
)
def tune_service() -> None:
    @task.branch
    def choose_action() -> list[str]:
        return steps.choose_action(get_current_context())

    @task.branch
    def approved() -> list[str]:
        return steps.approved(get_current_context())

    @task(trigger_rule=ONE_OF_THEM)
    def adjust_batch_size() -> dict[str, object]:
        return steps.pull_lever(get_current_context(), "batch_size")

    @task(trigger_rule=ONE_OF_THEM)
    def scale_replicas() -> dict[str, object]:
        return steps.pull_lever(get_current_context(), "replicas")

    @task(trigger_rule=ONE_OF_THEM, **on_queue(FACTS.build_queue))
    def quantize_int8() -> dict[str, object]:
        return steps.pull_lever(get_current_context(), "precision")

    @task(trigger_rule=ONE_OF_THEM)
    def hold() -> str:
        return steps.hold(get_current_context())

    @task
    def keep() -> str:
        return steps.keep(get_current_context())

    @task
    def email_report() -> str:
        return steps.email_report(get_current_context())

    choice, answer = choose_action(), approved()
    levers = [adjust_batch_size(), scale_replicas(), quantize_int8()]
    held, report = hold(), email_report().as_teardown()
    approve = ask_person("approve", response_timeout=FACTS.approval)
    verify = VerifyP95Operator(task_id="verify_p95")
    choice >> [approve, *levers, held]
    approve >> answer >> [*levers, held]
    levers >> SettleOperator(task_id="settle", trigger_rule=ONE_OF_THEM) >> verify
    verify >> [keep(), RollBackOperator(task_id="roll_back")] >> report
    held >> report


tune_service()
