"""More comes than the only replica carries and nothing else is left: what would be late is refused, for as long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_demo import demo

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]


def test_admission_what_is_answered_is_answered_in_time_and_the_limit_returns(tmp_path):
    status, summary = demo(tmp_path, "--scenario", "admission")
    assert status == 0 and summary["resolved"] is True and summary["returned"] is True
    lent, back = summary["actions"]
    assert (lent["lever"], lent["from"], lent["undo"]) == ("admission", {"queue_limit": 5000}, False)
    assert 4 <= lent["to"]["queue_limit"] < 5000
    assert (back["lever"], back["to"], back["undo"]) == ("admission", {"queue_limit": 5000}, True)
    assert summary["p95_ms"]["after"] <= summary["slo_ms"] < summary["p95_ms"]["during"]
    goodput = summary["goodput_rps"]
    assert goodput["after"] > 2.5 * goodput["overloaded"] and goodput["after"] > 0.8 * summary["capacity_rps"]
    assert summary["failed_requests"] > 0, "some were refused"
    assert "requests refused" in summary["mails"][-1]["subject"]
    assert "Refused" in Path(summary["mails"][0]["html"]).read_text()
    assert summary["airflow_task_failures"] == 0
