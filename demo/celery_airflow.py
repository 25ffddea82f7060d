"""Airflow as clusters run it: api-server, scheduler, dag-processor, triggerer and Celery workers as processes of
their own, on PostgreSQL and Redis. A worker may die: the others go on. A part there is only one of is started again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.airflow import STOP_GRACE_S, Airflow
from demo.databases import PostgreSql, Redis
from demo.processes import LOOPBACK, Child, DemoError

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
STARTS = 3
"""A part that ended is started again, as an init system would, but it must not end for ever."""


class CeleryAirflow(Airflow):
    """`ledger_url` is known from the beginning; the database behind it is there after start()."""

    def __init__(
        self, home: Path, repository: Path, log: Path, env: Mapping[str, str], *, workers: int = 2
    ) -> None:
        super().__init__(home, repository, log, env)
        logs = log.parent
        self.postgresql, self.redis = PostgreSql(logs / "postgresql.log"), Redis(logs / "redis.log")
        self.ledger_url = f"postgresql+psycopg2://{self.postgresql.address('slotune')}"
        self._workers = [f"worker-{i}" for i in range(1, workers + 1)]
        self._children: dict[str, Child] = {}
        self._starts: dict[str, int] = {}
        self._env |= self._celery_settings()

    def _celery_settings(self) -> dict[str, str]:
        airflow = f"postgresql+psycopg2://{self.postgresql.address('airflow')}"
        return {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow,
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{airflow}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            # slotune's tasks take seconds (its waits are deferred), so a message that nobody acknowledged for ten
            # minutes has lost its worker. Airflow refuses to run one twice.
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "600",
            # A worker that died is noticed within half a minute, not five; so is what it had fetched and not begun.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "90",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
            "SLOTUNE_LEDGER_URL": self.ledger_url,
        }

    def start(self) -> None:
        self._make_home()
        self.postgresql.start()
        self.redis.start()
        for name in ("airflow", "slotune"):
            self.postgresql.create(name)
        self._migrate()
        for name in (*PARTS, *self._workers):
            self._start(name)

    def _migrate(self) -> None:
        done = subprocess.run(
            [_program(), "db", "migrate"], env=self._env, cwd=self._repository, capture_output=True, text=True,
            check=False)  # fmt: skip
        if done.returncode:
            end = " ".join(done.stderr.strip().splitlines()[-1:])
            raise DemoError(f"Airflow's database could not be made: {end}")

    def _start(self, name: str) -> None:
        self._starts[name] = self._starts.get(name, 0) + 1
        log = self._log.with_name(f"airflow-{name}.log")
        self._children[name] = Child(
            f"Airflow's {name}", self._command(name), log, env=self._env, cwd=self._repository
        )

    def _command(self, name: str) -> list[str | Path]:
        if name in self._workers:
            return [
                _program(), "celery", "worker", "--celery-hostname", f"{name}@%h", "--skip-serve-logs",
                "--without-mingle", "--pid", self._home / f"{name}.pid"]  # fmt: skip
        options = {
            "api-server": ["--host", LOOPBACK, "--port", str(self._port)],
            "scheduler": ["--skip-serve-logs"],
            "triggerer": ["--skip-serve-logs"],
        }
        return [_program(), name, *options.get(name, [])]

    def check(self) -> None:
        """Raises DemoError when a server has died, no worker is left, or a part ends whenever it is started."""
        self.postgresql.check()
        self.redis.check()
        workers = [self._children[name] for name in self._workers if name in self._children]
        if workers and not any(worker.alive for worker in workers):
            workers[0].check()
        for name in PARTS:
            part = self._children.get(name)
            if part is not None and not part.alive:
                if self._starts[name] >= STARTS:
                    part.check()
                self._start(name)

    def stop(self) -> None:
        """Workers finish their tasks, for which they need the API server; so it goes after them."""
        last = self._children.pop("api-server", None)
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(lambda child: child.stop(STOP_GRACE_S), self._children.values()))
        if last is not None:
            last.stop(STOP_GRACE_S)
        self.redis.stop()
        self.postgresql.stop()


def _program() -> Path:
    return Path(sys.executable).parent / "airflow"
