"""Starting tune_service runs from inside a task, and asking how a run is doing.

TriggerDagRunOperator needs one task instance per run; a sweep of watch_services costs three whatever it finds, so
open_incidents sends the same request itself. The message is Airflow's own (Task SDK), the endpoint its execution API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DagResult, ErrorResponse, GetDag, TriggerDagRun

from detection.errors import Temporary

if TYPE_CHECKING:
    from tuning.ports import Ledger

TUNE_DAG = "tune_service"


def start_tune_run(run_id: str, conf: Mapping[str, Any], note: str) -> bool:
    """Start a run of tune_service; False when a run of this id exists already (then nothing happens).

    note: why, for people who look at the grid.
    """
    request = TriggerDagRun(dag_id=TUNE_DAG, run_id=run_id, conf=dict(conf), note=note)
    try:
        answer = task_runner.SUPERVISOR_COMMS.send(request)
    except AirflowRuntimeError as error:
        raise Temporary(f"Airflow did not start run {run_id!r} of {TUNE_DAG}: {error.error.error.value}") from error
    return not (isinstance(answer, ErrorResponse) and answer.error == ErrorType.DAGRUN_ALREADY_EXISTS)


def is_alive(ti: Any, run_id: str, ledger: Ledger, at_s: float) -> bool:
    """Whether a run of tune_service is queued or running; a run that is not known is not alive.

    A run of `slotune run`, which works beside Airflow on the same ledger, is asked for its beat.
    """
    from tuning.loop import alive

    if alive.is_ours(run_id):
        return alive.is_beating(ledger, run_id, at_s)
    return bool(ti.get_dr_count(TUNE_DAG, run_ids=[run_id], states=["queued", "running"]))


def is_paused(dag_id: str) -> bool:
    """Whether a DAG is switched off in Airflow; a DAG that Airflow does not know is not said to be."""
    try:
        answer = task_runner.SUPERVISOR_COMMS.send(GetDag(dag_id=dag_id))
    except AirflowRuntimeError:
        return False
    return isinstance(answer, DagResult) and answer.is_paused
