"""A leased change in the loop: handed back when the load allows it, in steps, each looked at before the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detection.model import Incident
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, WorldBatch, parts
from tuning.errors import NotApplied
from tuning.loop import lease, records
from tuning.model import Change, Decision, Diagnosis, OpenChange, Option, Plan, Receipt, Record, Setting
from tuning.orders import order, order_record

CONFIG = SERVICES.replace("hold_again: 60s", "hold_again: 60s, revert_for: 60s, lease_renewals: 1")


class Replicas:
    """A replicas lever that keeps what it was told."""

    name, lever = "fake", "replicas"

    def __init__(self, replicas: int, world: World) -> None:
        self.replicas, self.world, self.told = replicas, world, []

    def read(self, service) -> Setting:
        return Setting(lever="replicas", values={"replicas": self.replicas})

    def apply(self, service, change, *, key) -> Receipt:
        before, self.replicas = self.replicas, change.new["replicas"]
        self.told.append((self.world.now_s, self.replicas))
        return Receipt(
            id="", plan_id="", service=service.name, lever="replicas", before={"replicas": before}, after=change.new,
            applied=True, changed=True, at_s=self.world.now_s)  # fmt: skip


def leased(world: World, change: Change, *, limit_qps: float, lease_s: float = 3600.0, replicas: int = 0,
           settle_s: float = 20.0):  # fmt: skip
    """A loop in which this change is proven and on lease since now."""
    ledger, mails = FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails, CONFIG)
    lever = Replicas(replicas, world)
    if replicas:
        loop = replace(loop, actuator=lambda _service, _lever: lever)
    at_s = world.now_s
    incident = Incident(
        id="i", service="ranker", symptom="latency", tier="act", severity="critical", opened_at_s=at_s - 100,
        detected_at_s=at_s - 90, signals=(), anomalies=(), reason="P95")  # fmt: skip
    plan = Plan(
        id="p", incident_id="i", service="ranker", decided_at_s=at_s, mode="act", settle_s=settle_s, lease_s=lease_s,
        diagnosis=Diagnosis(cause="load"), chosen=Option(changes=(change,), cost_per_hour=2.0),
        revert_below_qps=limit_qps)  # fmt: skip
    ledger.put(records.incident_record(incident))
    ledger.put(records.plan_record(plan))
    opened = OpenChange(
        plan_id="p", service="ranker", incident_id="i", state="intended", plan=plan, opened_at_s=at_s)  # fmt: skip
    ledger.open_change(opened, records.intent_record(plan, at_s))
    kept = Decision(step="keep", next="done", reason="P95 fell")
    record = Record(
        id="kept", kind="keep", service="ranker", parent_id="p", incident_id="i", at_s=at_s, body=kept.model_dump()
    )
    ledger.update_change("p", "leased", record, expires_at_s=at_s + lease_s)
    return loop, ledger, mails, lever


def tend(world: World, loop, seconds: float) -> list[str]:
    said, end = [], world.now_s + seconds
    while world.now_s < end:
        for change in loop.ledger.open_changes():
            said += [text for text in [lease.tend(loop, change, world.now_s)] if text]
        world.wait(15)
    return said


BATCH = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})


def test_a_change_is_handed_back_when_the_load_has_gone_and_the_step_is_judged_before_the_end():
    world = World(qps=lambda t: 180.0 if t < 300 else 50.0)
    world.batch_size = 8
    world.wait(200)
    loop, ledger, _mails, _lever = leased(world, BATCH, limit_qps=100.0)
    assert tend(world, loop, 90) == [] and world.batch_size == 8
    said = tend(world, loop, 400)
    assert world.batch_size == 1 and said[0].startswith("handing back") and said[-1] == "handed back"
    assert not ledger.open_changes()
    (back,) = [r for r in ledger.records.values() if r.kind == "roll_back" and r.phase == "intent"]
    assert [r.parent_id for r in ledger.records.values() if r.kind == "verify_p95"] == [back.id]


@pytest.mark.parametrize(("theirs", "ends"), [(False, "handed back"), (True, "taken over")])
def test_a_later_change_of_one_lever_leaves_the_rest_of_a_lease_to_be_handed_back(theirs, ends):
    """Two levers on lease; then another plan moves one of them for good (or a person does, and that ends all of it)."""
    world = World(qps=lambda _t: 50.0)
    world.wait(200)
    loop, ledger, _mails, _lever = leased(world, BATCH, limit_qps=100.0)
    both = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 2})
    opened = ledger.changes["p"]
    plan = opened.plan.model_copy(update={"chosen": opened.plan.chosen.model_copy(update={"changes": (BATCH, both)})})
    ledger.changes["p"] = opened.model_copy(update={"plan": plan})
    levers = {"batch_size": WorldBatch(world), "replicas": Replicas(2, world)}
    loop = replace(loop, actuator=lambda _service, lever: levers[lever])
    ledger.put(records.found_record(plan, BATCH, world.now_s, "made"))
    world.batch_size = 16
    if not theirs:
        later = Plan(**{**plan.model_dump(), "id": "q", "lease_s": None})
        moved = Change(lever="batch_size", old=BATCH.new, new={"batch_size": 16})
        ledger.put(records.found_record(later, moved, world.now_s, "made by a later plan, and kept"))
    said = tend(world, loop, 600)
    assert world.batch_size == 16 and not ledger.open_changes()
    assert levers["replicas"].replicas == (2 if theirs else 1)
    assert said[-1] == "handed back" if ends == "handed back" else "Somebody else has set it" in said[0]


@pytest.mark.parametrize("asked", [False, True])
def test_the_free_half_of_a_pair_stays_when_the_paid_one_goes_back_unless_a_person_asks_for_all_of_it(asked):
    world = World(qps=lambda _t: 50.0)
    world.batch_size = 8
    world.wait(200)
    loop, ledger, _mails, _lever = leased(world, BATCH, limit_qps=100.0)
    more = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 2})
    opened = ledger.changes["p"]
    plan = opened.plan.model_copy(update={"chosen": opened.plan.chosen.model_copy(update={"changes": (BATCH, more)})})
    ledger.changes["p"] = opened.model_copy(update={"plan": plan})
    levers = {"batch_size": WorldBatch(world), "replicas": Replicas(2, world)}
    loop = replace(loop, actuator=lambda _service, lever: levers[lever])
    if asked:
        ledger.put(order_record(order("hand_back", "ada", world.now_s, service="ranker", about="p", why="cost")))
    said = tend(world, loop, 900)
    assert levers["replicas"].replicas == 1 and not ledger.open_changes()
    assert world.batch_size == (1 if asked else 8)
    closed = [str(r.body.get("reason")) for r in ledger.records.values() if r.kind == "keep"]
    assert said[-1] == "handed back"
    assert any("What costs nothing stays: batch_size 1 -> 8" in reason for reason in closed) is not asked


def test_a_step_that_made_it_worse_is_taken_back_and_the_lease_goes_on():
    world = World(qps=lambda _t: 180.0)
    world.batch_size = 8
    world.wait(200)
    # What the old setting carries was overestimated: it does not carry the load that is there.
    loop, ledger, _mails, _lever = leased(world, BATCH, limit_qps=200.0, lease_s=120.0)
    said = tend(world, loop, 300)
    assert any("taken back" in text for text in said), said
    assert world.batch_size == 8
    (change,) = ledger.open_changes()
    assert change.state == "leased" and change.expires_at_s > world.now_s


def test_replicas_go_back_in_steps_and_each_is_settled_and_looked_at_before_the_next():
    world = World(qps=lambda _t: 50.0)
    world.wait(200)
    change = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 3})
    loop, ledger, _mails, lever = leased(world, change, limit_qps=100.0, replicas=3)
    tend(world, loop, 600)
    assert [replicas for _, replicas in lever.told] == [2, 1]
    assert lever.told[1][0] - lever.told[0][0] >= 20.0 + loop.settings.verification.look_s
    assert not ledger.open_changes()


def test_a_step_back_waits_for_itself_and_not_for_what_the_change_was_made_of():
    """The change was settled for ten minutes (INT8 is built first); a batch limit is back in seconds."""
    world = World(qps=lambda _t: 50.0)
    world.batch_size = 8
    world.wait(200)
    loop, ledger, _mails, _lever = leased(world, BATCH, limit_qps=100.0, settle_s=600.0)
    began_s = world.now_s
    while ledger.open_changes() and world.now_s < began_s + 900:
        tend(world, loop, 15)
    assert world.batch_size == 1 and not ledger.open_changes()
    assert world.now_s - began_s < 300.0


class Sparing:
    """A planner that says from how many replicas on a service does."""

    name = "sparing"

    def __init__(self, enough: int) -> None:
        self.enough, self.asked = enough, []

    def spares(self, incident, observation, past, step) -> str:
        self.asked.append((incident.id, step.new["replicas"]))
        return f"{step.new['replicas']} do." if step.new["replicas"] >= self.enough else ""


def test_replicas_that_are_spared_go_back_before_the_lease_ends_and_the_rest_stays_on_lease():
    world = World(qps=lambda _t: 180.0)
    world.batch_size = 8
    world.wait(200)
    change = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 4})
    loop, ledger, _mails, lever = leased(world, change, limit_qps=100.0, replicas=4)
    planner = Sparing(enough=3)
    said = tend(world, replace(loop, planner=planner), 600)
    assert [replicas for _, replicas in lever.told] == [3]
    assert said == ["handing back: replicas 4 -> 3. 3 do."]
    assert planner.asked[:2] == [("i", 2), ("i", 3)] and planner.asked[-1] == ("i", 2)
    (lease_,) = ledger.open_changes()
    assert lease_.state == "leased"


def test_many_replicas_go_back_at_once_where_far_fewer_do_and_half_of_what_serves_stays_at_least():
    world = World(qps=lambda _t: 180.0)
    world.batch_size = 8
    world.wait(200)
    change = Change(lever="replicas", old={"replicas": 2}, new={"replicas": 12})
    loop, ledger, _mails, lever = leased(world, change, limit_qps=100.0, replicas=12)
    tend(world, replace(loop, planner=Sparing(enough=3)), 900)
    assert [replicas for _, replicas in lever.told] == [6, 3]
    assert lever.told[1][0] - lever.told[0][0] >= 20.0 + loop.settings.verification.look_s
    assert [change.state for change in ledger.open_changes()] == ["leased"]


def test_only_replicas_are_spared_and_nobody_is_asked_of_what_costs_nothing():
    world = World(qps=lambda _t: 180.0)
    world.batch_size = 8
    world.wait(200)
    loop, _ledger, _mails, _lever = leased(world, BATCH, limit_qps=100.0)
    planner = Sparing(enough=1)
    assert tend(world, replace(loop, planner=planner), 300) == [] and planner.asked == []


def test_nothing_is_spared_once_a_step_was_taken_back():
    world = World(qps=lambda _t: 180.0)
    world.batch_size = 8
    world.wait(200)
    change = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 4})
    loop, ledger, _mails, lever = leased(world, change, limit_qps=100.0, replicas=4)
    (lease_,) = ledger.open_changes()
    note = records.noted(lease_.plan, "again", "keep", {"plan_id": "p", "renewed": True, "reason": "taken back"}, 0.0)
    ledger.update_change("p", "leased", note, expires_at_s=world.now_s + 3600.0)
    planner = Sparing(enough=1)
    assert tend(world, replace(loop, planner=planner), 300) == [] and lever.told == [] and planner.asked == []


def test_a_person_is_asked_once_when_the_load_stays():
    world = World(qps=lambda _t: 180.0)
    world.batch_size = 8
    world.wait(200)
    loop, _ledger, mails, _lever = leased(world, BATCH, limit_qps=100.0, lease_s=60.0)
    tend(world, loop, 400)
    asked = [mail for mail in mails.mails if "please decide" in mail.subject]
    assert len(asked) == 1 and "2 per hour" in asked[0].text and world.batch_size == 8


def test_a_step_back_of_which_the_endpoint_made_another_value_is_not_called_somebodys():
    """Asked for 7 it makes 9: the lease goes on from there, until the endpoint takes what it is asked for."""
    world = World(qps=lambda t: 180.0 if t < 300 else 50.0)
    world.wait(320)
    loop, ledger, mails, lever = leased(world, Change(lever="replicas", old={"replicas": 6}, new={"replicas": 8}),
                                        limit_qps=100.0, replicas=8)  # fmt: skip
    take = lever.apply

    def make_another(service, change, *, key):
        before, lever.replicas = lever.replicas, 9
        raise NotApplied("made 9", before={"replicas": before}, after={"replicas": 9})

    lever.apply = make_another
    with pytest.raises(NotApplied):
        tend(world, loop, 600)
    lever.apply = take
    said = tend(world, loop, 1800)
    assert lever.replicas == 6 and not ledger.open_changes() and said[-1] == "handed back"
    assert not mails.mails, "nobody has set anything"
