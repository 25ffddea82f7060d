"""Two Celery workers on real PostgreSQL and Redis servers: parts of Airflow are killed in the middle of a change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from tuning.errors import LedgerUnavailable
from tuning.ledger import SqlLedger
from tuning.model import OpenChange, Record
from tuning.query import Query

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
RUNNING = sa.text("SELECT id, task_id FROM task_instance WHERE dag_id = 'tune_service' AND state = 'running'")
ENDED = sa.text("SELECT state FROM dag_run WHERE dag_id = 'tune_service'")


class Demo:
    """One run of the demo that stays up when it is done, so that its databases and processes can be looked at."""

    def __init__(self, folder: Path) -> None:
        self.home, self.summary_file, self.log = folder / "home", folder / "summary.json", folder / "demo.log"
        command = [
            sys.executable, "-m", "demo", "--scenario", "batch", "--executor", "celery", "--duration", "420",
            "--baseline", "0.2",  # little enough that a busy machine leaves the SLO alone until the surge
            "--json", self.summary_file, "--home", self.home]  # fmt: skip
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )

    def wait(self, true: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.5) -> Any:
        """Poll until `true` gives something; fails when the demo ends before that."""
        deadline = time.monotonic() + timeout_s
        while not (found := true()):
            assert self.process.poll() is None, f"the demo ended before {what}:\n{self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"no {what} in {timeout_s:.0f} s:\n{self.log.read_text()[-4000:]}"
            time.sleep(every_s)
        return found

    def wait_until_started(self) -> None:
        self.wait(lambda: "Airflow is ready" in self.log.read_text(), 400.0, "Airflow")
        lines = (self.home / "run" / "env.sh").read_text().splitlines()
        url = next(line.split("'")[1] for line in lines if line.startswith("export SLOTUNE_LEDGER_URL="))
        self.ledger = SqlLedger.open(url)
        self.airflow = sa.create_engine(url.removesuffix("/slotune") + "/airflow", poolclass=sa.NullPool)

    def part(self, words: str) -> psutil.Process:
        """The part of Airflow whose command line has these words."""
        return next(child for child in psutil.Process(self.process.pid).children() if words in command_of(child))

    def open_change(self) -> OpenChange | None:
        try:
            return next(iter(self.ledger.open_changes()), None)
        except LedgerUnavailable:
            return None

    def running(self) -> dict[str, str]:
        """Task instances of tune_service that run now: id, task."""
        with self.airflow.connect() as connection:
            return {str(row.id): row.task_id for row in connection.execute(RUNNING)}

    def worker_at_work(self) -> tuple[str, str] | None:
        """(worker, task) of a task of tune_service that a worker is running now."""
        tasks = self.running()
        for name in ("worker-1", "worker-2"):
            for child in self.part(f"{name}@").children(recursive=True):
                for instance, task in tasks.items():
                    if instance in command_of(child):
                        return name, task
        return None

    def summary(self, timeout_s: float) -> dict[str, Any]:
        self.wait(self.summary_file.is_file, timeout_s, "summary")
        time.sleep(0.5)  # it is written in one go
        return dict(json.loads(self.summary_file.read_text()))

    def runs_ended(self) -> bool:
        with self.airflow.connect() as connection:
            return all(row.state in ("success", "failed") for row in connection.execute(ENDED))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            kill(psutil.Process(self.process.pid))


def command_of(process: psutil.Process) -> str:
    """Empty when the process has ended, waited for or not."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill(process: psutil.Process) -> None:
    """SIGKILL to a process and all that it started: a machine that loses power says no goodbye."""
    for one in (process, *process.children(recursive=True)):
        one.kill()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    try:
        yield running
    finally:
        running.stop()
        print(running.log.read_text()[-6000:])


def assert_cured_once(demo: Demo, summary: dict[str, Any], plan: str) -> None:
    """The change whose worker died: made exactly once, proven, kept and mailed once. And the incident ends resolved, by
    that change or, on a machine whose speed swings, by a further step of the same lever."""
    assert summary["ok"] is True and summary["resolved"] is True
    assert {action["lever"] for action in summary["actions"]} == {"batch_size"}
    assert summary["p95_ms"]["after"] <= summary["slo_ms"]

    demo.wait(demo.runs_ended, 240.0, "end of the runs")
    demo.wait(lambda: demo.open_change() is None, 60.0, "end of the last change")
    records = sorted(demo.ledger.find(Query()), key=lambda r: r.at_s)
    steps = [r for r in records if plan in (r.id, r.parent_id)]
    receipts = [r for r in steps if r.kind == "adjust_batch_size" and r.phase == "result" and r.body["changed"]]
    assert [r.body["before"]["batch_size"] for r in receipts] == [1]
    assert receipts[0].body["after"]["batch_size"] > 1
    assert one(steps, "adjust_batch_size", "intent")
    assert one(steps, "choose_action") and one(steps, "keep")
    assert [r.body["verdict"] for r in steps if r.kind == "verify_p95"][-1] == "improved"
    assert not [r for r in records if r.kind == "roll_back"]
    report = one(steps, "email_report", "intent")
    sent = [r.parent_id for r in records if r.kind == "email_report" and r.phase == "result"]
    assert sent.count(report.id) == 1
    assert [r.body["resolved"] for r in records if r.kind == "verify_p95"][-1] is True
    assert any("Resolved" in path.read_text() for path in sorted((demo.home / "run" / "mails").glob("*.eml")))
    assert summary["airflow_task_failures"] == 0, summary["airflow_failed_tasks"]


def one(records: list[Record], kind: str, phase: str = "result") -> Record:
    (found,) = [r for r in records if r.kind == kind and r.phase == phase]
    return found


def test_a_worker_that_is_killed_in_the_middle_of_a_change_leaves_it_proven_and_kept(demo):
    demo.wait_until_started()
    demo.wait(lambda: " t0: " in demo.log.read_text(), 400.0, "surge")
    change = demo.wait(demo.open_change, 400.0, "change", every_s=0.03)
    assert change.state in ("intended", "made")
    name, task = demo.wait(demo.worker_at_work, 120.0, "task of the change on a worker", every_s=0.03)
    kill(demo.part(f"{name}@"))
    killed_at_s = time.time()
    assert demo.open_change() is not None, "the change was settled before the worker died"
    summary = demo.summary(420.0)
    print(f"killed {name} in {task}, state {change.state}; summary {time.time() - killed_at_s:.0f} s later")
    assert_cured_once(demo, summary, change.plan_id)
    other = {"worker-1": "worker-2", "worker-2": "worker-1"}[name]
    assert demo.part(f"{other}@").is_running()
    with pytest.raises(StopIteration):
        demo.part(f"{name}@")
