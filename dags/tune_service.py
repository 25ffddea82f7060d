"""tune_service: one run per attempt at an incident. Choose a lever, change it, verify P95, keep or roll back, mail.

By hand: trigger it from the UI, choose a service, and a lever with a value or "let it choose"; dry run plans and mails
only. It joins the incident that is open. The note of a run says what came of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import TriggerRule, XComArg, dag, get_current_context, task

from slotune_airflow import steps
from slotune_airflow.forms import tune_params
from slotune_airflow.operators import RollBackOperator, SettleOperator, VerifyP95Operator, ask_person
from slotune_airflow.wiring import dag_facts, default_args, on_queue

FACTS = dag_facts()
ONE_OF_THEM = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS


@dag(
    dag_id="tune_service",
    description="One attempt at an incident: choose a lever, change it, verify P95, keep or roll back, mail",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=16,
    default_args=default_args(),
    tags=["slotune"],
    doc_md=__doc__,
    is_paused_upon_creation=FACTS.paused_at_first,
    params=tune_params(FACTS),
)
def tune_service() -> None:
    @task.branch(task_display_name="choose a lever")
    def choose_action() -> list[str]:
        return steps.choose_action(get_current_context())

    @task.branch(task_display_name="the answer")
    def approved() -> list[str]:
        return steps.approved(get_current_context())

    def pull(step: str, lever: str, words: str, **more: Any) -> XComArg:
        @task(task_id=step, task_display_name=words, trigger_rule=ONE_OF_THEM, **more)
        def pulled() -> dict[str, object]:
            return steps.pull_lever(get_current_context(), lever)

        return pulled()

    @task(task_display_name="hold: change nothing", trigger_rule=ONE_OF_THEM)
    def hold() -> str:
        return steps.hold(get_current_context())

    @task(task_display_name="keep: it helped")
    def keep() -> str:
        return steps.keep(get_current_context())

    @task(task_display_name="mail the report")
    def email_report() -> str:
        return steps.email_report(get_current_context())

    choice, answer = choose_action(), approved()
    levers = [
        pull("adjust_batch_size", "batch_size", "adjust the batch size"),
        pull("scale_replicas", "replicas", "scale the replicas"),
        pull("quantize_int8", "precision", "quantise to INT8", **on_queue(FACTS.build_queue)),
        pull("revert_release", "release", "revert the release"),
        pull("switch_variant", "variant", "switch the variant"),
        pull("limit_admission", "admission", "limit what is taken in"),
        pull("break_circuit", "breaker", "break a circuit"),
        pull("restart_replica", "restart", "restart a replica"),
    ]
    held, report = hold(), email_report().as_teardown()
    approve = ask_person("approve", response_timeout=FACTS.approval)
    verify = VerifyP95Operator(task_id="verify_p95", task_display_name="verify P95")
    settle = SettleOperator(task_id="settle", task_display_name="let it settle, and look", trigger_rule=ONE_OF_THEM)
    undo = RollBackOperator(task_id="roll_back", task_display_name="roll back: undo it")
    choice >> [approve, *levers, held]
    approve >> answer >> [*levers, held]
    levers >> settle >> verify
    verify >> [keep(), undo] >> report
    held >> report


tune_service()
