"""Airflow as clusters run it: api-server, scheduler, dag-processor, triggerer and Celery workers as processes of
their own, on PostgreSQL and Redis. Any worker may die; the others go on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from demo.airflow import STOP_GRACE_S, Airflow
from demo.databases import PostgreSql, Redis
from demo.processes import Child, DemoError, free_port

PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")


class CeleryAirflow(Airflow):
    """`workers`: the Celery workers by name; `kill_worker` ends one without a word, as a machine that loses power."""

    def __init__(
        self, home: Path, repository: Path, log: Path, env: Mapping[str, str], *, workers: int = 2
    ) -> None:
        super().__init__(home, repository, log, env)
        logs = log.parent
        self.postgresql, self.redis = PostgreSql(logs / "postgresql.log"), Redis(logs / "redis.log")
        self._worker_names = [f"worker-{i}" for i in range(1, workers + 1)]
        self._parts: dict[str, Child] = {}
        self._killed: set[str] = set()

    def start(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        (self._home / "passwords.json").write_text(json.dumps({"admin": "admin"}))
        (self._home / "config").mkdir()
        shutil.copy(Path(__file__).with_name("airflow_local_settings.py"), self._home / "config")
        self.postgresql.start()
        self.redis.start()
        airflow, ledger = self.postgresql.database("airflow"), self.postgresql.database("slotune")
        self._env |= {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{airflow}",
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{airflow}",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "600",
            # A worker that died is noticed within half a minute, not five.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
            "SLOTUNE_LEDGER_URL": f"postgresql+psycopg2://{ledger}",
        }
        program = Path(sys.executable).parent / "airflow"
        migrated = subprocess.run(
            [program, "db", "migrate"], env=self._env, cwd=self._repository, capture_output=True, text=True, check=False
        )
        if migrated.returncode:
            raise DemoError(f"Airflow's database could not be made: {migrated.stderr.strip().splitlines()[-1:]}")
        for part in PARTS:
            options = ["--host", "127.0.0.1", "--port", str(self._port)] if part == "api-server" else []
            self._start(part, [program, part, *options])
        for name in self._worker_names:
            self._start(name, [program, "celery", "worker", "--celery-hostname", f"{name}@%h", "--without-mingle"])

    def _start(self, name: str, command: list[str | Path]) -> None:
        env = {**self._env, "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port())}
        log = self._log.with_name(f"airflow-{name}.log")
        self._parts[name] = Child(f"Airflow's {name}", command, log, env=env, cwd=self._repository)

    def kill_worker(self, name: str) -> None:
        """SIGKILL to a worker and everything it started."""
        self._killed.add(name)
        self._parts[name].kill()

    def check(self) -> None:
        self.postgresql.check()
        self.redis.check()
        for name, part in self._parts.items():
            if name not in self._killed:
                part.check()

    @property
    def ledger_url(self) -> str:
        return self._env["SLOTUNE_LEDGER_URL"]

    def stop(self) -> None:
        for part in reversed(self._parts.values()):
            part.stop(STOP_GRACE_S)
        self.redis.stop()
        self.postgresql.stop()
