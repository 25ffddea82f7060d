"""A run that a person started: it joins the open incident, takes a value, and refuses what does not fit at no cost."""

from __future__ import annotations

import pytest

from detection.errors import Permanent
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.loop import act, by_hand
from tuning.loop.once import run_once
from tuning.model import Plan
from tuning.query import Query


def surge(t: float) -> float:
    return 60.0 if t < 120 else 180.0


def made(mode: str = "act", **kwargs):
    world, ledger = World(**kwargs), FakeLedger()
    world.wait(60)
    return world, ledger, parts(world, ledger, KeptMails(), SERVICES.replace("mode: act", f"mode: {mode}"))


def plans(ledger) -> list[Plan]:
    return [Plan.model_validate(r.body) for r in ledger.find(Query(kinds=("choose_action",)))]


def test_a_quiet_service_gets_an_incident_of_its_own_and_a_retry_gets_the_same():
    world, _ledger, loop = made()
    incident, attempt = by_hand.incident(loop, "ranker", "run 1", world.now())
    again = by_hand.incident(loop, "ranker", "run 1", world.now() + 60)
    assert (incident.symptom, attempt) == ("by_hand", 1) and again == (incident, 1)
    assert by_hand.incident(loop, "ranker", "run 2", world.now())[0].id != incident.id


def test_an_open_incident_is_joined_with_the_next_attempt():
    world, ledger, loop = made("observe", qps=surge)
    while not plans(ledger):
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    first = plans(ledger)[0]
    incident, attempt = by_hand.incident(loop, "ranker", "run 1", world.now())
    assert incident.id == first.incident_id and attempt == first.attempt + 1
    plan = act.choose_action(loop, incident, world.now(), attempt=attempt, lever="batch_size", asked=8)
    assert plan.id != first.id
    assert by_hand.incident(loop, "ranker", "run 1", world.now()) == (incident, attempt), "a retry counts no attempt"


def test_the_value_that_was_asked_for_is_planned_with_its_prediction():
    world, _ledger, loop = made(qps=lambda t: 100.0)
    incident, attempt = by_hand.incident(loop, "ranker", "run 1", world.now())
    plan = act.choose_action(loop, incident, world.now(), attempt=attempt, lever="batch_size", asked=4)
    (change,) = plan.chosen.changes
    assert (change.old["batch_size"], change.new["batch_size"]) == (1, 4)
    assert "asked for by hand" in plan.reason and plan.settle_s > 0 and not plan.dry_run
    assert act.pull_lever(loop, plan, "batch_size", world.now()).applied and world.batch_size == 4


@pytest.mark.parametrize(
    ("lever", "asked", "why"),
    [
        ("batch_size", 64, r"outside its bounds of 1 to 32"),
        ("batch_size", 1, r"is 1 already"),
        (None, 4, r"without its lever"),
    ],
)
def test_a_value_that_does_not_fit_costs_no_attempt(lever, asked, why):
    world, ledger, loop = made()
    incident, attempt = by_hand.incident(loop, "ranker", "run 1", world.now())
    with pytest.raises(Permanent, match=why):
        act.choose_action(loop, incident, world.now(), attempt=attempt, lever=lever, asked=asked)
    assert plans(ledger) == [] and world.applies == []


def test_precision_takes_no_value():
    _world, _ledger, loop = made()
    lever = loop.service("ranker").levers["batch_size"].model_copy(update={"name": "precision"})
    with pytest.raises(Permanent, match="takes no value"):
        by_hand.check_value(lever, 8)
