"""Traffic triples and there is no other server: a smaller model is lent, proven, and goes back by itself, at a price."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_demo import demo

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]


def test_degrade_a_smaller_model_is_lent_and_the_whole_one_returns(tmp_path):
    status, summary = demo(tmp_path, "--scenario", "degrade")
    assert status == 0 and summary["resolved"] is True and summary["returned"] is True
    lent, back = summary["actions"]
    assert (lent["lever"], lent["from"], lent["to"], lent["undo"]) == ("variant", {"variant": "full"}, {"variant": "small"}, False)
    assert (back["lever"], back["to"], back["undo"]) == ("variant", {"variant": "full"}, True)
    assert summary["settings_after"]["version"] == "1" and summary["settings_after"]["batch_size"] == 1
    assert summary["p95_ms"]["after"] <= summary["slo_ms"] < summary["p95_ms"]["during"]
    assert summary["goodput_rps"]["after"] > 2.5 * summary["goodput_rps"]["overloaded"]
    first, last = (Path(summary["mails"][number]["html"]).read_text() for number in (0, -1))
    assert "points" in first and "right answers on 4000 held-back rows" in last
    assert "point-minutes" in summary["mails"][-1]["subject"]
    assert summary["airflow_task_failures"] == 0
