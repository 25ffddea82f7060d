"""A replica that leaks memory under a limit: forecast, drained and replaced before it would be killed, no request lost."""

from __future__ import annotations

import pytest

from tests.e2e.test_demo import demo, orphans

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]


def test_heal_a_leaking_replica_is_replaced_before_its_limit_without_a_failed_request(tmp_path):
    status, summary = demo(tmp_path, "--scenario", "heal")
    assert status == 0 and summary["cause"] == "leaking_replica"
    (action,) = summary["actions"]
    assert action["lever"] == "restart" and list(action["to"].values()) == ["gone"] and not action["undo"]
    assert "reaches its limit of 0.315 GB in" in summary["evidence"][0]
    assert summary["failed_requests"] == 0
    assert summary["settings_after"] == {"replicas": 2, "oom_kills": 0}
    assert any("Resolved" in mail["subject"] and "restart of ranker-" in mail["subject"] for mail in summary["mails"])
    assert summary["airflow_task_failures"] == 0
    assert orphans(tmp_path) == []
