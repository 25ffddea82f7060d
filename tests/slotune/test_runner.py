"""The loop by itself: it cures what run_once cures, asks a person, and shares a ledger with others."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from detection.errors import SourceUnreachable, Temporary
from slotune.runner import Clock, Runner, Stopped
from tests.fakes.executor import Inline
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, START_S, KeptMails, World, parts
from tuning.loop import alive, once, records, watch
from tuning.loop.once import run_once
from tuning.orders import order, order_record


class Later(Executor):
    """Keeps what it is given until `run` is called: an attempt that is under way."""

    def __init__(self) -> None:
        self.kept: list = []

    def submit(self, fn, /, *args, **kwargs):
        done: Future = Future()
        self.kept.append(done)
        return done


class Stage:
    """One world, one ledger, and loops on them. until_s: from then on the clock tells every wait to stop."""

    def __init__(self, services: str = SERVICES, **world) -> None:
        self.world, self.ledger, self.mails = World(**world), FakeLedger(), KeptMails()
        self.world.wait(60)
        self.parts = parts(self.world, self.ledger, self.mails, services)
        self.said: list[str] = []
        self.until_s = float("inf")

    def wait(self, seconds: float) -> bool:
        if self.world.now_s + seconds > self.until_s:
            return True
        if seconds > 0:
            self.world.wait(seconds)
        return False

    def runner(self, name: str = "one", executor: Executor | None = None, **kwargs) -> Runner:
        clock = Clock(self.world.now, self.wait)
        return Runner(lambda: self.parts, name, clock, executor or Inline(), self.said.append, 15.0, **kwargs)

    def run(self, runner: Runner, seconds: float) -> None:
        self.until_s = self.world.now_s + seconds
        runner.forever()


def surge(t: float) -> float:
    return 60.0 if t < 120 else 180.0


def test_a_surge_is_cured_as_by_run_once_and_told_in_sentences():
    alone, by_hand = Stage(qps=surge), Stage(qps=surge)
    alone.run(alone.runner(), 600)
    while by_hand.world.now_s < START_S + 660:
        run_once(by_hand.parts, by_hand.world.now, by_hand.world.wait_until)
        by_hand.world.wait(15)
    assert alone.world.applies == by_hand.world.applies and len(alone.world.applies) == 1
    assert len(alone.mails.mails) == 1 and "Resolved" in alone.mails.mails[0].subject
    assert any("Attempt 1 begins" in said for said in alone.said)
    assert any("improved, kept" in said for said in alone.said)
    assert not alone.ledger.open_changes()


def test_a_sweep_that_fails_is_told_and_the_next_one_comes():
    stage = Stage()
    runner = stage.runner()
    stage.world.down = True
    runner.turn()
    stage.world.down = False
    stage.world.wait(15)
    runner.turn()
    assert runner.failures == 1
    assert any(said.startswith("This sweep failed:") for said in stage.said)
    assert "Swept 1 service: nothing to do." in stage.said


def test_a_sweep_is_left_out_while_somebody_else_s_is_fresh():
    stage = Stage()
    first, second = stage.runner("one"), stage.runner("two")
    first.turn()
    stage.world.wait(3)
    second.turn()
    assert any("3 s ago: this sweep is left out" in said for said in stage.said)
    stage.world.wait(15)
    stage.said.clear()
    second.turn()
    assert any(said.startswith("Swept") for said in stage.said)


class Interrupted(FakeLedger):
    """Lets somebody else have a turn right after a value was stored under `key`."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key, self.other = key, lambda: None

    def put_blob(self, key, data, *, at_s):
        super().put_blob(key, data, at_s=at_s)
        if key == self.key:
            other, self.other = self.other, lambda: None
            other()


@pytest.mark.parametrize("key", [watch.WINDOWS, watch.ANOMALIES])
def test_of_two_sweeps_at_once_the_overtaken_one_says_so_and_its_next_one_goes_on(key):
    stage = Stage()
    ledger = Interrupted(key)
    stage.parts = parts(stage.world, ledger, stage.mails)
    first, second = stage.runner("one"), stage.runner("two")
    ledger.other = lambda: (stage.world.wait(10), second.turn(beside=False))
    first.turn(beside=False)
    swept, overtaken = stage.said
    assert swept == "Swept 1 service: nothing to do."
    assert overtaken.startswith("This sweep was overtaken: the ") and "goes on in its place" in overtaken
    assert first.failures == 0
    stage.world.wait(15)
    first.turn(beside=False)
    assert stage.said[-1] == "Swept 1 service: nothing to do."


@pytest.mark.parametrize("key", [watch.WINDOWS, watch.ANOMALIES])
def test_a_sweep_that_was_overtaken_is_a_temporary_error(key):
    stage = Stage()
    ledger = Interrupted(key)
    loop = parts(stage.world, ledger, stage.mails)
    ledger.other = lambda: (stage.world.wait(1), run_once(loop, stage.world.now, stage.world.wait_until))
    with pytest.raises(Temporary, match=r"the sweep of \d\d:\d\d:\d\d UTC were replaced by another sweep's"):
        run_once(loop, stage.world.now, stage.world.wait_until)
    assert run_once(loop, stage.world.now, stage.world.wait_until) == []


APPROVE = SERVICES.replace("mode: act", "mode: approve")


@pytest.mark.parametrize(("answer", "changed"), [("approve", 1), ("reject", 0), (None, 0)])
def test_mode_approve_waits_for_a_word_in_the_ledger(answer, changed):
    stage = Stage(APPROVE, qps=surge)
    given: list[str] = []

    def wait(seconds: float) -> bool:
        asked = [said for said in stage.said if "slotune approve" in said]
        if answer and asked and not given:
            plan_id = asked[0].split()[-1]
            given.append(plan_id)
            said = order(answer, "ann", stage.world.now_s, service="ranker", about=plan_id, why="go on")
            stage.ledger.put(order_record(said))
        return stage.wait(seconds)

    runner = replace(stage.runner(), clock=Clock(stage.world.now, wait))
    stage.until_s = stage.world.now_s + 420
    runner.forever()
    assert len(stage.world.applies) == changed
    first = next(r for r in stage.ledger.records.values() if r.kind == "choose_action")
    assert first.body["mode"] == "approve"
    if answer == "reject":
        assert any("Rejected by ann. Comment: go on" in said for said in stage.said)


def test_an_attempt_is_begun_by_one_of_two_loops():
    stage = Stage(qps=surge)
    one, two = stage.runner("one", Later()), stage.runner("two", Later())
    stage.world.wait(90)
    incidents = []
    while not incidents:
        incidents = once.sweep(stage.parts, stage.world.now_s, alive=lambda _run: True)
        stage.world.wait(15)
    request, at_s = incidents[0], stage.world.now_s
    assert one._begin(stage.parts, request, at_s)
    assert not two._begin(stage.parts, request, at_s)
    # The first loop falls silent: whoever comes later begins the attempt again.
    stage.world.wait(alive.DEAD_AFTER_S + 1)
    assert two._begin(stage.parts, request, stage.world.now_s)


def test_a_change_of_a_loop_that_died_is_proven_by_the_next():
    stage = Stage(qps=surge)
    runner = stage.runner("one")
    stage.until_s = stage.world.now_s + 600
    # Killed while it waits for the look: every wait after the change says stop.
    runner.clock = Clock(stage.world.now, lambda s: bool(stage.world.applies) or stage.wait(s))
    runner.forever()
    assert stage.world.applies and [c.state for c in stage.ledger.open_changes()] == ["made"]
    assert not any("broke off" in said for said in stage.said)
    second = stage.runner("two")
    stage.world.wait(alive.DEAD_AFTER_S + 1)
    stage.run(second, 300)
    assert not stage.ledger.open_changes()
    assert len(stage.world.applies) == 1 and len(stage.mails.mails) == 1


def test_an_attempt_that_died_between_plan_and_change_is_begun_again():
    stage = Stage(qps=surge)
    first = stage.runner("one", Later())
    stage.world.wait(60)
    while not first.under_way():
        first.turn()
        stage.world.wait(15)
    from tuning.loop import act
    from tuning.loop.open_incidents import open_incidents_of

    incident = open_incidents_of(stage.ledger, stage.world.now_s)[0]
    act.choose_action(stage.parts, incident, stage.world.now_s)
    stage.world.wait(alive.DEAD_AFTER_S + 1)
    stage.run(stage.runner("two"), 300)
    assert len(stage.world.applies) == 1 and len(stage.mails.mails) == 1


def test_a_run_of_another_scheduler_is_believed_and_a_silent_loop_is_not():
    stage = Stage()
    runner = stage.runner()
    assert runner._alive(stage.parts, "tune__ranker__abc__1", stage.world.now_s)
    run = alive.run_of("elsewhere", "tune__ranker__abc__1")
    assert not runner._alive(stage.parts, run, stage.world.now_s)
    alive.beat(stage.ledger, "elsewhere", [run], stage.world.now_s)
    assert runner._alive(stage.parts, run, stage.world.now_s + alive.DEAD_AFTER_S)
    assert not runner._alive(stage.parts, run, stage.world.now_s + alive.DEAD_AFTER_S + 1)
    alive.beat(stage.ledger, "elsewhere", [], stage.world.now_s)
    assert not runner._alive(stage.parts, run, stage.world.now_s)


def test_the_review_is_due_once_at_its_minute_and_made_up_for_after_a_pause():
    minute = int(START_S // 60) + 4
    at = datetime.fromtimestamp(60.0 * minute, UTC)
    stage = Stage(f"schedule: {{review: '{at.minute} {at.hour} * * *'}}\n" + SERVICES)
    runner = stage.runner()
    stage.run(runner, 600)
    assert sum("The week's review" in said for said in stage.said) == 1


def test_stopped_is_no_fault_that_anybody_catches():
    assert not issubclass(Stopped, Exception)


def test_a_source_that_cannot_be_reached_at_the_start_is_a_sentence():
    stage = Stage()

    def build():
        raise SourceUnreachable("prometheus: nobody answers")

    runner = replace(stage.runner(), build=build)
    assert runner.turn() == 15.0
    assert stage.said == ["This sweep failed: prometheus: nobody answers"]


def test_begun_lines_name_their_run():
    stage = Stage(qps=surge)
    stage.run(stage.runner("one"), 400)
    lines = [r for r in stage.ledger.records.values() if r.kind == records.BEGUN]
    assert [records.run_of(line) for line in lines] == [
        alive.run_of("one", line.id.rpartition(":begun:")[0]) for line in lines
    ]
    assert lines
