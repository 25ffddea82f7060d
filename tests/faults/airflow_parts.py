"""An Airflow whose parts are processes of their own (LocalExecutor on PostgreSQL), to be killed and started again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from demo import web
from demo.airflow import Airflow
from demo.databases import PostgreSql
from demo.processes import LOOPBACK, Child, DemoError

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
RESTART_S = 2.0
"""How long a killed part stays away before it is started again, as an init system would."""

DEAD_TASK_S = 45.0
"""By these settings: heartbeat timeout, its detection interval, the retry's delay, and as much again for a busy
machine. It is the campaign's `safety.dead_task`."""

_QUICK = {
    # Whatever died is noticed within seconds, not the minutes of Airflow's defaults.
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "8",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "4",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
}

_SETTINGS = """\
from slotune_airflow.preload import preload

preload()

from tests.faults.airflow_steps import install

install()
"""


class KillableAirflow(Airflow):
    """start(), kill(part), restart_killed(), stop(). `down_s`: the times (from, to) in which a part was away."""

    def __init__(self, home: Path, repository: Path, log: Path, env: Mapping[str, str]) -> None:
        super().__init__(home, repository, log, env)
        self.postgresql = PostgreSql(log.parent / "postgresql.log")
        self.database_url = f"postgresql+psycopg2://{self.postgresql.address('airflow')}"
        self.ledger_url = f"postgresql+psycopg2://{self.postgresql.address('slotune')}"
        self._children: dict[str, Child] = {}
        self._leftovers: list[psutil.Process] = []
        self._away: dict[str, float] = {}
        self._lock = threading.RLock()
        self.down_s: list[tuple[float, float]] = []
        self._env |= {f"AIRFLOW__{key}": value for key, value in _QUICK.items()}
        self._env |= {
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database_url,
            "PYTHONPATH": str(repository),
            "SLOTUNE_LEDGER_URL": self.ledger_url,
        }

    def start(self) -> None:
        self._make_home()
        (self._home / "config" / "airflow_local_settings.py").write_text(_SETTINGS)
        self.postgresql.start()
        for name in ("airflow", "slotune"):
            self.postgresql.create(name)
        done = subprocess.run(
            [_program(), "db", "migrate"], env=self._env, cwd=self._repository, capture_output=True, text=True,
            check=False)  # fmt: skip
        if done.returncode:
            raise DemoError(f"Airflow's database could not be made: {done.stderr[-500:]}")
        for name in PARTS:
            self._start(name)

    def _start(self, name: str) -> None:
        options = {
            "api-server": ["--host", LOOPBACK, "--port", str(self._port)],
            "scheduler": ["--skip-serve-logs"],
            "triggerer": ["--skip-serve-logs"],
        }
        log = self._log.with_name(f"airflow-{name}.log")
        command = [_program(), name, *options.get(name, [])]
        self._children[name] = Child(f"Airflow's {name}", command, log, env=self._env, cwd=self._repository)

    def patch(self, path: str, body: object) -> None:
        """PATCH /api/v2/<path> as admin. Raises OSError."""
        web.call(f"{self.url}/api/v2/{path}", body, token=self._new_token(), method="PATCH")

    @property
    def whole(self) -> bool:
        """Every part is up, and healthy by its own word."""
        with self._lock:
            return not self._away and all(child.alive for child in self._children.values()) and self._healthy()

    def _healthy(self) -> bool:
        try:
            health = web.call(f"{self.url}/api/v2/monitor/health", timeout_s=3.0)
            parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
            return all(health[part]["status"] == "healthy" for part in parts)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def kill(self, parts: Sequence[str]) -> None:
        """SIGKILL. Of one part the main process alone, of all of them the whole family: a machine without power."""
        with self._lock:
            now_s = time.time()
            families = {name: _family(self._children[name].pid) for name in parts}
            for name in parts:
                for process in families[name] if len(parts) > 1 else families[name][:1]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                self._leftovers += families[name][1:]
                self._away.setdefault(name, now_s)

    def restart_killed(self) -> None:
        """Start again what has been away for RESTART_S; children of the dead end first, as in a control group."""
        with self._lock:
            due = [name for name, since_s in self._away.items() if time.time() - since_s >= RESTART_S]
            if due:
                for process in self._leftovers:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                self._leftovers = []
            for name in due:
                since_s = self._away.pop(name)
                self._start(name)
                self.down_s.append((since_s, float("inf")))

    def mark_whole(self) -> None:
        """The parts are back: ends the times in `down_s` that are still running."""
        now_s = time.time()
        self.down_s = [(a, now_s if b == float("inf") else b) for a, b in self.down_s]

    def check(self) -> None:
        """A part that ended without having been killed is an error of the campaign."""
        self.postgresql.check()
        with self._lock:
            for name, child in self._children.items():
                if name not in self._away:
                    child.check()

    def stop(self) -> None:
        for child in reversed(self._children.values()):
            child.stop(3.0)
        self.postgresql.stop()


def _family(pid: int) -> list[psutil.Process]:
    """The process and its descendants, itself first."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _program() -> Path:
    return Path(sys.executable).parent / "airflow"
