"""The subcommands: one module each, imported only when it is asked for, so that a quick question stays quick.

Each module's `register(app)` adds its commands. Sorted by command.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import typer

MODULES: dict[str, str] = {
    "airflow": "airflow",
    "approve": "run",
    "backtest": "backtest",
    "changes": "history",
    "check": "check",
    "compare": "compare",
    "dashboards": "monitoring",
    "discover": "discover",
    "export": "history",
    "incidents": "history",
    "label": "labels",
    "labels": "labels",
    "plan": "plan",
    "quantize": "quantize",
    "rehearse": "rehearse",
    "review": "review",
    "rules": "monitoring",
    "run": "run",
    "schema": "schema",
    "serve": "serve",
    "show": "history",
    "signals": "signals",
    "stress": "stress",
}


def register(app: typer.Typer, arguments: Sequence[str]) -> None:
    """Add the command that the arguments name; all of them where they name none (help, a typing mistake)."""
    named = MODULES.get(arguments[0]) if arguments else None
    for module in [named] if named else sorted(set(MODULES.values())):
        importlib.import_module(f"slotune.commands.{module}").register(app)
