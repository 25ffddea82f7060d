"""A release by other hands that is three times slower: named with both versions, taken back, proven, mailed."""

from __future__ import annotations

import pytest

from tests.e2e.test_demo import demo

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]


def test_bad_release_the_version_is_named_and_taken_back_first(tmp_path):
    status, summary = demo(tmp_path, "--scenario", "bad-release")
    assert status == 0 and summary["resolved"] is True and summary["cause"] == "bad_release"
    assert [(a["lever"], a["from"]["version"], a["to"]["version"]) for a in summary["actions"]] == [("release", "2", "1")]
    assert any("Resolved" in mail["subject"] for mail in summary["mails"])
    assert "version 2" in summary["evidence"][0] and "version 1" in summary["evidence"][0]
    assert summary["settings_after"]["version"] == "1" and summary["settings_after"]["batch_size"] == 1
    assert summary["p95_ms"]["after"] <= summary["slo_ms"] < summary["p95_ms"]["during"]
    assert summary["airflow_task_failures"] == 0
