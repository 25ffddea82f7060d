"""The page inside Airflow's own API application: behind its login, and in its navigation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.airflow
ROOT = Path(__file__).parents[2]
PAGES = ("/slotune/", "/slotune/incidents", "/slotune/changes", "/slotune/effects", "/slotune/review", "/slotune/health", "/slotune/metrics", "/slotune/services/ranker")


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    (home / "services.yaml").write_text("services:\n  - {name: ranker, serving: triton, selectors: {m: r}, slo: {p95: 1s}}\n")
    (home / "passwords.json").write_text(json.dumps({"admin": "admin", "viewer": "viewer"}))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "SLOTUNE"))} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,viewer:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64,
        "AIRFLOW__API__SECRET_KEY": "y" * 32,
        "SLOTUNE_CONFIG": str(home / "services.yaml"),
        "SLOTUNE_HOME": str(home / "slotune"),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    }

    def asked(requests):
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("page_probe.py")), json.dumps(requests)],
            env=environment, cwd=home, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return json.loads(done.stdout.rpartition("ANSWERS")[2])

    return asked


def test_who_may_see_what(ask):
    requests = [(None, "GET", path) for path in PAGES]
    requests += [(who, "GET", path) for who in ("admin", "viewer") for path in PAGES]
    requests += [("admin", "GET", "/api/v2/plugins")]
    requests += [(who, "POST", "/slotune/actions") for who in (None, "viewer", "admin")]
    answers = ask(requests)
    n = len(PAGES)
    assert [status for status, _ in answers[:n]] == [401] * n
    assert [status for status, _ in answers[n : 3 * n]] == [200] * 2 * n
    home, plugins = answers[n][1], json.loads(answers[3 * n][1])["plugins"]
    assert "No sweep has been recorded yet" in home and 'href="/slotune/services/ranker"' in home
    # nobody: who are you; a reader: you may not; an admin: this form says nothing
    assert [status for status, _ in answers[3 * n + 1 :]] == [401, 403, 400]
    views = [view for plugin in plugins if plugin["name"] == "slotune" for view in plugin["external_views"]]
    assert [(view["href"], view["destination"]) for view in views] == [("/slotune/", "nav")]


def test_tuning_is_started_by_whoever_may_trigger_the_dag(ask):
    form = {"service": "ranker", "lever": "let it choose", "dry_run": "yes", "why": "a try"}
    start, runs = "/slotune/start", "/api/v2/dags/tune_service/dagRuns"
    requests = [(who, "POST", start, form) for who in (None, "viewer", "admin")]
    requests += [("admin", "PATCH", "/api/v2/dags/tune_service", {"is_paused": False}), ("admin", "POST", start, form)]
    requests += [("admin", "POST", start, form | {"service": "other"}), ("admin", "GET", runs)]
    (nobody, _), (viewer, _), (paused, why), _, (begun, _), (wrong, no), (_, listed) = ask(requests)
    assert (nobody, viewer, paused, begun, wrong) == (401, 403, 400, 303, 400)
    assert "is paused in Airflow" in why and "no service is called" in no
    (run,) = json.loads(listed)["dag_runs"]
    assert run["conf"] == {"service": "ranker", "lever": "let it choose", "dry_run": True}
    assert run["triggering_user_name"] == "admin" and "a try" in run["note"]
