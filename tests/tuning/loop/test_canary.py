"""One replica first: judged beside its unchanged peers, then all; and what a death at each moment leaves behind."""

from __future__ import annotations

import pytest

from slotune.history import sentence
from tests.fakes.ledger import FakeLedger
from tests.fakes.replicas import Fleet, FleetBatch, fleet_parts
from tests.fakes.world import SERVICES, KeptMails
from tuning import attempt
from tuning.loop import act, prove, records, verify
from tuning.loop.once import run_once
from tuning.loop.reconcile import reconcile_all
from tuning.model import Plan, Report


class Killed(BaseException):
    """SIGKILL: no handler runs."""


def surge(t: float) -> float:
    return 180.0 if t < 120 else 480.0


def harm(t: float) -> float:
    return 180.0 if t < 120 else 390.0


def drive(world: Fleet, loop, seconds: float) -> list[Report]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end:
        reports += run_once(loop, world.now, world.wait_until)
        world.wait(15)
    return reports


def fleet(services: str = SERVICES, **kwargs):
    world, ledger, mails = Fleet(**kwargs), FakeLedger(), KeptMails()
    world.wait(60)
    lever = FleetBatch(world)
    return world, ledger, mails, lever, fleet_parts(world, ledger, mails, lever, services)


@pytest.mark.parametrize("replicas", [2, 3, 5])
def test_one_replica_is_changed_judged_beside_the_others_and_then_they_follow(replicas: int) -> None:
    world, ledger, mails, _lever, loop = fleet(replicas=replicas, qps=lambda t: surge(t) * replicas / 3)
    (report,) = drive(world, loop, 420)
    first = world.applies[0]["replica"]
    assert len(world.applies) == replicas and len(set(world.sizes.values())) == 1 and world.sizes[first] > 1
    assert (report.canary.replica, len(report.canary.peers)) == (first, replicas - 1)
    assert report.canary_outcome.verdict == "improved" and "unchanged replicas" in report.canary_outcome.reason
    assert report.canary_outcome.resolved is None
    told = [sentence(r.kind, r.phase, r.body) for r in ledger.records.values()]
    assert f"{first} first, beside {replicas - 1} unchanged" in told
    assert report.outcome.resolved and report.decision.step == "keep" and not ledger.open_changes()
    assert [r.replica for r in report.receipts] == [first, ""]
    assert [r.before["batch_size"] for r in report.receipts] == [1, 1]
    assert "Resolved" in mails.mails[0].subject and mails.mails[0].subject.count("batch size 1") == 1
    assert "One replica first" in mails.mails[0].text and first in mails.mails[0].text


def test_each_stage_has_its_intent_in_the_ledger_before_it_is_made() -> None:
    world, ledger, _mails, _lever, loop = fleet(qps=surge)
    drive(world, loop, 420)
    rows = [r for r in ledger.records.values() if r.kind in ("adjust_batch_size", "verify_p95", "keep")]
    names = [r.id.rpartition(":")[2] if r.phase == "intent" or r.kind == "keep" else r.kind for r in rows]
    assert names == [
        "canary", "intent", "adjust_batch_size", "verify_p95", "decision",
        "all", "adjust_batch_size", "verify_p95", "decision", "closed",
    ]  # fmt: skip


def test_a_change_that_harms_reaches_one_replica_only_and_is_undone() -> None:
    world, ledger, mails, _lever, loop = fleet(qps=harm, batch_hurts=40.0)
    report = drive(world, loop, 500)[0]
    assert {a["replica"] for a in world.applies if a["batch_size"] > 1} == {report.canary.replica}
    assert set(world.sizes.values()) == {1} and not ledger.open_changes()
    assert report.decision.step == "roll_back" and report.rollback
    assert "first" in report.decision.reason
    assert "Rolled back" in mails.mails[0].subject


def test_what_helps_everybody_is_not_taken_for_the_changes_merit() -> None:
    """The peers get as much faster by themselves (a neighbour went away), and the change does nothing at all."""
    world, _ledger, _mails, lever, loop = fleet(qps=surge, common=lambda t: 1.0 if t < 150 else 0.3)
    real = lever._apply

    def without_effect(service, change, names):
        receipt = real(service, change, names)
        for name in names:
            world.sizes[name] = 1
        return receipt

    lever._apply = without_effect
    reports = drive(world, loop, 300)
    assert reports and all(r.canary_outcome is None or r.canary_outcome.verdict != "improved" for r in reports)


@pytest.mark.parametrize(
    ("services", "labelled", "says"),
    [
        (SERVICES.replace("max: 32,", "max: 32, canary: false,"), True, ""),
        (SERVICES, False, "no replica first: only 0 of 3 replicas shows a P95 of its own"),
    ],
    ids=["switched off", "series without a replica"],
)
def test_all_at_once_where_no_replica_can_be_told_apart(services: str, labelled: bool, says: str) -> None:
    world, ledger, _mails, _lever, loop = fleet(services, qps=surge)
    world.labelled = labelled
    (report,) = drive(world, loop, 300)
    assert report.canary is None and len(report.receipts) == 1 and len(world.applies) == 3
    assert says in report.receipts[0].reason
    assert not any(r.id.endswith((":canary", ":all")) for r in ledger.records.values())


def test_one_change_on_two_stages_counts_once_for_the_guards() -> None:
    world, ledger, _mails, _lever, loop = fleet(qps=surge)
    drive(world, loop, 420)
    assert len(ledger.standing(world.now(), 3600.0).made) == 1


# -- deaths -----------------------------------------------------------------------------------------------------------


def until_killed(world: Fleet, loop) -> None:
    with pytest.raises(Killed):
        for _ in range(60):
            run_once(loop, world.now, world.wait_until)
            world.wait(15)


def killed_when(ledger: FakeLedger, wanted):
    """The ledger of a process that dies right after it has written the first record for which `wanted` holds."""
    real_put, real_update, real_open = ledger.put, ledger.update_change, ledger.open_change

    def dying(write, record_of):
        def call(*args, **kwargs):
            found = write(*args, **kwargs)
            if wanted(record_of(*args)):
                ledger.put, ledger.update_change, ledger.open_change = real_put, real_update, real_open
                raise Killed
            return found

        return call

    ledger.put = dying(real_put, lambda record: record)
    ledger.update_change = dying(real_update, lambda _plan, _state, record: record)
    ledger.open_change = dying(real_open, lambda _change, intent, *_caps: intent)


def ends(name: str):
    return lambda record: record.id.endswith(f":{name}")


def receipt_of(replica: bool):
    return lambda r: r.kind == "adjust_batch_size" and r.phase == "result" and bool(r.body.get("replica")) is replica


DEATHS = {
    "after the first replica's intent": ends("canary"),
    "after the claim": ends("intent"),
    "after the first replica's receipt": receipt_of(True),
    "after its verdict": lambda r: r.kind == "verify_p95",
    "after the others' intent": ends("all"),
    "after the others' receipt": receipt_of(False),
}


@pytest.mark.parametrize("when", DEATHS)
def test_a_run_that_dies_for_good_leaves_all_replicas_alike_and_nothing_open(when: str) -> None:
    world, ledger, mails, _lever, loop = fleet(qps=surge)
    killed_when(ledger, DEATHS[when])
    until_killed(world, loop)
    for _ in range(60):
        if not ledger.open_changes():
            break
        world.wait(30)
        reconcile_all(loop, world.now(), alive=lambda _run: False)
    assert not ledger.open_changes() and len(set(world.sizes.values())) == 1
    touched = [a["replica"] for a in world.applies]
    assert all(touched.count(name) <= 2 for name in touched), "made once, undone at most once"
    if when == "after the others' receipt":
        assert set(world.sizes.values()) != {1} and "Resolved" in mails.mails[0].subject
    else:
        assert set(world.sizes.values()) == {1}


@pytest.mark.parametrize("when", DEATHS)
def test_a_task_that_dies_and_is_run_again_goes_on_from_there(when: str) -> None:
    """What Airflow does: the killed task is run again, while its run is alive."""
    world, ledger, _mails, _lever, loop = fleet(qps=surge)
    killed_when(ledger, DEATHS[when])
    until_killed(world, loop)
    plan = next(Plan.model_validate(r.body) for r in ledger.records.values() if r.kind == "choose_action")
    world.wait(35)
    act.pull_lever(loop, plan, "batch_size", world.now())
    step = verify.verify(loop, plan, world.now())  # too early or not: a look that is not due yet judges nothing
    for _ in range(4):
        if step != "look":
            break
        world.wait_until(prove.look_until_s(loop, plan))
        step = verify.verify(loop, plan, world.now())
    assert step == "keep"
    assert len(set(world.sizes.values())) == 1 and set(world.sizes.values()) != {1}
    assert len(world.applies) == 3, "each replica was changed exactly once"
    stage = attempt.of(ledger, plan).stage
    assert stage is not None and not stage.alone and not stage.widening
    assert len(records.receipts(ledger, plan)) == 2


@pytest.mark.parametrize("moment", ["first", "others"])
def test_a_change_that_landed_and_was_not_written_down_is_found(moment: str) -> None:
    world, ledger, _mails, lever, loop = fleet(qps=surge)
    lever.dies = dict.fromkeys(world.sizes, Killed()) if moment == "first" else {}
    if moment == "others":
        real = lever.apply

        def dying(*args, **kwargs):
            lever.apply = real
            lever.dies = {list(world.sizes)[1]: Killed()}
            return real(*args, **kwargs)

        lever.apply = dying
    until_killed(world, loop)
    lever.dies = {}
    assert len(set(world.sizes.values())) == 2
    for _ in range(60):
        if not ledger.open_changes():
            break
        world.wait(30)
        reconcile_all(loop, world.now(), alive=lambda _run: False)
    assert set(world.sizes.values()) == {1} and not ledger.open_changes()
