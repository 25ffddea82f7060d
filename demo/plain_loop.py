"""The same loop without Airflow, in a process of its own: the quick way to try a scenario (`--without-airflow`).

It is `slotune run`, in the environment that Airflow's tasks would have (SLOTUNE_CONFIG, SLOTUNE_HOME,
SLOTUNE_CONN_*); what it says about its sweeps is read from its log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.processes import Child

_EVERY = "10s"


class PlainLoop:
    """What the supervisor asks of Airflow, answered for the plain loop."""

    url = "http://127.0.0.1:0"

    def __init__(self, repository: Path, log: Path, env: Mapping[str, str]) -> None:
        self._repository, self._log = repository, log
        self._env = {**os.environ, **env, "PYTHONUNBUFFERED": "1"}
        self._child: Child | None = None

    def start(self) -> None:
        main = "from slotune.cli import main; main()"
        command: list[str | Path] = [sys.executable, "-c", main, "run", "--every", _EVERY]
        self._child = Child("the loop", command, self._log, env=self._env, cwd=self._repository)

    def ready(self) -> bool:
        self.check()
        return True

    def sweeps(self) -> int:
        return len(self._said(" Swept "))

    def import_errors(self) -> list[str]:
        return []

    def task_failures(self) -> list[str]:
        return [*self._said(" This sweep failed: "), *self._said(" this attempt broke off: ")]

    def yes(self) -> list[dict[str, Any]]:
        """Nobody can be asked in a browser here."""
        return []

    def check(self) -> None:
        if self._child is not None:
            self._child.check()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def _said(self, words: str) -> list[str]:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.is_file() else []
        return [line for line in lines if words in line]
