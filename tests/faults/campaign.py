"""The fault campaign on the loop's plain functions: kill -9 at every step, and everything else that can go wrong.

Each fault plays on a fresh ledger (SqlLedger, a real file) and a fresh outside world. Sweeps run in forked processes;
one of them dies by SIGKILL, or meets the fault. Then sweeps go on every SWEEP_S seconds as the scheduler would run
them, until nothing is open, and the end is compared with what really happened outside.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detection.errors import SlotuneError
from slotune.runner import Clock, Runner
from tests.fakes.executor import Inline
from tests.fakes.world import SERVICES, KeptMails
from tests.faults.outside import (
    CURE,
    FIRST_CURE,
    FIRST_HARM,
    HARM,
    Landing,
    Outside,
    OutsideBatch,
    OutsideSource,
    Scenario,
    Weather,
)
from tests.faults.replicas import ReplicaBatch, ReplicaSource
from tuning import planning, verification
from tuning.caps import Caps
from tuning.errors import LedgerUnavailable
from tuning.ledger import SqlLedger
from tuning.loop.alive import DEAD_AFTER_S
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, OpenChange, Plan, Record
from tuning.policies.timing import worst_case_rollback_s
from tuning.query import Query
from tuning.services_yaml import loads

SWEEP_S = 15.0
STORY_S = 420.0
"""How long sweeps go on while the story happens."""
AFTER_S = 1500.0
"""How long they go on at most afterwards, until nothing is open."""
CONFIG = SERVICES.replace("hold_again: 60s", "hold_again: 60s, in_flight: 90s, dead_task: 1s")

Kind = Literal[
    "kill",
    "ledger-down",
    "ledger-full",
    "source-down",
    "control-down",
    "apply",
    "clock",
    "race",
    "somebody",
    "mail-down",
]
Drive = Literal["sweeps", "slotune run"]
"""Who runs the loop: a scheduler's sweeps one after the other, or `slotune run`, whose beats tell that it lives."""


@dataclass(frozen=True)
class Fault:
    """kind, where it strikes (the number of the step, or seconds into the story), its flavour, and who runs the loop."""

    kind: Kind
    scenario: Scenario
    at: int
    flavour: str = ""
    drive: Drive = "sweeps"

    def text(self) -> str:
        by = "" if self.drive == "sweeps" else f" by {self.drive}"
        return f"{self.scenario.name}: {self.kind} {self.flavour} at {self.at}{by}".replace("  ", " ")


@dataclass
class Result:
    """What was found wrong; all empty after a fault that was survived."""

    fault: Fault
    orphan: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    over_time: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    landings: int = 0
    struck: bool = True

    def wrong(self) -> list[str]:
        return [*self.orphan, *self.double, *self.unproven, *self.lost, *self.over_time, *self.broken]


class SteppedLedger:
    """SqlLedger with a step before and after every write: a process may die, or the ledger may fail, at each."""

    def __init__(self, ledger: SqlLedger, step: Callable[[str], None]) -> None:
        self._ledger, self._step = ledger, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def put(self, record: Record) -> bool:
        self._step(f"before put {record.kind}")
        new = self._ledger.put(record)
        self._step(f"after put {record.kind}")
        return new

    def open_change(self, change: OpenChange, intent: Record, caps: Caps | None = None) -> None:
        self._step("before open_change")
        self._ledger.open_change(change, intent, caps)
        self._step("after open_change")

    def update_change(self, plan_id: str, state: Any, record: Record, *, expires_at_s: float | None = None) -> None:
        self._step(f"before update_change {state}")
        self._ledger.update_change(plan_id, state, record, expires_at_s=expires_at_s)
        self._step(f"after update_change {state}")


class Steps:
    """Counts steps; at number `at` it does what the fault says. Steps are counted once a change is intended."""

    def __init__(self, act_at: int | str, act: Callable[[], None], counter: Path) -> None:
        self._at, self._act, self._counter = act_at, act, counter
        self._apply = act_at if isinstance(act_at, str) else ""
        self.count = int(counter.read_text()) if counter.exists() else 0

    def __call__(self, name: str) -> None:
        # A quiet sweep's own reads and puts are not the story; it begins with the first choose_action.
        if self.count == 0 and name != "before put choose_action":
            return
        if name.startswith("apply "):
            # Not a step of its own: where the faults of the change itself strike.
            if name == self._apply:
                self._counter.with_name("struck").touch()
                self._act()
            return
        self.count += 1
        self._counter.write_text(str(self.count))
        if self.count == self._at:
            self._act()


def loop_parts(
    folder: Path, outside: Outside, weather: Weather, step: Callable[[str], None], mails: KeptMails
) -> Parts:
    settings = loads(CONFIG)
    fleet = len(outside.scenario.replicas) > 1
    lever: Any = (ReplicaBatch if fleet else OutsideBatch)(outside, weather, step)
    planner_settings = settings.planning.model_copy(update={"rate_window_s": settings.prometheus.rate_window_s})
    ledger: Any = SteppedLedger(SqlLedger.open(ledger_url(folder)), step)
    return Parts(
        settings=settings,
        services={service.name: service for service in settings.service_values()},
        source=(ReplicaSource if fleet else OutsideSource)(outside, weather),
        actuator=lambda _service, _lever: lever,
        planner=planning.get(settings.planning.planner)(planner_settings),
        verifier=verification.get(settings.verification.method)(settings.verification),
        ledger=ledger,
        notifiers=[mails],
    )


def ledger_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


def forked(work: Callable[[], None]) -> int:
    """Run in a process of its own; its exit status (negative: the signal that killed it)."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 0
        try:
            work()
        except BaseException:
            traceback.print_exc()
            status = 70
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sweeps(folder: Path, fault: Fault, until_s: float, *, faulty: bool, stop_when_closed: bool = False) -> None:
    """Sweeps as a scheduler runs them until the world's clock shows `until_s`; errors that slotune knows are logged."""
    outside = Outside.load(folder / "outside.json", fault.scenario)
    outside.shared = fault.kind == "race"
    weather, mails, down = Weather(), KeptMails(), {"ledger": ""}

    def strike() -> None:
        _strike(fault, outside, weather, mails, down)

    place = f"apply {fault.at}" if fault.kind == "apply" else fault.at
    steps = Steps(place if faulty else -1, strike, folder / "steps")

    def step(name: str) -> None:
        steps(name)
        if down["ledger"] and name.startswith("before"):
            raise LedgerUnavailable(down["ledger"])

    parts = loop_parts(folder, outside, weather, step, mails)

    def said(sentence: str) -> None:
        (folder / "said.txt").open("a").write(f"{outside.now_s:.0f} {sentence}\n")

    def now() -> float:
        return outside.now_s + weather.skew_s

    def wait_until(at_s: float) -> None:
        outside.advance(at_s - weather.skew_s)
        step("waited")

    def wait(seconds: float) -> bool:
        outside.advance(outside.now_s + seconds)
        step("waited")
        return False

    name = f"loop-{os.getpid()}"
    runner = Runner(lambda: parts, name, Clock(now, wait), Inline(), said, every_s=SWEEP_S)
    while outside.now_s < until_s:
        try:
            if fault.drive == "slotune run":
                runner.turn()
                down["ledger"] = ""
            else:
                run_once(parts, now, wait_until)
        except SlotuneError as error:
            said(f"{type(error).__name__}: {error}")
            down["ledger"] = ""
        if stop_when_closed and not SqlLedger(ledger_url(folder)).open_changes() and not outside.late:
            return
        outside.advance(outside.now_s + SWEEP_S)


def _strike(fault: Fault, outside: Outside, weather: Weather, mails: KeptMails, down: dict[str, str]) -> None:
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "ledger-down":
        down["ledger"] = "the ledger is locked by another process"
    elif fault.kind == "ledger-full":
        down["ledger"] = "the ledger cannot be written: the disk is full"
    elif fault.kind == "source-down":
        weather.source_down_until_s = outside.now_s + 200.0
    elif fault.kind == "control-down":
        weather.control_down_until_s = outside.now_s + 200.0
    elif fault.kind == "apply":
        weather.next_apply = fault.flavour
    elif fault.kind == "clock":
        weather.skew_s += float(fault.flavour)
    elif fault.kind == "somebody":
        for replica in outside.scenario.replicas[: 1 if fault.flavour == "on one replica" else None]:
            outside.land("somebody", 4, "somebody", replica)
    elif fault.kind == "mail-down":
        mails.error = LedgerUnavailable("the mail server gives no answer")


def play(fault: Fault, folder: Path) -> Result:
    """One fault from the first quiet minute to the last closed change."""
    folder.mkdir(parents=True)
    SqlLedger.open(ledger_url(folder)).close()
    outside = Outside(folder / "outside.json", fault.scenario)
    outside.advance(outside.now_s + 60.0)
    start_s = outside.now_s
    if fault.kind == "race":
        statuses = _race(folder, fault, start_s)
    else:
        statuses = [forked(lambda: sweeps(folder, fault, start_s + STORY_S, faulty=True))]
    result = Result(fault)
    killed = -signal.SIGKILL in statuses
    reached = int((folder / "steps").read_text()) if (folder / "steps").exists() else 0
    at_call = (folder / "struck").exists()
    result.struck = {"kill": killed, "apply": at_call}.get(fault.kind, reached >= fault.at)
    # The parts are back: whatever was begun is settled by the sweeps that follow.
    end_s = Outside.load(folder / "outside.json", fault.scenario).now_s
    last = forked(lambda: sweeps(folder, fault, max(end_s, start_s + STORY_S) + 1.0, faulty=False))
    end_s = Outside.load(folder / "outside.json", fault.scenario).now_s
    closing = forked(lambda: sweeps(folder, fault, end_s + AFTER_S, faulty=False, stop_when_closed=True))
    result.broken += [f"a sweep died: {status}" for status in (*statuses, last, closing) if status not in (0, -9)]
    check(result, folder)
    return result


def _race(folder: Path, fault: Fault, start_s: float) -> list[int]:
    """Two schedulers' runs of the same story on one ledger and one world, at once."""
    SqlLedger.open(ledger_url(folder))
    children = []
    for n in range(2):
        child = os.fork()
        if child == 0:
            status = 0
            try:
                np.random.seed(n)
                sweeps(folder, fault, start_s + STORY_S, faulty=False)
            except BaseException:
                traceback.print_exc()
                status = 70
            os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def check(result: Result, folder: Path) -> None:
    """The truth outside against the ledger."""
    ledger = SqlLedger(ledger_url(folder))
    outside = Outside.load(folder / "outside.json", result.fault.scenario)
    records = list(ledger.find(Query(order="written")))  # newest first
    ours = [landing for landing in outside.landings if landing.by != "somebody"]
    result.landings = len(ours)
    _check_end(result, ledger, outside, records)
    for (key, replica, _new_size), times in Counter((one.key, one.replica, one.new) for one in _once(outside)).items():
        if times > 1:
            result.double.append(f"{key} took effect {times} times {replica}".rstrip())
    for landing in ours:
        plan_id = landing.key.split(":")[0]
        said = [r for r in records if plan_id in (r.parent_id, r.body.get("id"), r.body.get("plan_id"))]
        if not any(r.phase == "intent" or r.kind == "roll_back" for r in said):
            result.lost.append(f"{landing.key}: changed without an intent in the ledger")
        if not any(r.phase == "result" and (r.body.get("lever") or r.body.get("closed")) for r in said):
            result.lost.append(f"{landing.key}: changed, and nothing in the ledger says so")
    with sqlite3.connect(folder / "ledger.db") as connection:
        if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            result.broken.append("the ledger's file is damaged")
    _check_time(result, outside)


def _once(outside: Outside) -> list[Landing]:
    """Ours, without those that only answer what somebody wrote at the very same moment: of two writes at once one is
    the last, and then it is as if theirs had come first."""
    found: list[Landing] = []
    last: dict[str, list[Landing]] = {}
    for one in outside.landings:
        before = last.setdefault(one.replica, [])
        at_once = len(before) > 1 and before[-1].by == "somebody" and before[-2].at_s == before[-1].at_s == one.at_s
        if one.by != "somebody" and not (at_once and before[-2].key == one.key):
            found.append(one)
        before.append(one)
    return found


def _check_end(result: Result, ledger: SqlLedger, outside: Outside, records: list[Record]) -> None:
    for change in ledger.open_changes():
        result.unproven.append(f"plan {change.plan_id} is still {change.state}")
    last = [landing for name in outside.scenario.replicas if (landing := outside.last(name)) is not None]
    left = [landing for landing in last if landing.by != "somebody" and landing.new != 1]
    for landing in left:
        _check_left(result, landing, records)
    # Where somebody changed a replica by hand, slotune has stood down, and the others are theirs too.
    touched = {landing.replica for landing in last if landing.by == "somebody"}
    sizes = {outside.size(name) for name in outside.scenario.replicas if name not in touched}
    if len(sizes) > 1:
        result.orphan.append(f"the replicas were left apart: batch sizes {sorted(sizes)}")


def proven(verdict: Record) -> bool:
    """Whether a verdict lets a change stay: it did no harm, or its objective is met in both looks although too little
    was seen to call it an improvement (tuning.policies.promotion)."""
    body = verdict.body
    return body.get("verdict") in ("improved", "unchanged") or (
        body.get("verdict") == "inconclusive" and body.get("resolved") is True
    )


def _check_left(result: Result, landing: Landing, records: list[Record]) -> None:
    """A new value that is in force at the end has a plan, a proof and a decision to keep it. The newest proof is the one
    that was written last: a clock that jumped makes older ones look newer."""
    plan_id = landing.key.split(":")[0]
    # What landed after its end is proven as an attempt of its own, with the same new value.
    family = {plan_id, *(r.id for r in records if r.kind == "choose_action" and _new(r) == landing.new)}
    outcomes = {r.id: r for r in records if r.kind == "verify_p95" and r.parent_id in family}
    kept = [r for r in records if r.kind == "keep" and r.parent_id in family | set(outcomes) and "step" in r.body]
    if not any(r.kind in LEVER_STEPS.values() and plan_id in (r.parent_id, r.body.get("id")) for r in records):
        result.orphan.append(f"batch_size {landing.new} is in force and no record speaks of {plan_id}")
    elif not kept:
        result.orphan.append(f"batch_size {landing.new} is in force, of plan {plan_id}, and was never kept")
    elif not outcomes or not proven(next(iter(outcomes.values()))):
        result.unproven.append(f"plan {plan_id} was kept without a proof")


def _new(record: Record) -> object:
    """The batch size that a plan asks for; None for one that holds."""
    changes = Plan.model_validate(record.body).chosen.changes
    return changes[0].new["batch_size"] if changes else None


def _check_time(result: Result, outside: Outside) -> None:
    """A change that harms is in force for no longer than the worst case that the settings promise."""
    scenario = result.fault.scenario
    if scenario not in (HARM, FIRST_HARM):
        return
    settings = loads(CONFIG)
    lever = settings.service_values()[0].levers["batch_size"]
    limit_s = worst_case_rollback_s(
        settings.verification,
        settings.safety,
        lever,
        watch_every_s=SWEEP_S,
        one_replica_first=scenario is FIRST_HARM,
    )
    # The changes of a `slotune run` that died are settled when its beat has been missed for long enough.
    limit_s += DEAD_AFTER_S if result.fault.drive == "slotune run" else 0.0
    # An endpoint that cannot be reached cannot be told to go back: that time is not slotune's.
    limit_s += 200.0 if result.fault.kind in ("control-down", "source-down") else 0.0
    for replica in scenario.replicas:
        began: float | None = None
        for landing in [*(one for one in outside.landings if one.replica == replica), None]:
            at_s = outside.now_s if landing is None else landing.at_s
            if began is not None and at_s - began > limit_s:
                lasted = f"{at_s - began:.0f} s (limit {limit_s:.0f} s)"
                result.over_time.append(f"a harmful change was in force for {lasted} {replica}".rstrip())
            began = None if landing is None or landing.new == 1 or landing.by == "somebody" else at_s


def warm_up(folder: Path) -> None:
    """The whole story once in this process: what is imported late is imported now, once, and by no child on its own."""
    folder.mkdir(parents=True)
    fault = Fault("kill", HARM, -1)
    outside = Outside(folder / "outside.json", HARM)
    outside.advance(outside.now_s + 60.0)
    sweeps(folder, fault, outside.now_s + STORY_S, faulty=False)


def steps_of(scenario: Scenario, folder: Path) -> int:
    """How many steps the story has when nothing goes wrong."""
    result = play(Fault("kill", scenario, -1), folder)
    if result.wrong():
        raise AssertionError(f"without any fault: {result.wrong()}")
    return int((folder / "steps").read_text())


APPLY_FAULTS = ("timeout-landed", "timeout-lost", "timeout-late", "timeout-after-its-end", "409", "403", "ignored", "clamped")
CALLS = {CURE.name: 1, HARM.name: 2, FIRST_CURE.name: 3, FIRST_HARM.name: 2}
"""How many calls that change a replica a story begins with: a harm is changed and put back."""
SCENARIOS = (CURE, HARM, FIRST_CURE, FIRST_HARM)
CLOCK_JUMPS = ("-3600", "-30", "30", "3600", "86400")


def faults(steps: Mapping[str, int], *, every: int = 1) -> list[Fault]:
    """All faults; `every`: only each so-many-th step, for the short form."""
    found: list[Fault] = []
    for scenario in SCENARIOS:
        places = range(1, steps[scenario.name] + 1, every)
        # The story of a cure is short: it is always killed at every step.
        kills = places if scenario in (HARM, FIRST_HARM) else range(1, steps[scenario.name] + 1)
        found += [Fault("kill", scenario, at) for at in kills]
        found += [Fault("ledger-down", scenario, at) for at in places[::5]]
        found += [Fault("ledger-full", scenario, at) for at in places[2::5]]
        found += [Fault("source-down", scenario, at) for at in places[::7]]
        found += [Fault("control-down", scenario, at) for at in places[3::7]]
        calls = range(1, CALLS[scenario.name] + 1)
        found += [Fault("apply", scenario, at, flavour) for flavour in APPLY_FAULTS for at in calls]
        for offset, jump in enumerate(CLOCK_JUMPS):
            found += [Fault("clock", scenario, at, jump) for at in places[offset::20]]
        found += [Fault("somebody", scenario, at) for at in places[::8]]
        if len(scenario.replicas) > 1:
            found += [Fault("somebody", scenario, at, "on one replica") for at in places[4::8]]
        found += [Fault("mail-down", scenario, at) for at in places[::16]]
    found += [Fault("race", scenario, seed) for scenario in SCENARIOS for seed in range(3 if every == 1 else 1)]
    return found
