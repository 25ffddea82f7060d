"""One attempt: read once, decided once, and what the planner and the actuator say is what the ledger keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning import attempt as attempts
from tuning.loop import act, once, prove, records, tell, verify, watch
from tuning.loop.parts import Parts
from tuning.loop.watch import TuneRequest
from tuning.model import Decision, Plan

READS = ("get", "find", "standing", "open_changes", "get_blob", "get_blobs")


def surge(t: float) -> float:
    return 60.0 if t < 120 else 180.0


class CountingLedger(FakeLedger):
    """Counts every way of asking it something."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in READS:
            self.reads.append(name)
        return super().__getattribute__(name)


def begun(ledger: FakeLedger, services: str = SERVICES, **kwargs: Any) -> tuple[World, Parts, KeptMails, TuneRequest]:
    """A world whose load has grown, and the run that its sweep asks for."""
    world, mails = World(**{"qps": surge, **kwargs}), KeptMails()
    loop = parts(world, ledger, mails, services)
    world.wait(240)
    sweep = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now()))
    (request,) = watch.open_incidents(loop, sweep)
    return world, loop, mails, request


def test_a_whole_attempt_asks_the_ledger_at_most_twelve_times() -> None:
    ledger = CountingLedger()
    world, loop, mails, request = begun(ledger)
    ledger.reads.clear()
    report = once.tune(loop, request, world.now, world.wait_until)
    assert report.outcome is not None and report.decision is not None
    assert (report.outcome.verdict, report.decision.step) == ("improved", "keep") and len(mails.mails) == 1
    assert len(ledger.reads) <= 12, ledger.reads


def to_the_verdict(ledger: FakeLedger, services: str = SERVICES, **kwargs: Any) -> tuple[World, Parts, Plan]:
    world, loop, _mails, request = begun(ledger, services, **kwargs)
    plan = act.choose_action(loop, request.incident, world.now())
    act.pull_lever(loop, plan, "batch_size", world.now(), run="run")
    world.wait_until(prove.look_until_s(loop, plan))
    return world, loop, plan


def without_free_changes(loop: Parts, keep: bool) -> Parts:
    safety = loop.settings.safety.model_copy(update={"keep_free_changes": keep})
    return replace(loop, settings=loop.settings.model_copy(update={"safety": safety}))


@pytest.mark.parametrize("first", [True, False])
def test_settings_that_change_between_two_tasks_do_not_change_what_was_decided(first: bool) -> None:
    class Unmoved:
        """A verifier that finds no difference, so that the setting decides."""

        name = "unmoved"

        def judge(self, plan, before, after, control=None):
            return prove._untold(plan, 0.0, "no difference").model_copy(update={"verdict": "unchanged"})

    ledger = FakeLedger()
    world, loop, plan = to_the_verdict(ledger)
    loop = replace(loop, verifier=Unmoved())
    step = verify.verify(without_free_changes(loop, first), plan, world.now())
    flipped = without_free_changes(loop, not first)
    _outcome, decision = prove.last_verdict(flipped, plan)
    assert step == decision.step == ("keep" if first else "roll_back")
    if decision.step == "keep":
        prove.keep(flipped, plan, _outcome, decision, world.now())
    else:
        prove.roll_back(flipped, plan, _outcome, decision, world.now())
        world.wait_until(prove.look_until_s(flipped, plan.inverse()))
        prove.close_rolled_back(flipped, plan, world.now())
    about = [r for r in ledger.records.values() if plan.id in (r.parent_id, r.id)]
    assert {r.kind for r in about if r.kind in ("keep", "roll_back")} == {decision.step}
    assert not ledger.open_changes()


def test_the_verdict_writes_its_decision_and_a_second_decision_is_not_taken() -> None:
    ledger = FakeLedger()
    world, loop, plan = to_the_verdict(ledger)
    outcome, decision = prove.verify_p95(loop, plan, world.now())
    written = [r for r in ledger.records.values() if r.parent_id == plan.id and "next" in r.body]
    assert [Decision.model_validate(r.body) for r in written] == [decision]
    world.wait(60)
    assert prove.verify_p95(loop, plan, world.now()) == (outcome, decision)
    assert prove.last_verdict(loop, plan) == (outcome, decision)


def test_what_the_planner_returns_is_what_the_ledger_keeps() -> None:
    ledger = FakeLedger()
    world, loop, _mails, request = begun(ledger)
    proposed: list[Plan] = []

    class Listening:
        name = "listening"

        def propose(self, incident, observation, past):
            proposed.append(planner.propose(incident, observation, past))
            return proposed[-1]

    planner = loop.planner
    loop = replace(loop, planner=Listening())
    plan = act.choose_action(loop, request.incident, world.now(), attempt=3, dry_run=True)
    assert proposed == [plan] and records.load(ledger, plan.id, Plan) == plan
    assert (plan.attempt, plan.dry_run, plan.since_s) == (3, True, request.incident.opened_at_s)
    lever = loop.service("ranker").levers["batch_size"]
    assert plan.settle_s >= loop.settings.prometheus.rate_window_s + lever.effect_delay_s


def test_an_attempt_that_is_folded_step_by_step_is_the_attempt_that_is_read() -> None:
    ledger = FakeLedger()
    world, loop, plan = to_the_verdict(ledger)
    known = attempts.of(ledger, plan)
    _, _, known = prove.judged(loop, known, world.now())
    again = attempts.read(ledger, plan.id)
    assert known == again
    assert again.tries == 1 and again.claimed_s is not None and again.receipts[0].changed


def test_a_record_of_a_newer_version_keeps_what_is_known_and_a_broken_one_is_left_out() -> None:
    ledger = FakeLedger()
    _world, _loop, plan = to_the_verdict(ledger)
    receipt = next(r for r in ledger.records.values() if r.id == attempts.receipt_id(plan.id, "batch_size"))
    rows = [r for r in ledger.records.values() if plan.id in (r.id, r.parent_id) and r.id != receipt.id]
    newer = receipt.model_copy(update={"body": {**receipt.body, "shard": "eu"}})
    broken = receipt.model_copy(update={"id": "broken", "body": {**receipt.body, "at_s": None}})
    folded = attempts.fold(plan, [*rows, newer, broken])
    assert [r.id for r in folded.receipts] == [receipt.id]


def test_a_value_of_the_endpoints_own_is_judged_and_what_stood_before_is_put_back() -> None:
    """Asked for more, the endpoint takes 8; the process dies, and the sweeps judge and undo it."""
    from tests.fakes.world import WorldBatch
    from tuning.errors import NotApplied
    from tuning.loop.reconcile import reconcile_all

    class Clamping(WorldBatch):
        def apply(self, service, change, *, key):
            if change.new["batch_size"] <= 8:
                return super().apply(service, change, key=key)
            self.world.batch_size = 8
            raise NotApplied("asked for more, the endpoint took 8")

    ledger = FakeLedger()
    world, loop, mails, request = begun(ledger, qps=lambda t: 60.0 if t < 120 else 130.0, batch_hurts=40.0)
    lever = Clamping(world)
    loop = replace(loop, actuator=lambda _service, _lever: lever)
    plan = act.choose_action(loop, request.incident, world.now())
    receipt = act.pull_lever(loop, plan, "batch_size", world.now(), run="gone")
    assert (receipt.applied, receipt.changed, receipt.after["batch_size"]) == (False, True, 8)
    for _ in range(40):
        world.wait(30)
        reconcile_all(loop, world.now(), alive=lambda _run: False)
        if not ledger.open_changes():
            break
    assert world.batch_size == 1 and not ledger.open_changes()
    assert "Rolled back" in mails.mails[0].subject


def test_a_report_is_claimed_before_it_is_sent_so_that_two_never_send_it() -> None:
    ledger = FakeLedger()
    world, loop, mails, request = begun(ledger, SERVICES.replace("mode: act", "mode: observe"))
    plan = act.choose_action(loop, request.incident, world.now())
    act.guard_plan(loop, plan, world.now())
    report = tell.make_report(loop, plan, world.now())
    ledger.put(records.report_record(report, "intent", world.now()))

    class Meanwhile:
        """A notifier during whose sending a sweep comes by."""

        name = "slow"

        def send(self, mail):
            assert tell.send_unsent(loop, world.now()) == 0
            mails.send(mail)

    assert tell.send(replace(loop, notifiers=[Meanwhile()]), report, world.now())
    assert tell.send_unsent(loop, world.now()) == 0 and len(mails.mails) == 1
