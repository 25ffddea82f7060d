"""Mode approve: what each answer of a person leads to, and what no answer leads to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from detection.model import Incident
from tests.fakes.ledger import FakeLedger
from tests.fakes.replicas import Fleet, FleetBatch, fleet_parts
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.loop import act, approve, canary, tell, watch
from tuning.loop.approve import answered
from tuning.loop.parts import Parts
from tuning.model import Plan
from tuning.report import approval, render

ASKING = SERVICES.replace("mode: act", "mode: approve")
EVIL = '<script>alert("x")</script>{{ 7*7 }}{% include "x" %}\r\nBcc: evil@example.com'


def planned(loop: Parts, world: World) -> Plan:
    """The plan for a surge, as the run of tune_service makes it."""
    world.wait(200)
    (request,) = watch.open_incidents(loop, watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now())))
    plan = act.choose_action(loop, Incident.model_validate(request.incident), world.now())
    assert plan.chosen.changes and plan.mode == "approve"
    return plan


@pytest.fixture
def asked() -> tuple[World, FakeLedger, Parts, Plan]:
    world, ledger = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger()
    loop = parts(world, ledger, KeptMails(), ASKING)
    return world, ledger, loop, planned(loop, world)


def answer(*options: str, by: str | None = "ada", timedout: bool = False, **inputs: Any) -> dict[str, Any]:
    """The XCom of Airflow's human-in-the-loop operator."""
    user = {"id": "7", "name": by} if by else None
    return {"chosen_options": list(options), "params_input": inputs, "responded_by_user": user, "timedout": timedout}


def test_without_a_yes_the_guards_refuse(asked) -> None:
    world, _ledger, loop, plan = asked
    refusal = act.guard_plan(loop, plan, world.now())
    assert refusal is not None and refusal.guard == "approval"
    assert act.guard_plan(loop, plan, world.now(), approved=True) is None
    assert world.batch_size == 1


def test_approved_as_it_stands(asked) -> None:
    world, _ledger, loop, plan = asked
    assert answered(loop, plan, answer("Approve"), world.now()) == (plan, None)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer("Reject", comment="not before Monday"), "Rejected by ada. Comment: not before Monday"),
        (answer("Reject", by=None, timedout=True), "Nobody answered in time, so nothing is changed."),
        (answer("Reject", by=None), "Nobody answered in time, so nothing is changed."),
        (answer("Approve", min_replicas=3), "ada edited min_replicas, which this plan does not change."),
        ({}, "Nobody answered in time, so nothing is changed."),
        (answer(), "Rejected by ada."),
    ],
    ids=["rejected", "no answer in time", "defaults", "edited what is not in it", "no XCom", "no option"],
)
def test_anything_but_a_yes_changes_nothing_and_says_why(asked, given: dict[str, Any], reason: str) -> None:
    world, ledger, loop, plan = asked
    same, refusal = answered(loop, plan, given, world.now())
    assert same == plan and refusal is not None and (refusal.guard, refusal.reason) == ("approval", reason)
    assert any(r.body.get("reason") == reason for r in ledger.records.values())
    assert world.batch_size == 1 and not ledger.open_changes()


def test_an_edit_within_the_bounds_is_what_is_changed_and_who_did_it_is_written_down(asked) -> None:
    world, ledger, loop, plan = asked
    edited, refusal = answered(loop, plan, answer("Approve", batch_size=16, comment="rather 16"), world.now())
    assert refusal is None and act.guard_plan(loop, edited, world.now(), approved=True) is None
    assert edited.id != plan.id and edited.chosen.changes[0].new["batch_size"] == 16
    assert edited.chosen.predicted_p95_ms is None, "what was predicted was predicted for another value"
    assert "Approved by ada with batch_size: 16. Comment: rather 16" in edited.reason
    assert Plan.model_validate(ledger.get(edited.id).body) == edited
    act.pull_lever(loop, edited, "batch_size", world.now())
    assert world.batch_size == 16 and [c.plan_id for c in ledger.open_changes()] == [edited.id]


@pytest.mark.parametrize("size", [0, 33, -1, 10**9])
def test_an_edit_beyond_the_bounds_is_refused_by_the_guards(asked, size: int) -> None:
    world, _ledger, loop, plan = asked
    edited, refusal = answered(loop, plan, answer("Approve", batch_size=size), world.now())
    assert refusal is None
    refusal = act.guard_plan(loop, edited, world.now(), approved=True)
    assert refusal is not None and refusal.guard == "bounds" and world.batch_size == 1


def test_the_same_edit_asked_twice_is_one_plan(asked) -> None:
    world, ledger, loop, plan = asked
    first = answered(loop, plan, answer("Approve", batch_size=16), world.now())[0]
    count = len(ledger.records)
    assert answered(loop, plan, answer("Approve", batch_size=16), world.now())[0] == first
    assert len(ledger.records) == count


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_a_hostile_comment_is_text_in_the_mail_that_follows(asked, option: str) -> None:
    world, _ledger, loop, plan = asked
    given = answer(option, by=EVIL, batch_size=16 if option == "Approve" else None, comment=EVIL)
    approved, refusal = answered(loop, plan, given, world.now())
    act.hold(loop, approved, world.now(), refusal.reason if refusal else approved.reason)
    mail = render(tell.email_report(loop, approved, world.now()))
    assert "alert" in mail.html and "<script" not in mail.html and "7*7" in mail.html and "49" not in mail.subject
    assert "\n" not in mail.subject and "\r" not in mail.subject
    assert "\nBcc:" not in mail.text


@pytest.mark.parametrize(
    ("services", "labelled", "says"),
    [
        (
            ASKING,
            True,
            "One replica first: as things stand ranker-0 is changed alone and compared with 2 unchanged ones",
        ),
        (ASKING, False, "All replicas are changed at once: only 0 of 3 replicas shows a P95 of its own"),
        (ASKING.replace("max: 32,", "max: 32, canary: false,"), True, ""),
    ],
    ids=["one first", "no series of their own", "switched off"],
)
def test_the_request_says_whether_one_replica_comes_first(services: str, labelled: bool, says: str) -> None:
    world = Fleet(qps=lambda t: 180.0 if t < 120 else 480.0)
    world.labelled = labelled
    loop = fleet_parts(world, FakeLedger(), KeptMails(), FleetBatch(world), services)
    plan = planned(loop, world)
    told = canary.foretold(loop, plan, world.now())
    assert told.startswith(says) and bool(told) == bool(says)
    assert ("**How**" in approval.body(plan, told)) == bool(says)
    assert world.applies == []


@pytest.mark.parametrize(
    ("approvers", "by", "counts"),
    [("[ada]", "ada", True), ("['7']", "ada", True), ("[]", "eve", True), ("[ada]", "eve", False), ("[ad]", "ada", False),
     ("[ada]", None, False)],
)  # fmt: skip
def test_whose_yes_counts(approvers: str, by: str | None, counts: bool) -> None:
    world, ledger = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger()
    loop = parts(world, ledger, KeptMails(), ASKING.replace("safety: {", f"safety: {{approvers: {approvers}, "))
    plan = planned(loop, world)
    approved, refusal = answered(loop, plan, answer("Approve", by=by, comment="ada"), world.now())
    assert (refusal is None) == counts
    if refusal is not None:
        assert refusal.guard == "approval" and "not among safety.approvers" in refusal.reason
        assert approved == plan and world.batch_size == 1


def test_people_are_asked_with_a_link_reminded_once_at_half_time_and_told_the_answer(asked) -> None:
    world, _ledger, loop, plan = asked
    (kept,) = loop.notifiers
    loop = replace(loop, page="http://page.example/slotune")
    at_s, half_s = world.now(), loop.settings.safety.approval_timeout_s / 2
    asked_of = approve.ask(loop, plan, at_s, answer_url="http://airflow.example/answer")
    approve.ask(loop, plan, at_s, answer_url="http://airflow.example/answer")
    assert "| option | predicted | cost | why not |" in asked_of["body"] or "No other option" in asked_of["body"]
    for later_s in (10.0, half_s - 30.0, half_s + 30.0, half_s + 60.0, 2 * half_s - 1.0, 2 * half_s + 60.0):
        watch.tell_what_stands(loop, at_s + later_s)
    first, second = kept.mails
    assert (first.event, first.urgent, first.ends_s) == ("approval", True, at_s + 2 * half_s)
    assert first.url == "http://airflow.example/answer" and first.url in first.html and "/slotune/incidents/" in first.text
    assert "Reminder" in second.subject and "minutes are left" in second.text and second.url == first.url
    answered(loop, plan, answer("Approve", comment="go"), at_s + 2 * half_s)
    told = kept.mails[-1]
    assert "approved by ada" in told.subject and "Comment: go" in told.text and told.over


@pytest.mark.parametrize("given", [answer("Reject"), answer("Approve"), answer("Approve", batch_size=16)])
def test_who_has_answered_is_not_reminded(asked, given) -> None:
    world, _ledger, loop, plan = asked
    (kept,) = loop.notifiers
    approve.ask(loop, plan, world.now())
    approved, refusal = answered(loop, plan, given, world.now() + 60)
    if refusal is None:
        act.pull_lever(loop, approved, "batch_size", world.now() + 60)
    watch.tell_what_stands(loop, world.now() + loop.settings.safety.approval_timeout_s * 0.6)
    assert len(kept.mails) == 2 and not any("Reminder" in mail.subject for mail in kept.mails)


def test_the_fields_are_those_of_the_plans_own_levers_and_the_lines_are_short(asked) -> None:
    world, _ledger, _loop, plan = asked
    assert approve.editable(plan) == ("batch_size",)
    lines = dict(approval.rows(plan, until_s=world.now()))
    assert list(lines) == ["What", "Why", "Cause", "Predicted", "Cost", "Risk", "Undone", "Answer by"]
    assert lines["What"].startswith("batch size 1 →") and "back to batch size 1" in lines["Undone"]
