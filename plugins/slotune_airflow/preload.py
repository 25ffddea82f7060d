"""Imports slotune once in the processes that fork tasks: every task then finds the imports done.

Put two lines into `$AIRFLOW_HOME/config/airflow_local_settings.py`:

    from slotune_airflow.preload import preload
    preload()

Without it everything works; each task then spends one to two CPU seconds more on imports. With it, tasks see the code
as it was when Airflow started: restart Airflow after an upgrade.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys

_PARENTS_OF_TASKS = frozenset({"scheduler", "dag-processor", "celery"})
_LEFT_OUT = frozenset({"quantization", "migrations", "commands", "backtest"})
"""Not needed by most tasks; and ONNX Runtime must not start its threads before a fork."""


def preload() -> None:
    """Import every module of slotune, in a parent of tasks only. What cannot be imported is left to its task."""
    if not _PARENTS_OF_TASKS.intersection(sys.argv[1:2]):
        return
    for package in ("detection", "tuning", "slotune"):
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not _LEFT_OUT.intersection(module.name.split(".")):
                with contextlib.suppress(Exception):
                    importlib.import_module(module.name)
