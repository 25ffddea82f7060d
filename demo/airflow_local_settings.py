"""Copied into the demo's AIRFLOW_HOME/config: the parents of tasks and the dag-processor import slotune once.

Every task is a fork of theirs, so it finds the imports done: seconds of CPU less for each task instance. What is
imported here is seen by tasks as it was when Airflow started; that suits a demo.
"""

import contextlib
import importlib
import pkgutil
import sys

_LEFT_OUT = ("quantization", "migrations", "commands", "backtest")
"""Not needed by most tasks, and ONNX Runtime must not start its threads before a fork."""


def _import_all() -> None:
    for package in ("detection", "tuning", "slotune"):
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not any(part in module.name.split(".") for part in _LEFT_OUT):
                with contextlib.suppress(Exception):  # a part that needs an extra; whoever needs it will say so
                    importlib.import_module(module.name)


if sys.argv[1:2] in (["scheduler"], ["dag-processor"], ["celery"]):
    _import_all()
