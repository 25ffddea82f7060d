"""The loop as Prefect flows, in a real Prefect: an API of its own, a worker process, and the ledger of everybody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.prometheus_http import FakePrometheus
from tuning.ledger import SqlLedger
from tuning.loop import records
from tuning.query import Query

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".prefect" / "bin" / "python"
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not PYTHON.exists(), reason="no Prefect here: scripts/prefect builds its environment"),
]
SERVICES = """
prometheus: {connection: metrics, rate_window: 5s, step: 1s}
services:
  - {name: ranker, serving: slotune_demo, selectors: {service: ranker}, slo: {p95: 150ms, for: 10s}}
"""
RUNS = """
import asyncio, json
from prefect.client.orchestration import get_client

async def main():
    async with get_client() as client:
        flows = {one.id: one.name for one in await client.read_flows()}
        runs = [[flows[one.flow_id], one.state_type.value] for one in await client.read_flow_runs()]
        tasks = [[one.name, one.state_type.value] for one in await client.read_task_runs()]
        print(json.dumps({"flows": runs, "tasks": tasks}))

asyncio.run(main())
"""


@pytest.fixture
def home(tmp_path):
    prometheus = FakePrometheus()
    labels = {"service": "ranker"}
    prometheus.series["inference_request_duration_seconds_bucket"] = [(labels, lambda _at: "900")]
    prometheus.series["inference_requests_total"] = [(labels, lambda _at: "50")]
    (tmp_path / "services.yaml").write_text(SERVICES)
    yield tmp_path, prometheus
    prometheus.close()


def run(home: tuple[Path, FakePrometheus], *command: str) -> subprocess.CompletedProcess[str]:
    folder, prometheus = home
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SLOTUNE", "PREFECT"))},
        "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "prefect"), "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "SLOTUNE_CONFIG": str(folder / "services.yaml"), "SLOTUNE_HOME": str(folder), "SLOTUNE_CONN_METRICS": prometheus.url,
    }  # fmt: skip
    return subprocess.run([str(PYTHON), *command], env=env, cwd=folder, capture_output=True, text=True, timeout=280)


def once(home: tuple[Path, FakePrometheus]) -> subprocess.CompletedProcess[str]:
    return run(home, str(ROOT / "docs" / "examples" / "prefect_flows.py"), "--once")


def test_a_flow_run_is_a_sweep_and_every_attempt_a_task_run(home):
    done = once(home)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(run(home, "-c", RUNS).stdout.splitlines()[-1])
    assert seen["flows"] == [["watch-services", "COMPLETED"]]
    assert [state for name, state in seen["tasks"] if name.startswith("tune-service")] == ["COMPLETED"]
    book = SqlLedger.open(f"sqlite:///{home[0] / 'ledger.sqlite'}")
    (begun,) = book.find(Query(kinds=(records.BEGUN,)))
    assert records.run_of(begun).startswith("loop:prefect-") and begun.service == "ranker"
    kinds = {record.kind for record in book.find(Query(services=("ranker",)))}
    assert {"open_incidents", "choose_action", "email_report"} <= kinds


def test_beside_another_loop_nothing_happens_twice(home):
    """`slotune run` and the flow sweep the same ledger at the same time: one attempt, one plan, one report."""
    folder, prometheus = home
    env = {**os.environ, "SLOTUNE_CONFIG": str(folder / "services.yaml"), "SLOTUNE_HOME": str(folder), "SLOTUNE_CONN_METRICS": prometheus.url}
    env.pop("SLOTUNE_LEDGER_URL", None)
    beside = [sys.executable, "-c", "from slotune.cli import main; main()", "run", "--every", "5s"]
    loop = subprocess.Popen(beside, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        done = once(home)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        loop.send_signal(signal.SIGTERM)
        said, _ = loop.communicate(timeout=60)
    book = SqlLedger.open(f"sqlite:///{folder / 'ledger.sqlite'}")
    incidents = {record.incident_id for record in book.find(Query(kinds=("open_incidents",)))}
    assert len(incidents) == 1, said
    for kind in (records.BEGUN, "choose_action"):
        assert len(book.find(Query(kinds=(kind,)))) == 1, (kind, said, done.stdout)


def test_a_sweep_that_fails_is_a_failed_flow_run_with_its_sentence(home):
    home[1].behave = "503"
    done = once(home)
    assert done.returncode != 0 and "This sweep failed: " in done.stdout + done.stderr


def test_the_schedules_are_those_of_the_settings(home):
    """watch_every and learn_every as intervals (s), the review as cron."""
    (home[0] / "services.yaml").write_text(SERVICES + "schedule: {watch_every: 2m, learn_every: 3h, review: 0 7 * * 1}\n")
    asked = (
        f"import sys, json; sys.path.insert(0, {str(ROOT / 'docs' / 'examples')!r}); import prefect_flows\n"
        "made = prefect_flows.deployments()\n"
        "shown = lambda one: one.interval.total_seconds() if hasattr(one, 'interval') else one.cron\n"
        "print(json.dumps({one.name: [shown(s.schedule) for s in one.schedules] for one in made}))"
    )
    done = run(home, "-c", asked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"watch-services": [120.0], "learn-baselines": [10800.0], "review-week": ["0 7 * * 1"]}
