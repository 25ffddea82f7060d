"""The note of a run of tune_service: what came of it, readable in the grid. Airflow's scheduler calls these hooks.

Whatever goes wrong here stays here: a note is worth no run.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from airflow.listeners import hookimpl

from slotune_airflow.runs import TUNE_DAG

_log = logging.getLogger(__name__)
NOTE_KEY = "note"
"""XCom of email_report: what came of the attempt, in a sentence."""
LONGEST = 1000
"""Characters that Airflow keeps of a note."""


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    write_note(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    write_note(dag_run)


def write_note(dag_run: Any) -> None:
    """Add what came of a run of tune_service to its note, once; what stands there stays."""
    if dag_run.dag_id != TUNE_DAG:
        return
    try:
        text = _said(dag_run)
        if text and text not in (dag_run.note or ""):
            dag_run.note = "\n\n".join(filter(None, (dag_run.note, text)))[:LONGEST]
    except Exception as error:  # whatever the database or another version of Airflow raises
        _log.warning("the note of %s cannot be written: %r", dag_run.run_id, error)


def _said(dag_run: Any) -> str:
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:
        return ""
    row = session.scalar(
        select(XComModel.value).where(
            XComModel.dag_id == dag_run.dag_id,
            XComModel.run_id == dag_run.run_id,
            XComModel.task_id == "email_report",
            XComModel.key == NOTE_KEY,
        )
    )
    value = json.loads(row) if isinstance(row, str | bytes) else row
    return value if isinstance(value, str) else ""
