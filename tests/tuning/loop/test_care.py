"""What fails in a sweep is local: named, counted, tried again, and handed to a person; the others are looked after."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from detection.errors import Temporary
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, WorldBatch, parts
from tests.tuning.loop.test_lease import Replicas, leased
from tuning import attempt as attempts
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied
from tuning.ledger import SqlLedger
from tuning.loop import act, approve, prove, records, tell, watch
from tuning.loop.care import Care
from tuning.loop.parts import Parts
from tuning.loop.reconcile import reconcile_all
from tuning.model import Change, Plan, Receipt
from tuning.policies import trouble
from tuning.services_yaml import loads

SWEEP_S, DAY_S = 300.0, 86_400.0


def harm(t: float) -> float:
    return 60.0 if t < 120 else 130.0


def changed(lever: Any = None, services: str = SERVICES, **kwargs: Any) -> tuple[World, FakeLedger, KeptMails, Parts, Plan]:
    """A change that was made; its run is called "run"."""
    world, ledger, mails = World(**{"qps": harm, "batch_hurts": 40.0, **kwargs}), FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails, services)
    if lever is not None:
        made = lever(world)
        loop = replace(loop, actuator=lambda _service, _lever: made)
    world.wait(240)
    sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now()))
    request = watch.open_incidents(loop, sweep)[0]
    plan = act.choose_action(loop, request.incident, world.now())
    act.pull_lever(loop, plan, "batch_size", world.now(), run="run")
    return world, ledger, mails, loop, plan


def sweeps(world: World, loop: Parts, seconds: float, *, still: bool = False) -> None:
    """still: for days in which nothing is measured."""
    end_s = world.now_s + seconds
    while world.now_s < end_s:
        reconcile_all(loop, world.now(), alive=lambda _run: False)
        if still:
            world.now_s += SWEEP_S
        else:
            world.wait(SWEEP_S)


class NoWayBack(WorldBatch):
    """Takes the change, and answers 403 to every call that would undo it."""

    def apply(self, service, change, *, key) -> Receipt:
        if change.new["batch_size"] == 1:
            raise ControlRefused("the control endpoint answered 403: config is frozen")
        return super().apply(service, change, key=key)


def test_a_roll_back_that_is_refused_reaches_a_person_within_two_sweeps_and_daily_and_is_not_called_one() -> None:
    world, ledger, mails, loop, plan = changed(NoWayBack)
    world.wait_until(prove.look_until_s(loop, plan))
    with pytest.raises(ControlRefused):
        outcome, decision = prove.verify_p95(loop, plan, world.now())
        prove.roll_back(loop, plan, outcome, decision, world.now())
    tell.email_report(loop, plan, world.now())
    assert "NOT undone" in mails.mails[0].subject and "Rolled back" not in mails.mails[0].text
    mails.mails.clear()
    sweeps(world, loop, 900.0)
    assert [("could not look after ranker" in m.subject, "config is frozen" in m.text) for m in mails.mails] == [(True, True)]
    sweeps(world, loop, 3 * DAY_S, still=True)
    assert len(mails.mails) == 4, "again every day"
    assert world.batch_size > 1 and len(ledger.open_changes()) == 1
    healed = replace(loop, actuator=lambda _service, _lever: WorldBatch(world))
    sweeps(world, healed, 3600.0, still=True)
    assert world.batch_size == 1 and not ledger.open_changes()
    assert any("over" in m.subject for m in mails.mails[4:]), "and told when it is over"


class OtherWayBack(WorldBatch):
    """Takes the change, and makes a value of its own of the way back."""

    def apply(self, service, change, *, key) -> Receipt:
        stood = self.world.batch_size
        assert stood == change.old["batch_size"], "it is told what really stands there"
        if change.new["batch_size"] == 1:
            self.world.batch_size = 2
            before, after = {"batch_size": stood}, {"batch_size": 2}
            raise NotApplied("the endpoint made 2 of 1", before=before, after=after)
        return super().apply(service, change, key=key)


def test_a_roll_back_of_which_the_endpoint_made_another_value_is_slotunes_doing_and_goes_on_until_it_is_back() -> None:
    world, ledger, mails, loop, plan = changed(OtherWayBack)
    world.wait_until(prove.look_until_s(loop, plan))
    with pytest.raises(NotApplied):
        outcome, decision = prove.verify_p95(loop, plan, world.now())
        prove.roll_back(loop, plan, outcome, decision, world.now())
    tell.email_report(loop, plan, world.now())
    assert "NOT undone" in mails.mails[0].subject
    sweeps(world, loop, 900.0)
    (receipt,) = attempts.read(ledger, plan.id).undo.receipts
    assert (receipt.before["batch_size"], receipt.after["batch_size"]) == (plan.chosen.changes[0].new["batch_size"], 2)
    assert not receipt.applied and receipt.changed, "in the ledger once, however often it is tried again"
    assert len(ledger.open_changes()) == 1 and any("made 2 of 1" in mail.text for mail in mails.mails[1:])
    assert not any("omebody" in mail.text for mail in mails.mails[1:]), "nobody else has set it"
    healed = replace(loop, actuator=lambda _service, _lever: WorldBatch(world))
    sweeps(world, healed, 3600.0, still=True)
    assert world.batch_size == 1 and not ledger.open_changes()


@pytest.mark.parametrize(
    "config",
    [SERVICES.replace("name: ranker", "name: other"), SERVICES[: SERVICES.index("    levers:")]],
    ids=["the service is gone from the file", "its lever is gone"],
)
def test_a_change_whose_service_or_lever_left_the_file_is_told(config: str) -> None:
    world, ledger, mails, loop, plan = changed()
    settings = loads(config)

    def actuator(service, lever):
        if lever not in service.levers:
            raise ControlRefused(f"{service.name} has no lever {lever} in services.yaml")
        return WorldBatch(world)

    services = {s.name: s for s in settings.service_values()}
    sweeps(world, replace(loop, settings=settings, services=services, actuator=actuator), 900.0)
    (mail,) = mails.mails
    assert "services.yaml" in mail.text and plan.id in mail.text and "batch_size 1" in mail.text
    assert len(ledger.open_changes()) == 1


def test_an_open_change_whose_plan_cannot_be_read_reaches_a_person(tmp_path) -> None:
    """A newer slotune wrote it: no sweep can look after it, and the others go on."""
    world, mails = World(qps=harm), KeptMails()
    ledger = SqlLedger.open(f"sqlite:///{tmp_path}/ledger.db")
    loop = parts(world, ledger, mails)
    world.wait(240)
    request = watch.open_incidents(loop, watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now())))[0]
    plan = act.choose_action(loop, request.incident, world.now())
    act.pull_lever(loop, plan, "batch_size", world.now(), run="run")
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE changes SET plan = replace(plan, '\"mode\":\"act\"', '\"mode\":\"by itself\"')")
    sweeps(world, loop, 3 * SWEEP_S)
    (mail,) = mails.mails
    assert "could not look after a change of ranker" in mail.subject
    assert plan.id in mail.text and "cannot be read (mode:" in mail.text and "may be in force" in mail.text
    sweeps(world, loop, 2 * DAY_S, still=True)
    assert len(mails.mails) == 3, "again every day"


def test_a_run_that_is_called_alive_and_does_nothing_is_taken_over_and_told() -> None:
    world, ledger, mails, loop, _plan = changed()
    soon = world.now_s + 600.0
    while world.now_s < soon:
        world.wait(60)
        reconcile_all(loop, world.now(), alive=lambda _run: True)
    assert ledger.open_changes() and mails.mails == [], "a run at work is left alone"
    end_s = world.now_s + 7200.0
    while world.now_s < end_s and ledger.open_changes():
        world.wait(300)
        reconcile_all(loop, world.now(), alive=lambda _run: True)
    assert world.batch_size == 1 and not ledger.open_changes()
    assert any("called alive" in mail.text for mail in mails.mails)


def test_one_endpoint_that_breaks_in_no_known_way_holds_up_no_other_service() -> None:
    second = SERVICES[SERVICES.index("  - name") :].replace("ranker", "zebra")
    world, ledger, mails = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails, SERVICES + second)
    world.wait(240)
    sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now()))
    for request in watch.open_incidents(loop, sweep):
        world.batch_size = 1
        plan = act.choose_action(loop, request.incident, world.now())
        act.pull_lever(loop, plan, "batch_size", world.now(), run="gone")
    assert {c.service for c in ledger.open_changes()} == {"ranker", "zebra"}

    class Breaks(WorldBatch):
        def read(self, service):
            raise RecursionError("maximum recursion depth exceeded")

    levers = {"ranker": Breaks(world), "zebra": WorldBatch(world)}
    broken = replace(loop, actuator=lambda service, _lever: levers[service.name])
    for _ in range(4):
        world.wait(120)
        reconcile_all(broken, world.now(), alive=lambda _run: False)
    assert [c.service for c in ledger.open_changes()] == ["ranker"]
    assert any("could not look after ranker" in m.subject and "recursion" in m.text for m in mails.mails)
    assert any(r.kind == "hold" and "could not look after ranker" in str(r.body) for r in ledger.records.values())


def test_a_mail_that_breaks_its_channel_is_settled_and_blocks_nothing() -> None:
    world, ledger, mails, loop, plan = changed()
    mails.error = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
    tell.email_report(loop, plan, world.now())
    mails.error = None
    assert tell.send_unsent(loop, world.now() + 300) == 0
    (sent,) = [r for r in ledger.records.values() if r.id.endswith(":sent")]
    assert "surrogates" in str(sent.body["note"])


def test_a_yes_that_comes_when_the_incident_is_over_changes_nothing() -> None:
    world, ledger, mails = World(qps=lambda t: 180.0 if 120 < t < 260 else 60.0), FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails, SERVICES.replace("mode: act", "mode: approve"))
    world.wait(240)
    request = watch.open_incidents(loop, watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now())))[0]
    plan = act.choose_action(loop, request.incident, world.now())
    yes = {"chosen_options": ["Approve"], "responded_by_user": {"name": "bob"}}
    ledger.put(records.closing_record(request.incident, world.now(), "no anomaly seen any more"))
    _, refusal = approve.answered(loop, plan, yes, world.now() + 1500.0)
    assert refusal is not None and "over" in refusal.reason
    receipt = act.pull_lever(loop, plan, "batch_size", world.now() + 1500.0)
    assert not receipt.changed and world.applies == [] and not ledger.open_changes()


STOPS = {"dry run": {"dry_run": True}, "freeze": {"freeze": ("Mon-Sun",)}}


def stopped_by(loop: Parts, how: str) -> Parts:
    safety = loop.settings.safety.model_copy(update=STOPS[how])
    return replace(loop, settings=loop.settings.model_copy(update={"safety": safety}))


@pytest.mark.parametrize("how", STOPS)
def test_a_lever_task_that_comes_after_a_stop_changes_nothing_and_the_way_back_stays_open(how: str) -> None:
    world, ledger, _mails, loop, plan = changed()
    world.wait_until(prove.look_until_s(loop, plan))
    outcome, decision = prove.verify_p95(loop, plan, world.now())
    assert decision.step == "roll_back"
    assert prove.roll_back(stopped_by(loop, how), plan, outcome, decision, world.now()) and world.batch_size == 1
    again = plan.model_copy(update={"id": "again"})
    ledger.changes.clear()
    ledger.put(records.plan_record(again))
    receipt = act.pull_lever(stopped_by(loop, how), again, "batch_size", world.now())
    assert not receipt.applied and not receipt.changed and world.batch_size == 1 and not ledger.open_changes()


UP = Change(lever="replicas", old={"replicas": 2}, new={"replicas": 4})


def on_lease(**kwargs: Any) -> tuple[World, Parts, FakeLedger, KeptMails, Replicas]:
    world = World(qps=lambda _t: 50.0)
    world.wait(200)
    return world, *leased(world, UP, limit_qps=100.0, replicas=4, **kwargs)


@pytest.mark.parametrize("theirs", [8, 3])
def test_a_value_that_a_person_set_during_a_lease_is_final(theirs: int) -> None:
    world, loop, ledger, mails, lever = on_lease()
    lever.replicas = theirs
    sweeps(world, loop, 2 * 3600.0)
    assert lever.told == [] and lever.replicas == theirs and not ledger.open_changes()
    assert [("taken over" in m.subject, f"replicas {theirs}" in m.text) for m in mails.mails] == [(True, True)]


@pytest.mark.parametrize("how", STOPS)
def test_a_stop_holds_the_steps_of_a_lease_and_an_expired_one_is_told(how: str) -> None:
    world, loop, ledger, mails, lever = on_lease()
    world.wait(120)
    sweeps(world, stopped_by(loop, how), 1800.0)
    assert lever.told == [] and mails.mails == []
    sweeps(world, stopped_by(loop, how), 3600.0)
    assert lever.told == [] and len(mails.mails) == 1 and "not handed back" in mails.mails[0].text
    for _ in range(40):
        world.wait(60)
        reconcile_all(loop, world.now(), alive=lambda _run: False)
    assert lever.replicas == 2 and not ledger.open_changes()


@pytest.mark.parametrize("broken", ["read", "apply"])
def test_a_lease_whose_lever_is_dead_reaches_a_person(broken: str) -> None:
    world, loop, ledger, mails, lever = on_lease()
    world.wait(120)

    def dead(*_args: Any, **_kwargs: Any) -> None:
        raise ControlUnreachable("gone")

    setattr(lever, broken, dead)
    sweeps(world, loop, 1200.0)
    assert len(mails.mails) == 1 and "gone" in mails.mails[0].text and len(ledger.open_changes()) == 1


def test_a_lease_that_somebody_set_back_is_closed_and_says_so() -> None:
    world, loop, ledger, _mails, lever = on_lease()
    lever.replicas = 2
    assert reconcile_all(loop, world.now(), alive=lambda _run: False) == [
        "ranker: The temporary change was set back by somebody."
    ]
    assert not ledger.open_changes()


def test_a_persons_value_between_change_and_verdict_is_left_alone() -> None:
    world, ledger, _mails, loop, plan = changed()
    world.batch_size = 5
    world.wait_until(prove.look_until_s(loop, plan))
    outcome, decision = prove.verify_p95(loop, plan, world.now())
    assert (decision.step, decision.theirs, outcome.verdict) == ("keep", True, "inconclusive")
    prove.keep(loop, plan, outcome, decision, world.now())
    assert world.batch_size == 5 and not ledger.open_changes()


def test_a_persons_value_between_verdict_and_roll_back_is_left_alone() -> None:
    world, ledger, _mails, loop, plan = changed()
    world.wait_until(prove.look_until_s(loop, plan))
    outcome, decision = prove.verify_p95(loop, plan, world.now())
    world.batch_size = 5
    assert prove.roll_back(loop, plan, outcome, decision, world.now()) == []
    assert world.batch_size == 5 and not ledger.open_changes()


def test_a_clock_that_stepped_back_after_the_change_ends_in_a_roll_back_at_the_next_sweep() -> None:
    world, _ledger, _mails, loop, plan = changed()
    reconcile_all(loop, world.now() - 3600.0, alive=lambda _run: True)
    outcome = prove.last_verdict(loop, plan)[0]
    assert world.batch_size == 1 and "clock stepped back" in outcome.reason


def test_care_tells_after_two_failures_rests_in_between_and_forgets_what_is_well() -> None:
    loop = parts(World(), FakeLedger(), mails := KeptMails())
    calls = []

    def fails() -> None:
        calls.append(1)
        raise Temporary("no")

    for n in range(40):
        care = Care(loop, 1e9 + 30.0 * n)
        care.item("x/1", "the thing", fails)
        care.end(("x/",))
    assert len(mails.mails) == 1 and len(calls) < 12
    care = Care(loop, 2e9)
    assert care.item("x/1", "the thing", lambda: "done") == "done"
    care.end(("x/",))
    assert len(mails.mails) == 2 and "over" in mails.mails[1].subject


@pytest.mark.parametrize(
    ("times", "since_last_s", "due"), [(1, 0.0, True), (2, 0.0, True), (3, 1.0, False), (3, 31.0, True), (30, 899.0, False), (30, 901.0, True), (30, -5.0, True)]
)  # fmt: skip
def test_when_a_trouble_is_tried_again(times: int, since_last_s: float, due: bool) -> None:
    known = trouble.Trouble(key="k", what="w", reason="r", since_s=0.0, last_s=1000.0, times=times)
    assert trouble.due(known, 1000.0 + since_last_s) is due


