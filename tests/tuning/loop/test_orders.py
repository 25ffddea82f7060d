"""People's orders in the loop: a pause keeps every lever still, and a change is handed back on a person's word."""

from __future__ import annotations

import pytest

from tests.fakes.world import World
from tests.tuning.loop.test_lease import leased
from tests.tuning.loop.test_loop_once import drive, surge, world_and_loop
from tuning.loop import lease
from tuning.model import Change
from tuning.orders import order, order_record


def test_a_paused_service_is_planned_for_reported_and_left_alone():
    world, ledger, mails, loop = world_and_loop(qps=surge)
    ledger.put(order_record(order("pause", "ann", world.now_s, service="ranker", why="a load test")))
    reports = drive(world, loop, 400)
    assert world.applies == [] and ledger.open_changes() == []
    assert reports[0].refusal.guard == "paused" and "ann paused every lever of ranker: a load test" in reports[0].refusal.reason
    assert len(mails.mails) == 1 and "a load test" in mails.mails[0].text


def test_a_pause_that_ends_lets_the_next_attempt_through():
    world, ledger, _mails, loop = world_and_loop(qps=surge)
    ledger.put(order_record(order("pause", "ann", world.now_s, why="until then", until_s=world.now_s + 200)))
    reports = drive(world, loop, 600)
    assert reports[0].refusal.guard == "paused" and reports[0].refusal.until_s is not None
    assert world.batch_size > 1 and reports[-1].outcome.resolved


@pytest.mark.parametrize("paused", [False, True], ids=["free", "paused"])
def test_a_lease_is_handed_back_on_a_persons_word_whatever_the_load(paused):
    world = World(qps=lambda _t: 180.0)
    world.wait(120)
    change = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 2})
    loop, ledger, _mails, lever = leased(world, change, limit_qps=10.0, replicas=2)
    said = lambda: lease.tend(loop, ledger.open_changes()[0], world.now_s)  # noqa: E731
    assert said() is None and lever.told == []  # the load is high, and the lease is not over
    if paused:
        ledger.put(order_record(order("pause", "ann", world.now_s, service="ranker", why="stop")))
    world.wait(5)
    ledger.put(order_record(order("hand_back", "ann", world.now_s, service="ranker", about="p", why="cost")))
    assert "ann asked for it: cost" in said()
    assert [value for _, value in lever.told] == [1]
