"""A task that failed is told on its channels, once an hour, also when the ledger is what is down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from detection.errors import Temporary
from slotune.compose import open_ledger
from slotune.places import ledger_url
from slotune_airflow.failures import tell_failure
from slotune_airflow.wiring import default_args
from tests.fakes.catcher import Catcher, catching

pytestmark = pytest.mark.airflow
CONFIG = """
notify: {base_url: "http://page.example/slotune", channels: [{name: oncall, by: apprise, connection: oncall}]}
services:
  - {name: ranker, serving: triton, selectors: {m: r}, slo: {p95: 1s}}
"""


@pytest.fixture
def caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catcher]:
    (tmp_path / "services.yaml").write_text(CONFIG)
    with catching() as catcher:
        monkeypatch.setenv("SLOTUNE_CONFIG", str(tmp_path / "services.yaml"))
        monkeypatch.setenv("SLOTUNE_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
        monkeypatch.setenv("SLOTUNE_CONN_ONCALL", f"apprise+json://{catcher.place}/hook")
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        yield catcher


def failed(task: str = "pull_metrics") -> dict[str, object]:
    error = Temporary("Prometheus gives no answer")
    return {"ti": SimpleNamespace(dag_id="watch_services", task_id=task), "exception": error,
            "dag_run": SimpleNamespace(dag_id="watch_services", run_id="scheduled__1")}  # fmt: skip


def test_it_is_told_once_and_another_task_for_itself(caught: Catcher) -> None:
    for task in ("pull_metrics", "pull_metrics", "open_incidents"):
        tell_failure(failed(task))
    titles = [body["title"] for body in caught.bodies]
    assert titles == ["watch_services, task pull_metrics failed", "watch_services, task open_incidents failed"]
    assert "Prometheus gives no answer" in caught.bodies[0]["message"]


def test_it_is_told_once_when_the_ledger_is_down(caught: Catcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("SLOTUNE_LEDGER_URL", f"sqlite:///{tmp_path / 'a file' / 'ledger.db'}")
    for _ in range(3):
        tell_failure(failed())
    assert len(caught.bodies) == 1


def test_a_channel_that_is_down_gets_it_later_and_nothing_is_raised(caught: Catcher) -> None:
    caught.status = 503
    tell_failure(failed())
    kept = [record for page in open_ledger(ledger_url()).pages() for record in page]
    assert next(r.phase for r in kept if r.kind == "message") == "intent" and any(r.body.get("failed") for r in kept)


def test_a_file_that_cannot_be_read_raises_nothing(caught: Catcher, tmp_path: Path) -> None:
    (tmp_path / "services.yaml").write_text("services: 7")
    tell_failure(failed())
    assert caught.bodies == []


def test_every_dag_has_it() -> None:
    assert default_args()["on_failure_callback"] is tell_failure
