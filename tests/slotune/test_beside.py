"""A learned policy beside the planner, through the whole loop: told in the mail and on the page, and never made."""

from __future__ import annotations

import dataclasses

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from slotune.cli import build_app
from slotune.views import incidents
from slotune.views.reading import Reading
from slotune.web.app import create_app
from tests.fakes.policies import weights_text
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning import planning
from tuning.ledger import SqlLedger
from tuning.loop.once import run_once

TOLD = "the learned policy ppo would have chosen"


def run(tmp_path, beside: str) -> tuple[World, KeptMails, Reading]:
    """Six minutes with a surge, as the composition root would plan it."""
    (tmp_path / "w.json").write_text(weights_text("ppo", likes="batch x2"))
    world, mails = World(qps=lambda t: 60.0 if t < 120 else 180.0), KeptMails()
    ledger = SqlLedger.open(f"sqlite:///{tmp_path / (beside or 'none')}.sqlite")
    loop = parts(world, ledger, mails, SERVICES)
    asked = loop.settings.planning.model_copy(update={"beside": beside, "beside_weights": str(tmp_path / "w.json")})
    loop = dataclasses.replace(loop, planner=planning.chosen(asked))
    world.wait(60)
    end_s = world.now_s + 360
    while world.now_s < end_s:
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    return world, mails, Reading(ledger, ledger.get_blob, loop.settings, world.now_s)


def test_it_is_told_in_mail_and_page_and_changes_nothing_that_is_done(tmp_path):
    alone, quiet, _ = run(tmp_path, "")
    world, mails, reading = run(tmp_path, "ppo")
    assert world.applies == alone.applies and world.applies
    assert world.batch_size == alone.batch_size != 2
    assert TOLD in mails.mails[0].text and "Only watching" in mails.mails[0].text
    assert TOLD not in quiet.mails[0].text and "Only watching" not in quiet.mails[0].text
    row = incidents.rows(reading)[0]
    page = TestClient(create_app(lambda: reading)).get(f"/incidents/{row.id}").text
    assert "Only watching: The learned policy ppo would have chosen batch size 1 → 2." in page


YAML = (
    "planning: {{{planning}}}\nservices:\n  - {{name: a, serving: triton, selectors: {{m: a}}, slo: {{p95: 100ms}}}}\n"
)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("planner: ppo", "there is no 'ppo'"),
        ("beside: model", "there is no 'model'"),
        ("beside: pp0", "did you mean 'ppo'?"),
        ("beside: ppo, beside_weights: gone.json", "the weights of the policy ppo cannot be read: No such file"),
    ],
)
def test_check_says_what_cannot_be_meant(tmp_path, settings, says):
    (tmp_path / "s.yaml").write_text(YAML.format(planning=settings))
    done = CliRunner().invoke(build_app(["check"]), ["check", str(tmp_path / "s.yaml")], catch_exceptions=True)
    told = " ".join((done.output + str(done.exception or "")).split())
    assert done.exit_code != 0 and says in told, told


def test_check_is_content_with_a_policy_that_watches(tmp_path):
    (tmp_path / "s.yaml").write_text(YAML.format(planning="beside: evolved"))
    done = CliRunner().invoke(build_app(["check"]), ["check", str(tmp_path / "s.yaml")])
    assert done.exit_code == 0 and "no mistakes" in done.output
