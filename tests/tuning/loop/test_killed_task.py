"""A task that is killed and run again by its scheduler: nothing is done twice, and what was made is proven."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails, World, WorldBatch, parts
from tuning.attempt import value
from tuning.loop import act, late, once, prove, reconcile, records, tell
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Plan, Receipt, Report
from tuning.query import Query


class Killed(BaseException):
    """SIGKILL: no handler runs."""


class DeadlyBatch(WorldBatch):
    """The lever of a process that dies: before the change, or after it and before anybody could write it down."""

    def __init__(self, world: World, after: bool) -> None:
        super().__init__(world)
        self._after = after

    def apply(self, service, change, *, key) -> Receipt:
        if self._after:
            super().apply(service, change, key=key)
        raise Killed


def killed_at_the_lever(*, after: bool) -> tuple[World, FakeLedger, Parts, Plan, KeptMails]:
    """A surge whose first change kills its process; the parts of the process that runs the task again."""
    world, ledger, mails = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger(), KeptMails()
    healthy = parts(world, ledger, mails)
    dying = replace(healthy, actuator=lambda _service, _lever: DeadlyBatch(world, after))
    world.wait(60)
    with pytest.raises(Killed):
        for _ in range(40):
            run_once(dying, world.now, world.wait_until)
            world.wait(15)
    (opened,) = ledger.open_changes()
    assert opened.state == "intended" and world.batch_size == (
        opened.plan.chosen.changes[0].new["batch_size"] if after else 1
    )
    world.wait(35)  # until the scheduler misses its heartbeat, and the delay before the retry
    return world, ledger, healthy, opened.plan, mails


def go_on(world: World, loop: Parts, plan: Plan) -> Report:
    """What the scheduler runs from the killed task on."""
    once._change_and_prove(loop, plan, world.now, world.wait_until, run="run")
    return tell.email_report(loop, plan, world.now())


@pytest.mark.parametrize("after", [False, True], ids=["before the change", "after the change"])
def test_a_lever_task_killed_around_the_change_is_run_again_proven_kept_and_mailed(after):
    world, ledger, loop, plan, mails = killed_at_the_lever(after=after)
    intended_s = ledger.open_changes()[0].opened_at_s
    report = go_on(world, loop, plan)
    (receipt,) = records.receipts(ledger, plan)
    assert receipt.changed and receipt.before["batch_size"] == 1
    assert receipt.after["batch_size"] == world.batch_size > 1
    assert (receipt.at_s == intended_s) is after
    assert {tuple(apply.items()) for apply in world.applies} == {tuple(plan.chosen.changes[0].new.items())}
    assert report.outcome.verdict == "improved" and report.decision.step == "keep"
    assert not ledger.open_changes() and len(mails.mails) == 1 and "Resolved" in mails.mails[0].subject


def swept(world: World, loop: Parts, plan: Plan) -> None:
    """No scheduler runs the task again: sweeps find what it left, until that is over."""
    for _ in range(40):
        reconcile.reconcile_all(loop, world.now(), alive=lambda _run: False)
        if plan.id not in {change.plan_id for change in loop.ledger.open_changes()}:
            return
        world.wait(15)
    raise AssertionError("no sweep ended it")


def test_a_lever_whose_run_died_before_the_call_is_chosen_again_for_the_same_incident():
    world, ledger, loop, plan, mails = killed_at_the_lever(after=False)
    swept(world, loop, plan)
    assert world.batch_size == 1 and not records.receipts(ledger, plan)
    for _ in range(40):
        run_once(loop, world.now, world.wait_until)
        if world.batch_size > 1 and not ledger.open_changes():
            break
        world.wait(15)
    made = [r for r in ledger.find(Query(kinds=("adjust_batch_size",), phase="result")) if r.body.get("changed")]
    (again,) = (records.load(ledger, str(r.parent_id), Plan) for r in made)
    assert again.incident_id == plan.incident_id and again.id != plan.id
    assert again.chosen.changes == plan.chosen.changes
    assert "Resolved" in mails.mails[-1].subject


def test_a_lever_whose_calls_keep_getting_lost_is_given_up():
    world, ledger, loop, plan, _mails = killed_at_the_lever(after=False)
    dying = replace(loop, actuator=lambda _service, _lever: DeadlyBatch(world, False))
    swept(world, loop, plan)
    with pytest.raises(Killed):
        for _ in range(40):
            run_once(dying, world.now, world.wait_until)
            world.wait(15)
    (opened,) = ledger.open_changes()
    assert opened.incident_id == plan.incident_id
    swept(world, loop, opened.plan)
    for _ in range(20):
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    plans = [value(r, Plan) for r in ledger.find(Query(kinds=("choose_action",), incident_ids=(plan.incident_id,)))]
    assert sum("batch_size" in one.chosen.levers for one in plans if one is not None) == 2
    assert world.batch_size == 1


def test_a_lever_task_that_is_run_a_third_time_adds_no_receipt():
    world, ledger, loop, plan, _mails = killed_at_the_lever(after=True)
    first = act.pull_lever(loop, plan, "batch_size", world.now())
    world.wait(10)
    assert act.pull_lever(loop, plan, "batch_size", world.now()) == first
    assert len(records.receipts(ledger, plan)) == 1 and not prove.nothing_changed(loop, plan)


def test_a_value_that_was_there_before_the_first_try_is_nobodys_change():
    world, ledger, mails = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger(), KeptMails()
    healthy = parts(world, ledger, mails)
    dying = replace(healthy, actuator=lambda _service, _lever: DeadlyBatch(world, False))
    world.wait(60)
    with pytest.raises(Killed):
        for _ in range(40):
            run_once(dying, world.now, world.wait_until)
            world.wait(15)
    plan = ledger.open_changes()[0].plan
    ledger.changes.clear()  # as if this were the first try
    del ledger.records[f"{plan.id}:intent"]
    world.batch_size = plan.chosen.changes[0].new["batch_size"]
    receipt = act.pull_lever(healthy, plan, "batch_size", world.now())
    assert receipt.applied and not receipt.changed


@pytest.mark.parametrize("answered", [True, False], ids=["every call was answered", "a call may be on its way"])
def test_a_value_that_was_rolled_back_and_is_set_again_is_a_persons_unless_a_call_was_never_answered(answered):
    """Rolled back, and a minute later the very value that was rolled back is in force."""
    world, ledger, mails = World(qps=lambda t: 60.0 if t < 120 else 130.0, batch_hurts=40.0), FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails)
    dying = loop if answered else replace(loop, actuator=lambda _service, _lever: DeadlyBatch(world, False))
    world.wait(60)
    made: list[int] = []
    for _ in range(40):
        try:
            run_once(dying, world.now, world.wait_until)
        except Killed:
            world.wait(35)
            go_on(world, loop, ledger.open_changes()[0].plan)
        made = [apply["batch_size"] for apply in world.applies]
        if len(made) == 2:
            break
        world.wait(15)
    assert made[0] > 1 and made[1] == world.batch_size == 1 and not ledger.open_changes()
    world.wait(60)
    world.batch_size = made[0]
    said = late.reopen(loop, world.now())
    assert world.batch_size == (made[0] if answered else 1)
    assert bool(said) is not answered and len(ledger.open_changes()) == (0 if answered else 1)


def test_a_roll_back_killed_after_it_was_made_is_run_again_and_verified():
    # A larger batch is far slower, so the verdict is "worse" and the change is rolled back.
    world, ledger, mails = World(qps=lambda t: 60.0 if t < 120 else 130.0, batch_hurts=40.0), FakeLedger(), KeptMails()
    healthy = parts(world, ledger, mails)

    class DiesOnTheWayBack(WorldBatch):
        def apply(self, service, change, *, key) -> Receipt:
            receipt = super().apply(service, change, key=key)
            if change.new["batch_size"] == 1:
                raise Killed
            return receipt

    dying = replace(healthy, actuator=lambda _service, _lever: DiesOnTheWayBack(world))
    world.wait(60)
    with pytest.raises(Killed):
        for _ in range(40):
            run_once(dying, world.now, world.wait_until)
            world.wait(15)
    (opened,) = ledger.open_changes()
    assert world.batch_size == 1
    world.wait(35)
    (undone,) = prove.undo(healthy, opened.plan, world.now())
    assert undone.changed
    world.wait_until(prove.look_until_s(healthy, opened.plan.inverse()))
    assert prove.close_rolled_back(healthy, opened.plan, world.now()) is not None
    assert not ledger.open_changes() and len(world.applies) == 3
