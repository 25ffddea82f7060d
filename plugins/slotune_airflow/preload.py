"""Imports the libraries of the tasks once, in the scheduler: forked tasks inherit them instead of importing anew.

Put two lines into `$AIRFLOW_HOME/config/airflow_local_settings.py`:

    from slotune_airflow.preload import preload
    preload()

Without it everything works; each task then spends one to two CPU seconds more on imports.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

_PARENTS_OF_TASKS = frozenset({"scheduler", "celery"})
_MODULES = (
    "kubernetes.client",
    "prometheus_api_client",
    "sklearn.ensemble",
    "slotune.compose",
    "slotune_airflow.steps",
    "tuning.actuators",
    "tuning.ledger",
    "tuning.loop.recover",
    "tuning.loop.watch",
    "tuning.notifiers",
    "tuning.planning",
    "tuning.verification",
)


def preload() -> None:
    """Only in processes that fork tasks; a module that cannot be imported is left to the task, which says why."""
    if not _PARENTS_OF_TASKS.intersection(sys.argv[1:2]):
        return
    for module in _MODULES:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
