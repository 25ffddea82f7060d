"""What the demo takes for a yes, and where its person is led."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from demo.__main__ import parse_args
from demo.mailbox import Mail
from demo.person import link_of
from demo.scenarios import SCENARIOS
from demo.summary import Facts, summarise

LINK = "http://127.0.0.1:1/dags/tune_service/runs/slotune__a%2B1/tasks/approve/required_actions?map_index=-1"


def mail(text: str) -> Mail:
    return Mail("Subject", ("a@b",), Path("x.eml"), Path("x.html"), text)


def test_the_newest_request_leads():
    assert link_of([mail("nothing"), mail(f"Answer: {LINK}\nThe incident: http://127.0.0.1:1/slotune/incidents/a")]) == LINK
    newer = LINK.replace("a%2B1", "b")
    assert link_of([mail(LINK), mail(newer)]) == newer and link_of([mail("http://127.0.0.1:1/dags")]) is None


class Witness:
    seed = 0
    mailbox = property(lambda self: self)
    mails = ()

    def settings_now(self):
        return {}


@pytest.mark.parametrize(("link", "yes_at_s"), [("", 105.0), (LINK, 0.0)])
def test_without_a_link_or_a_yes_the_run_is_not_as_expected(link, yes_at_s):
    facts = Facts(SCENARIOS["approve"], slo_ms=100.0, fault_at_s=100.0, end_at_s=200.0, link=link, yes_at_s=yes_at_s)
    summary = summarise(facts, Witness(), [], [], [])
    assert summary["ok"] is False and (summary["approval"] is None) == (not yes_at_s)
    assert summarise(replace(facts, yes_by="ann", yes_at_s=105.0), Witness(), [], [], [])["approval"]["by"] == "ann"


def test_without_airflow_nobody_can_be_asked(capsys):
    with pytest.raises(SystemExit):
        parse_args(["--scenario", "approve", "--without-airflow"])
    assert "needs Airflow" in capsys.readouterr().err
