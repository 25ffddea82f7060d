"""A lever whose predictions do not hold: its plans wait for a yes, and people are told once."""

from __future__ import annotations

import pytest

from detection.model import Incident
from tests.fakes.ledger import FakeLedger
from tests.fakes.reports import plan as plan_of
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.loop import records
from tuning.loop.act import choose_action, guard_plan
from tuning.loop.coverage import asking_first, because
from tuning.model import Interval, Outcome


def verdicts(ledger: FakeLedger, now_s: float, inside: int, outside: int, first: int = 0) -> None:
    """That many verdicts of batch_size within and without their interval, the ones without last."""
    for number in range(first, first + inside + outside):
        at_s = now_s - 86_400.0 + 60.0 * number
        plan = plan_of(id=f"p{number}", incident_id=f"i{number}", service="ranker", decided_at_s=at_s)
        promised = Interval(value=100.0, low=90.0, high=110.0)
        plan = plan.model_copy(update={"chosen": plan.chosen.model_copy(update={"predicted_p95_ms": promised})})
        assert plan.chosen.levers == ("batch_size",)
        ledger.put(records.plan_record(plan))
        after_ms = 100.0 if number < first + inside else 150.0
        outcome = Outcome(id=f"{plan.id}:o", plan_id=plan.id, service="ranker", verdict="improved", at_s=at_s + 50,
                          resolved=True, p95_before_ms=400.0, p95_after_ms=after_ms)  # fmt: skip
        ledger.put(records.outcome_record(outcome, plan))


@pytest.fixture
def world() -> World:
    world = World(qps=lambda t: 60.0 if t < 120 else 180.0)
    world.wait(200)
    return world


def incident(world: World) -> Incident:
    return Incident(id="now", service="ranker", symptom="latency", tier="act", severity="critical",
                    opened_at_s=world.now_s - 60, detected_at_s=world.now_s, signals=("p95_ms",), anomalies=(), reason="slow")  # fmt: skip


def test_a_plan_of_a_lever_that_does_not_keep_its_word_waits_for_a_yes_and_says_why(world):
    ledger, mails = FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails)
    verdicts(ledger, world.now_s, 6, 12)
    plan = choose_action(loop, incident(world), world.now_s)
    assert plan.chosen.levers == ("batch_size",) and plan.mode == "approve"
    assert "too narrow" in plan.reason and "asks before it pulls" in plan.reason
    refusal = guard_plan(loop, plan, world.now_s)
    assert refusal is not None and guard_plan(loop, plan, world.now_s, approved=True) is None
    said = [mail.subject for mail in mails.mails if "asks first" in mail.subject]
    assert len(said) == 1
    asking_first(loop, loop.service("ranker"), world.now_s + 60)
    assert [mail.subject for mail in mails.mails if "asks first" in mail.subject] == said


def test_back_in_the_band_it_acts_by_itself_again_and_says_so(world):
    ledger, mails = FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails)
    verdicts(ledger, world.now_s, 3, 15)
    service, held = asking_first(loop, loop.service("ranker"), world.now_s)
    assert service.levers["batch_size"].mode == "approve" and "batch_size" in because(["batch_size"], held).replace(" ", "_")
    verdicts(ledger, world.now_s, 27, 3, first=18)
    service, held = asking_first(loop, loop.service("ranker"), world.now_s)
    assert held == {} and service.levers["batch_size"].mode != "approve"
    assert [mail.subject.partition("slotune ")[2] for mail in mails.mails] == [
        "asks first with batch size", "acts by itself again with batch size",
    ]  # fmt: skip


def test_intervals_that_always_hold_are_too_wide_to_act_on_until_some_do_not(world):
    ledger, mails = FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails)
    verdicts(ledger, world.now_s, 100, 0)
    plan = choose_action(loop, incident(world), world.now_s)
    assert plan.chosen.levers == ("batch_size",) and plan.mode == "approve"
    assert "100 of the last 100 predictions" in plan.reason and "so wide that they say little" in plan.reason
    assert guard_plan(loop, plan, world.now_s) is not None
    verdicts(ledger, world.now_s, 14, 1, first=100)
    plan = choose_action(loop, incident(world).model_copy(update={"id": "later"}), world.now_s)
    assert plan.chosen.levers == ("batch_size",) and plan.mode == "act"
    assert [mail.subject.partition("slotune ")[2] for mail in mails.mails] == [
        "asks first with batch size", "acts by itself again with batch size",
    ]  # fmt: skip


@pytest.mark.parametrize("inside", [6, 100])
def test_only_the_lever_that_is_off_asks_and_one_that_asks_already_stays_as_it_is(world, inside):
    outside = 12 if inside == 6 else 0
    services = SERVICES + "      replicas: {namespace: ml, target: ranker, min: 1, max: 4, connection: c}\n"
    loop = parts(world, FakeLedger(), KeptMails(), services)
    verdicts(loop.ledger, world.now_s, inside, outside)
    service, held = asking_first(loop, loop.service("ranker"), world.now_s)
    assert set(held) == {"batch_size"} and held["batch_size"].off == ("narrow" if outside else "wide")
    assert service.levers["replicas"].mode is None
    asks = parts(world, loop.ledger, KeptMails(), services.replace("mode: act", "mode: approve"))
    assert asking_first(asks, asks.service("ranker"), world.now_s) == (asks.service("ranker"), {})


def test_as_promised_nothing_changes_and_nobody_is_told(world):
    ledger, mails = FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails)
    verdicts(ledger, world.now_s, 27, 3)
    assert asking_first(loop, loop.service("ranker"), world.now_s) == (loop.service("ranker"), {}) and not mails.mails
