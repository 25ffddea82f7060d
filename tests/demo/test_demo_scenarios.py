"""Scenarios on real parts, the loop in a plain process; through Airflow's scheduler they run in tests/e2e."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(480)]


def demo(tmp_path: Path, scenario: str, *options: str) -> tuple[int, dict[str, Any], str]:
    summary = tmp_path / "summary.json"
    command = [sys.executable, "-m", "demo", "--scenario", scenario, "--once", "--without-airflow", "--seed", "3"]
    done = subprocess.run(
        [*command, "--home", str(tmp_path / "home"), "--json", str(summary), *options],
        capture_output=True, text=True, timeout=800, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    print(done.stdout, done.stderr)
    return done.returncode, json.loads(summary.read_text()), done.stdout


def test_replicas_are_added_behind_the_hpa(tmp_path: Path):
    code, summary, text = demo(tmp_path, "replicas")
    assert (code, summary["resolved"], summary["emulated"]) == (0, True, True)
    first = summary["actions"][0]
    assert (first["lever"], first["undo"]) == ("replicas", False)
    assert first["to"]["min_replicas"] > first["from"]["min_replicas"]
    assert summary["settings_after"]["replicas"] > 2
    assert summary["p95_ms"]["after"] < summary["slo_ms"] < summary["p95_ms"]["during"]
    assert "EMULATED" in text


def test_one_replica_is_changed_first_and_the_others_follow(tmp_path: Path):
    code, summary, _ = demo(tmp_path, "canary")
    assert (code, summary["resolved"]) == (0, True)
    first, second = summary["actions"]
    assert first["replica"].startswith("ranker-") and second["replica"] == ""
    assert first["lever"] == second["lever"] == "batch_size" and first["to"] == second["to"]
    assert summary["settings_after"]["batch_size"] == second["to"]["batch_size"] > 1
    assert summary["p95_ms"]["after"] < summary["slo_ms"] < summary["p95_ms"]["during"]
    mail = Path(summary["mails"][-1]["html"]).read_text()
    assert "One replica first" in mail and first["replica"] in mail and "unchanged replicas" in mail


def test_errors_without_load_are_held_with_the_reason_in_the_mail(tmp_path: Path):
    code, summary, _ = demo(tmp_path, "hold")
    assert (code, summary["ok"], summary["resolved"], summary["actions"]) == (0, True, False, [])
    assert summary["settings_after"]["batch_size"] == 1
    assert len(summary["mails"]) >= 1
    assert "error" in Path(summary["mails"][0]["html"]).read_text().lower()


def test_calm_stays_calm(tmp_path: Path):
    code, summary, _ = demo(tmp_path, "steady", "--duration", "60")
    assert (code, summary["ok"], summary["actions"], summary["mails"]) == (0, True, [], [])
    assert summary["watched_s"] >= 60
