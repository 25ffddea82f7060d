"""Language models on real parts: Airflow's scheduler, Prometheus and a Deployment of emulated engines that restart."""

from __future__ import annotations

import pytest

from tests.e2e.test_demo import demo, orphans

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("scenario", "raised"), [("llm-concurrency", True), ("llm-kv", False)])
def test_the_limit_of_running_requests_is_moved_the_right_way_and_proven(tmp_path, scenario, raised):
    status, summary = demo(tmp_path, "--scenario", scenario)
    assert status == 0 and summary["resolved"] is True
    (action,) = summary["actions"]
    assert action["lever"] == "batch_size"
    limits = action["to"]["max_num_seqs"], action["from"]["max_num_seqs"]
    assert (limits[0] > limits[1]) is raised
    assert summary["p95_ms"]["after"] <= 0.35 * summary["p95_ms"]["during"]
    assert summary["p95_ms"]["after"] <= summary["slo_ms"]
    assert summary["failed_requests"] == 0, "a replica that is replaced ends its answers first"
    assert len(summary["mails"]) == 1 and "Resolved" in summary["mails"][0]["subject"]
    assert summary["airflow_task_failures"] == 0
    assert orphans(tmp_path) == []
