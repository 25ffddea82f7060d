"""slotune's errors on Airflow's terms: Permanent fails the task at once, Temporary is tried again; a sweep that another
one overtook is skipped with its sentence, since trying it again finds the same.

The log of a failed task shows the sentence; the chain of causes stays below it for whoever wants it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from detection.errors import Overtaken, Permanent, Temporary

_log = logging.getLogger(__name__)


@contextmanager
def as_airflow_failures() -> Iterator[None]:
    try:
        yield
    except Permanent as error:
        raise AirflowFailException(str(error)) from error
    except Overtaken as error:
        raise AirflowSkipException(str(error)) from error
    except Temporary as error:
        raise AirflowException(str(error)) from error


def tell_failure(context: Mapping[str, Any]) -> None:
    """on_failure_callback of every task: people hear that the loop itself fails. Never raises: it is said already."""
    try:
        ti, error = context["ti"], context.get("exception")
        said = _told(f"{ti.dag_id}, task {ti.task_id}", str(error or ""), context)
        _log.info("that %s failed was told: %s", ti.task_id, said)
    except Exception:
        _log.exception("that a task failed could not be told; the rule SlotuneLoopDead tells what goes on")


def _told(what: str, reason: str, context: Mapping[str, Any]) -> str:
    from slotune.compose import load_settings, telling
    from slotune_airflow.addresses import PAGE, base_url, run_url
    from slotune_airflow.connections import AirflowConnections
    from tuning.loop.failed import tell_failure as tell

    settings = load_settings()
    base = base_url(settings.mail.airflow_url)
    tellers = telling(settings, AirflowConnections(), page=f"{base}{PAGE}" if base else "")
    return tell(tellers, what, reason, time.time(), url=run_url(base, context), first=_first_here)


def _first_here(message_id: str) -> bool:
    """Whether this machine has not told it yet: a file that only one process can make."""
    try:
        folder = Path(os.environ.get("TMPDIR") or tempfile.gettempdir())
        (folder / f"slotune-told-{message_id}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # told twice is better than not at all
        return True
    return True
