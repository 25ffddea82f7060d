"""Between the guards and the change another run may have claimed the room: the claim itself says no."""

from __future__ import annotations

import pytest

from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tests.tuning.loop.test_lease import BATCH, leased
from tuning.errors import ClaimRefused
from tuning.loop import act, reconcile, records, tell, watch
from tuning.loop.once import run_once
from tuning.model import Change, Diagnosis, OpenChange, Option, Plan

CONFIG = SERVICES.replace("cool_down: 0s", "cool_down: 0s, services_at_once: 1")


def plan(plan_id: str, service: str, change: Change, at_s: float) -> Plan:
    return Plan(
        id=plan_id, incident_id="i", service=service, decided_at_s=at_s, mode="act", diagnosis=Diagnosis(cause="load"),
        chosen=Option(changes=(change,)))  # fmt: skip


def claim(ledger: FakeLedger, one: Plan, at_s: float) -> None:
    opened = OpenChange(
        plan_id=one.id, service=one.service, incident_id="i", state="intended", plan=one, opened_at_s=at_s, run="alive")  # fmt: skip
    ledger.open_change(opened, records.intent_record(one, at_s))


def test_a_claim_that_meets_a_full_house_is_a_refusal_and_changes_nothing() -> None:
    world = World(qps=lambda t: 60.0 if t < 120 else 180.0)
    world.wait(240)
    ledger = FakeLedger()
    loop = parts(world, ledger, KeptMails(), CONFIG)
    sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now()))
    (request,) = watch.open_incidents(loop, sweep)
    chosen = act.choose_action(loop, request.incident, world.now())
    assert act.guard_plan(loop, chosen, world.now()) is None, "there was room when the guards looked"
    claim(ledger, plan("other", "elsewhere", BATCH, world.now()), world.now())
    with pytest.raises(ClaimRefused) as refused:
        act.pull_lever(loop, chosen, "batch_size", world.now())
    assert refused.value.guard == "services_at_once"
    assert world.applies == []
    (kept,) = [r for r in ledger.records.values() if r.kind == "guard"]
    assert (kept.body["guard"], kept.parent_id) == ("services_at_once", chosen.id)
    assert isinstance(kept.body["until_s"], float), "it is asked again, and needs no person"


def test_an_incident_that_met_a_full_house_is_cured_when_there_is_room() -> None:
    world = World(qps=lambda t: 60.0 if t < 120 else 180.0)
    world.wait(240)
    ledger = FakeLedger()
    loop = parts(world, ledger, KeptMails(), CONFIG)
    other = plan("other", "elsewhere", BATCH, world.now())
    claim(ledger, other, world.now())
    for _ in range(4):
        sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now()))
        for request in watch.open_incidents(loop, sweep):
            chosen = act.choose_action(loop, request.incident, world.now(), attempt=request.attempt)
            refusal = act.guard_plan(loop, chosen, world.now())
            assert refusal is not None and refusal.guard == "services_at_once"
            act.hold(loop, chosen, world.now(), refusal.reason)
            tell.email_report(loop, chosen, world.now())
        world.wait(15)
    assert world.applies == []
    record = records.hold_record(other, "proven", world.now()).model_copy(update={"id": "other:closed"})
    ledger.update_change("other", "closed", record)
    for _ in range(12):
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    assert world.batch_size > 1


def test_a_lease_waits_while_a_newer_change_stands_on_its_lever() -> None:
    world = World(qps=lambda _t: 50.0)
    world.batch_size = 8
    world.wait(200)
    loop, ledger, _mails, _lever = leased(world, BATCH, limit_qps=100.0, lease_s=60.0)
    world.wait(30)
    more = Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16})
    claim(ledger, plan("on top", "ranker", more, world.now()), world.now())
    world.batch_size = 16
    for _ in range(10):
        reconcile.reconcile_all(loop, world.now(), alive=lambda run: run == "alive")
        world.wait(15)
    assert world.batch_size == 16 and [c.plan_id for c in ledger.open_changes()] == ["p", "on top"]
    world.batch_size = 8
    top = ledger.changes["on top"].plan
    ledger.update_change("on top", "closed", records.hold_record(top, "put back", world.now()))
    for _ in range(40):
        reconcile.reconcile_all(loop, world.now(), alive=lambda _run: True)
        world.wait(15)
    assert world.batch_size == 1 and not ledger.open_changes(), "what was put on top is gone: the lease goes on"
