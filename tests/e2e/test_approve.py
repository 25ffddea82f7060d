"""Mode approve on real parts: a person follows the mail's link into a real Airflow, in a real browser, and says yes."""

from __future__ import annotations

import pytest

from demo.browser import find
from tests.e2e.test_demo import demo, orphans

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]


@pytest.mark.skipif(find() is None, reason="there is no Chromium on this machine")
def test_approve_a_person_follows_the_mails_link_and_says_yes(tmp_path):
    status, summary = demo(tmp_path, "--scenario", "approve")
    assert status == 0 and summary["resolved"] is True and summary["airflow_task_failures"] == 0
    given, (first, *_) = summary["approval"], summary["actions"]
    assert given["by"] == "admin" and "/required_actions" in given["link"]
    assert 0 < given["at_s"] <= first["at_s"], "nothing is changed before the yes"
    asked = [mail["subject"] for mail in summary["mails"] if "?" in mail["subject"]]
    assert asked
    assert orphans(tmp_path) == []
