"""The whole product on real parts: a real scheduler runs the loop against a real server, Prometheus and mailbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


def demo(tmp_path: Path, *args: str) -> tuple[int, dict]:
    """Exit status and summary of one demo run with a home of its own."""
    summary = tmp_path / "summary.json"
    command = [sys.executable, "-m", "demo", "--once", "--json", str(summary), "--home", str(tmp_path / "home"), *args]
    with (tmp_path / "demo.log").open("w") as log:
        done = subprocess.run(
            command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=840, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    print((tmp_path / "demo.log").read_text()[-6000:])
    return done.returncode, json.loads(summary.read_text())


def orphans(tmp_path: Path) -> list[str]:
    """Processes that still carry this run's home in their command line or environment."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            text = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        except OSError:
            continue
        if str(tmp_path / "home").encode() in text and int(proc.name) != os.getpid():
            found.append(f"{proc.name}: {(proc / 'cmdline').read_bytes()[:80]!r}")
    return found


def test_batch_a_surge_is_found_cured_proven_and_mailed(tmp_path):
    status, summary = demo(tmp_path, "--scenario", "batch")
    assert status == 0 and summary["resolved"] is True
    assert [action["lever"] for action in summary["actions"]] == ["batch_size"]
    assert summary["p95_ms"]["after"] <= 0.35 * summary["p95_ms"]["during"]
    assert summary["p95_ms"]["after"] <= summary["slo_ms"]
    assert summary["t_resolved_s"] <= 180
    assert len(summary["mails"]) == 1 and "Resolved" in summary["mails"][0]["subject"]
    assert summary["airflow_task_failures"] == 0
    assert orphans(tmp_path) == []


def test_steady_nothing_is_changed_and_nobody_is_mailed(tmp_path):
    status, summary = demo(tmp_path, "--scenario", "steady", "--duration", "60")
    assert status == 0
    assert summary["actions"] == [] and summary["mails"] == [] and summary["airflow_task_failures"] == 0
