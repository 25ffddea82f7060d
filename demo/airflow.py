"""`airflow standalone` for the demo: its own home, loopback, free ports, stopped without orphans."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from demo import web
from demo.processes import LOOPBACK, Child, free_port, wait_until

STOP_GRACE_S = 20.0
"""A clean stop takes 5 to 8 s, longer while tasks run; what is left afterwards is ended by id."""

ASK_TIMEOUT_S = 15.0
"""While it starts on a busy machine, its API server may need long for an answer."""


class Airflow:
    """start(), wait_ready(), stop(), and the few questions that the demo asks its REST API."""

    def __init__(self, home: Path, repository: Path, log: Path, env: Mapping[str, str]) -> None:
        self._home, self._repository, self._log = home, repository, log
        self._port, self._ports = free_port(), (free_port(), free_port())
        self.url = f"http://{LOOPBACK}:{self._port}"
        self._env = {**os.environ, **self._settings(), **env}
        self._child: Child | None = None
        self._token = ""

    def start(self) -> None:
        self._make_home()
        program = Path(sys.executable).parent / "airflow"
        self._child = Child(
            "Airflow", [program, "standalone"], self._log, env=self._env, cwd=self._repository,
            stop_signal=signal.SIGINT)  # fmt: skip

    def _make_home(self) -> None:
        """An empty one: what earlier demos left would only confuse this one."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        (self._home / "passwords.json").write_text(json.dumps({"admin": "admin"}))
        (self._home / "config").mkdir()
        shutil.copy(Path(__file__).with_name("airflow_local_settings.py"), self._home / "config")

    def _settings(self) -> dict[str, str]:
        """Quiet, small and fast: two cores are shared with everything that is measured."""
        worker_logs, trigger_logs = self._ports
        return {
            # standalone starts its parts by name
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(self._home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._repository / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self._repository / "plugins"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "5",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._home / "passwords.json"),
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self._port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "600",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def ready(self) -> bool:
        self.check()
        try:
            health = web.call(f"{self.url}/api/v2/monitor/health", timeout_s=2.0)
            return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def wait_ready(self, timeout_s: float = 180.0) -> None:
        wait_until(self.ready, timeout_s, "Airflow becoming ready", every_s=0.5)

    def get(self, path: str) -> Any:
        """GET /api/v2/<path> as admin. Raises OSError."""
        if not self._token:
            self._token = self._new_token()
        try:
            return web.call(f"{self.url}/api/v2/{path}", token=self._token, timeout_s=ASK_TIMEOUT_S)
        except OSError:
            self._token = self._new_token()  # it expires after a day; once more decides
            return web.call(f"{self.url}/api/v2/{path}", token=self._token, timeout_s=ASK_TIMEOUT_S)

    def _new_token(self) -> str:
        reply = web.call(f"{self.url}/auth/token", {"username": "admin", "password": "admin"}, timeout_s=ASK_TIMEOUT_S)
        return str(reply["access_token"])

    def runs(self, dag_id: str, state: str | None = None) -> int:
        """How many runs a DAG has; 0 while the DAG is not known yet."""
        suffix = f"&state={state}" if state else ""
        try:
            return int(self.get(f"dags/{dag_id}/dagRuns?limit=1{suffix}")["total_entries"])
        except OSError:
            return 0

    def sweeps(self) -> int:
        """How many sweeps over the services have succeeded."""
        return self.runs("watch_services", "success")

    def task_failures(self) -> list[str]:
        """ "dag.task (run): state" of every task instance that failed."""
        states = "&".join(f"state={state}" for state in ("failed", "upstream_failed"))
        found = self.get(f"dags/~/dagRuns/~/taskInstances?limit=100&{states}")["task_instances"]
        return [f"{t['dag_id']}.{t['task_id']} ({t['dag_run_id']}): {t['state']}" for t in found]

    def yes(self) -> list[dict[str, Any]]:
        """Every request of a plan that a person said yes to, as Airflow tells it: who, when."""
        found = self.get("dags/tune_service/dagRuns/~/hitlDetails?limit=100&response_received=true")["hitl_details"]
        return [one for one in found if "Approve" in (one["chosen_options"] or []) and one["responded_by_user"]]

    def import_errors(self) -> list[str]:
        """What keeps a DAG file from being loaded; nothing while Airflow is too busy to say."""
        try:
            found = self.get("importErrors?limit=20")["import_errors"]
        except OSError:
            return []
        return [f"{e['filename']}: {e['stack_trace'].strip().splitlines()[-1]}" for e in found]

    def run_url(self, dag_id: str, run_id: str) -> str:
        return f"{self.url}/dags/{dag_id}/runs/{quote(run_id)}"

    def check(self) -> None:
        if self._child is not None:
            self._child.check()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(STOP_GRACE_S)
