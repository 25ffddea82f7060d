"""verify_p95 in Airflow when one replica was changed first: it brings the others, and waits for the second verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.ledger import FakeLedger
from tests.fakes.replicas import Fleet, FleetBatch, fleet_parts
from tests.fakes.world import KeptMails
from tuning.loop import act, canary, prove, watch
from tuning.loop.parts import Parts
from tuning.model import Plan

pytestmark = pytest.mark.airflow


class Task:
    """What a task sees of Airflow: its own start time, the plan's id in XCom, and the run."""

    def __init__(self, world: Fleet, plan: Plan) -> None:
        self._world, self._plan = world, plan
        self.xcom_pull = lambda task_ids, key="return_value": plan.id if task_ids == "choose_action" else None

    @property
    def start_date(self) -> datetime:
        return datetime.fromtimestamp(self._world.now(), UTC)

    def context(self) -> dict[str, Any]:
        return {"ti": self, "dag_run": SimpleNamespace(run_id="tune__1"), "params": {}}


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> tuple[Fleet, Parts, Plan, Task]:
    """A surge whose first replica has just been changed."""
    from slotune_airflow import steps

    world, ledger = Fleet(qps=lambda t: 180.0 if t < 120 else 480.0), FakeLedger()
    loop = fleet_parts(world, ledger, KeptMails(), FleetBatch(world))
    monkeypatch.setattr(steps, "parts", lambda _context: loop)
    requests: list[watch.TuneRequest] = []
    world.wait(60)
    while not requests:
        world.wait(15)
        sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now()))
        requests = watch.open_incidents(loop, sweep)
    plan = act.choose_action(loop, requests[0].incident, world.now())
    task = Task(world, plan)
    assert "evidence" not in steps.pull_lever(task.context(), "batch_size")
    return world, loop, plan, task


def deferred(operator: Any, method: str, task: Task) -> tuple[str, float]:
    """(method that goes on, time until which it waits)."""
    from airflow.sdk.exceptions import TaskDeferred

    with pytest.raises(TaskDeferred) as found:
        getattr(operator, method)(task.context())
    return found.value.method_name, found.value.trigger.until_s


def test_the_others_follow_and_the_task_waits_for_the_whole_service(begun: tuple[Fleet, Parts, Plan, Task]) -> None:
    from slotune_airflow import steps
    from slotune_airflow.operators import VerifyP95Operator

    world, loop, plan, task = begun
    operator = VerifyP95Operator(task_id="verify_p95")
    world.wait_until(prove.look_until_s(loop, plan))
    method, until_s = deferred(operator, "execute", task)
    assert method == "look_at_all" and until_s == prove.look_until_s(loop, plan) > world.now()
    assert len(world.applies) == 3 and len(set(world.sizes.values())) == 1
    # Killed while it waited, and run again from its beginning: nothing is judged too early, nothing is made twice.
    world.wait(5)
    assert deferred(operator, "execute", task) == (method, until_s)
    assert len(world.applies) == 3
    world.wait_until(until_s)
    assert steps.verify_p95(task.context()) == "keep"


def test_a_first_replica_that_does_worse_branches_into_the_roll_back(
    begun: tuple[Fleet, Parts, Plan, Task],
) -> None:
    from slotune_airflow import steps

    world, loop, plan, task = begun
    world._hurts = 60.0
    step = ""
    for look in (1, 2):
        world.wait_until(prove.look_until_s(loop, plan, look=look))
        step = steps.verify_p95(task.context(), look=look)
        if step != "settle":
            break
    assert step == "roll_back" and len(world.applies) == 1
    steps.roll_back(task.context())
    assert set(world.sizes.values()) == {1}
    stage = canary.stage(loop.ledger, plan)
    assert stage is not None and stage.alone
