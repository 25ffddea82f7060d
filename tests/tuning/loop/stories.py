"""A world for made-up stories: incidents, faults, deaths, people's edits and clock jumps over the loop's real functions.

Planner, verifier, source and levers are small stand-ins whose answers the story draws; choose, guard, change, settle,
verify, keep, roll back, report, the sweeps and the ledger's rules are the product's. Time is the world's own; the loop
sees it through a clock that may be wrong.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detection.model import Anomaly, BucketWindow, Incident, MetricWindow, Service, Span, make_id
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails
from tuning.errors import ClaimRefused, ControlRefused, ControlUnreachable, NotOwner, OutcomeUnknown
from tuning.loop import act, approve, prove, reconcile, records, tell, verify, watch
from tuning.loop.parts import Parts
from tuning.model import Change, Diagnosis, Observation, Option, Outcome, Plan, Receipt, Record, Setting
from tuning.orders import order, order_record
from tuning.planning import reading as rd
from tuning.services_yaml import loads

START_S = 1_800_000_000.0
SERVICES = ("one", "two", "three")
LOW, HIGH = 1, 8
FIRST = {"batch_size": 2, "replicas": 2}
PEOPLES = (3, 5, 7)
"""Values that only people set: the planner moves by even steps."""
CONFIG = """
prometheus: {rate_window: 15s, step: 15s}
verification: {look: 60s, longer_look: 60s}
safety: {cool_down: 0s, hold_again: 60s, services_at_once: 2, changes_per_hour: 4, changes_per_hour_total: 8,
         stand_down: 4h, lease: 20m, lease_renewals: 2, revert_for: 60s, max_attempts: 3}
detection: {lookback: 10m, detectors: [rules]}
mail: {to: [oncall@example.com]}
services:
""" + "".join(
    f"""
  - name: {name}
    serving: slotune_demo
    selectors: {{service: {name}}}
    slo: {{p95: 150ms, for: 10s}}
    mode: act
    levers:
      batch_size: {{min: {LOW}, max: {HIGH}, connection: c}}
      replicas: {{min: {LOW}, max: {HIGH}, connection: c, namespace: n, target: t, cost_per_hour: 1}}
"""
    for name in SERVICES
)

SETTINGS = loads(CONFIG)


class Killed(BaseException):
    """SIGKILL: no handler runs."""


@dataclass
class Write:
    """One change of a lever in the world. by: "slotune" or "somebody". seen: slotune has read the lever since."""

    at_s: float
    service: str
    lever: str
    old: int
    new: int
    by: str
    back: bool = False
    seen: bool = False


@dataclass
class Story:
    """Everything that is true outside, and what the story has drawn for the moments that ask."""

    now_s: float = START_S
    skew_s: float = 0.0
    values: dict[tuple[str, str], int] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    qps: float = 100.0
    unreachable: bool = False
    refuses: bool = False
    unanswered: str = ""
    lever: str = "batch_size"
    verdict: str = "improved"
    dies_in: int | None = None
    broken: list[str] = field(default_factory=list)
    jumped: bool = False
    stopped: set[str] = field(default_factory=set)
    """Services (or "" for all) for which a person has said stop, in whatever way."""
    doubt: set[tuple[str, str, int]] = field(default_factory=set)
    """Values for which a call was made that nobody answered: it may have been the call, or somebody."""

    def value(self, service: str, lever: str) -> int:
        return self.values.get((service, lever), FIRST[lever])

    def clock(self) -> float:
        return self.now_s + self.skew_s

    def step(self) -> None:
        """A moment at which a process may die."""
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                raise Killed

    def set(self, service: str, lever: str, new: int, by: str, *, back: bool = False) -> None:
        old = self.value(service, lever)
        if by == "slotune" and old != new:
            self._judge(service, lever, new, back)
        if by == "somebody" and self._unseen(service, lever, new):
            self.writes = [w for w in self.writes if w.seen or w.by == "slotune" or (w.service, w.lever) != (service, lever)]
        elif old != new:
            self.writes.append(Write(self.now_s, service, lever, old, new, by, back))
        self.values[service, lever] = new

    def _unseen(self, service: str, lever: str, new: int) -> bool:
        """A person went away from what slotune had left and came back to it before slotune looked: by the value alone
        nobody can tell that from a lever at which nobody was."""
        mine = [w for w in self.writes if (w.service, w.lever) == (service, lever)]
        theirs = list(itertools.takewhile(lambda w: w.by == "somebody", reversed(mine)))
        left = mine[len(mine) - len(theirs) - 1] if len(theirs) < len(mine) else None
        return left is not None and left.new == new and not any(w.seen for w in theirs)

    def _judge(self, service: str, lever: str, new: int, back: bool) -> None:
        """A write of slotune's: within bounds, never over what a person has set, and no step forward after a stop."""
        if not LOW <= new <= HIGH:
            self.broken.append(f"{service} {lever} was set to {new}, out of bounds")
        if new > self.value(service, lever) and self.stopped & {"", service}:
            self.broken.append(f"{service} {lever} was set to {new} although somebody has said stop")
        mine = [w for w in self.writes if (w.service, w.lever) == (service, lever)]
        touched = any(w.by == "slotune" for w in mine)
        if mine and touched and mine[-1].by == "somebody" and self.now_s - mine[-1].at_s < 4 * 3600 - 600:
            edited_s = self.now_s - mine[-1].at_s
            self.broken.append(f"{service} {lever}: {mine[-1].new}, set by a person {edited_s:.0f} s ago, became {new}")


class StoryLedger(FakeLedger):
    """The fake ledger; the process may die before and after every write."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self.story = story
        self.claims: list[tuple[float, str, int]] = []
        self.over: list[str] = []
        self._within = False

    def put(self, record: Record) -> bool:
        if self._within:  # a transaction is written whole or not at all
            return super().put(record)
        self.story.step()
        new = super().put(record)
        self.story.step()
        return new

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.story.step()
        self._within = True
        try:
            yield
        finally:
            self._within = False
        self.story.step()

    def open_change(self, change: Any, intent: Record, caps: Any = None) -> None:
        known = change.plan_id in self.changes
        with self._transaction():
            super().open_change(change, intent, caps)
            if not known and caps is not None:
                self.claims.append((self.story.now_s, change.service, len(change.plan.chosen.changes)))
                unproven = sorted(c.service for c in self.changes.values() if c.state != "leased")
                if len(unproven) > 2:
                    self.over.append(f"{change.service} was claimed as one of {unproven}: more than two at once")

    def update_change(self, *args: Any, **kwargs: Any) -> None:
        with self._transaction():
            super().update_change(*args, **kwargs)


class StoryLever:
    """Both levers of every service: absolute, read back, with the faults that the story has drawn."""

    name = "story"

    def __init__(self, story: Story, lever: str) -> None:
        self.story, self.lever = story, lever

    def read(self, service: Service) -> Setting:
        if self.story.unreachable:
            raise ControlUnreachable("the control endpoint gives no answer")
        for write in self.story.writes:
            write.seen = write.seen or (write.service, write.lever) == (service.name, self.lever)
        return Setting(lever=self.lever, values={self.lever: self.story.value(service.name, self.lever)})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before = self.read(service).values
        if self.story.refuses:
            raise ControlRefused("403: forbidden")
        # As the contract of the port has it. On the way back the loop's own checks have to do without this one.
        if not change.undoes and before[self.lever] not in (change.old[self.lever], change.new[self.lever]):
            raise NotOwner(f"{self.lever} is {before[self.lever]}: somebody else changed it")
        new, unanswered = int(change.new[self.lever]), self.story.unanswered
        self.story.unanswered = ""
        self.story.doubt.add((service.name, self.lever, new))
        if unanswered != "lost":
            self.story.set(service.name, self.lever, new, "slotune")
        self.story.step()
        if unanswered:
            raise OutcomeUnknown("the connection was lost")
        self.story.doubt.discard((service.name, self.lever, new))
        return Receipt(
            id="", plan_id="", service=service.name, lever=self.lever, before=before, after=dict(change.new),
            applied=True, changed=before != change.new, at_s=self.story.clock())  # fmt: skip


class StoryPlanner:
    """Two more on the levers that the story has drawn, where their bounds and the past allow it; else hold."""

    name = "story"

    def __init__(self, story: Story) -> None:
        self.story = story

    def spares(self, *_: Any) -> str:
        return ""

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        levers = tuple(FIRST) if self.story.lever == "both" else (self.story.lever,)
        stand = {name: observation.settings.get(name) for name in levers}
        tried = set(levers) & set(rd.tried_levers(incident, past))
        changes = tuple(
            Change(lever=name, old={name: now.values[name]}, new={name: int(now.values[name]) + 2})
            for name, now in stand.items()
            if now is not None and int(now.values[name]) + 2 <= HIGH
        )
        if tried or len(changes) < len(levers):
            changes = ()
        lent = any(change.lever == "replicas" for change in changes)
        chosen = Option(changes=changes, cost_per_hour=1.0 if lent else 0.0, reason="the story says so")
        return Plan(
            id=rd.plan_id(incident),
            incident_id=incident.id,
            service=observation.service.name,
            decided_at_s=observation.at_s,
            mode=rd.mode_of(observation, chosen),
            diagnosis=Diagnosis(cause="load"),
            chosen=chosen,
            settle_s=rd.settle_s(observation, chosen, 30.0),
            lease_s=1200.0 if lent else None,
            revert_below_qps=80.0 if lent else None,
            attempt=incident.attempt,
            since_s=observation.since_s,
            tries=observation.tries,
            dry_run=observation.dry_run,
            reason=chosen.reason,
        )


class StoryVerifier:
    name = "story"

    def __init__(self, story: Story) -> None:
        self.story = story

    def judge(self, plan: Plan, before: Any, after: Any, control: Any = None) -> Outcome:
        verdict = self.story.verdict if plan.rollback_of is None else "unchanged"
        return Outcome.model_validate(
            {"id": "", "plan_id": plan.id, "service": plan.service, "verdict": verdict, "at_s": 0.0,
             "resolved": verdict == "improved", "reason": "the story says so"})  # fmt: skip


class StorySource:
    def __init__(self, story: Story) -> None:
        self.story = story

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        if "emulated" in signals:
            return {}  # the picture of a report is not what stories are about, and costs more than all the rest
        level = {"p95_ms": 400.0, "qps": self.story.qps, "error_rate": 0.0}
        values = {s: np.full(span.points, level[s]) for s in signals if s in level}
        return {s.name: MetricWindow(s.name, span, values, stale_s=dict.fromkeys(values, 0.0)) for s in services}

    def read_replicas(self, services: Any, signals: Any, span: Span) -> Mapping[str, Mapping[str, MetricWindow]]:
        return {}

    def read_buckets(self, services: Any, span: Span) -> Mapping[str, BucketWindow]:
        return {}


class Telling:
    """A story on its way: the loop, its runs as they stand, and the open incidents."""

    def __init__(self) -> None:
        self.story = Story()
        self.ledger, self.mails = StoryLedger(self.story), KeptMails()
        self.runs: dict[str, Iterator[float]] = {}
        self.waits: dict[str, float] = {}
        self.incidents: dict[str, Incident] = {}
        self.count = 0
        self.safety: dict[str, Any] = {}
        self.modes: dict[str, Any] = {}
        self.answers: dict[str, dict[str, Any] | None] = {}
        self.paused: set[str] = set()

    @property
    def loop(self) -> Parts:
        settings = SETTINGS.model_copy(update={"safety": SETTINGS.safety.model_copy(update=self.safety)})
        levers = {name: StoryLever(self.story, name) for name in FIRST}
        return Parts(
            settings=settings,
            services={
                s.name: s.model_copy(update={"mode": self.modes.get(s.name, s.mode)}) for s in settings.service_values()
            },
            source=StorySource(self.story),
            actuator=lambda _service, lever: levers[lever],
            planner=StoryPlanner(self.story),
            verifier=StoryVerifier(self.story),
            ledger=self.ledger,
            notifiers=[self.mails],
        )

    def happen(self, event: tuple[Any, ...]) -> None:
        getattr(self, event[0])(*event[1:])
        self.check()

    # -- what may happen ----------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        self.story.now_s += seconds

    def trouble(self, which: int, lever: str, verdict: str) -> None:
        """An incident opens (once at a time for each service), and what its changes would do is drawn."""
        service = SERVICES[which % len(SERVICES)]
        self.story.lever, self.story.verdict = lever, verdict
        if any(i.service == service for i in self.incidents.values()):
            return
        self.count += 1
        at_s = self.story.clock()
        incident = Incident(
            id=make_id("story", self.count), service=service, symptom="latency", tier="act", severity="critical",
            opened_at_s=at_s - 60, detected_at_s=at_s, signals=("p95_ms",), anomalies=(_anomaly(service, at_s),),
            reason="P95")  # fmt: skip
        self.incidents[incident.id] = incident
        self._alone(lambda: self.ledger.put(records.incident_record(incident)))

    def calm(self, which: int) -> None:
        service = SERVICES[which % len(SERVICES)]
        for incident in [i for i in self.incidents.values() if i.service == service]:
            del self.incidents[incident.id]
            self._alone(lambda i=incident: self.ledger.put(records.closing_record(i, self.story.clock(), "over")))

    def sweep(self, dies_in: int | None = None) -> None:
        self.story.now_s += 60.0
        self.story.dies_in = dies_in
        self._alone(self._sweep)
        self.story.dies_in = None

    def _sweep(self) -> None:
        loop, at_s = self.loop, self.story.clock()
        reconcile.reconcile_all(loop, at_s, alive=lambda run: run in self.runs)
        tell.send_unsent(loop, at_s)
        firing = [i.model_copy(update={"anomalies": (_anomaly(i.service, at_s),)}) for i in self.incidents.values()]
        for request in watch.requests(loop, firing, at_s):
            if request.run_id not in self.runs:
                self.runs[request.run_id] = self._run(request)
                self.waits[request.run_id] = 0.0

    def work(self, which: int, dies_in: int | None = None) -> None:
        """One task of a run that is due."""
        due = [run for run, until_s in self.waits.items() if until_s <= self.story.clock()]
        if not due:
            return
        run = sorted(due)[which % len(due)]
        self.story.dies_in = dies_in
        try:
            self.waits[run] = next(self.runs[run])
        except (StopIteration, Killed, ClaimRefused):
            self._gone(run)
        except Exception:
            self._gone(run)
        self.story.dies_in = None

    def answer(self, which: int, yes: bool) -> None:
        """A person answers one of the requests for approval that wait, however late."""
        asked = sorted(run for run, said in self.answers.items() if said is None and run in self.runs)
        if asked:
            run = asked[which % len(asked)]
            chosen = ["Approve"] if yes else ["Reject"]
            self.answers[run] = {"chosen_options": chosen, "responded_by_user": {"id": "ann", "name": "ann"}}
            self.waits[run] = 0.0

    def mode(self, which: int, mode: str) -> None:
        self.modes[SERVICES[which % len(SERVICES)]] = mode
        self._stops()

    def order(self, which: int, what: str) -> None:
        """A person's word: pause or resume a service (which 3: all), or hand a temporary change back now."""
        service = (*SERVICES, "")[which % 4]
        told: dict[str, Any] = {"service": service}
        if what == "hand_back":
            leased = [c for c in self.ledger.changes.values() if c.state == "leased" and service in ("", c.service)]
            if not leased:
                return
            told = {"service": leased[-1].service, "about": leased[-1].plan_id}
        given = order(what, "ann", self.story.clock(), why=f"story {len(self.ledger.records)}", **told)  # type: ignore[arg-type]
        self._alone(lambda: self.ledger.put(order_record(given)))
        if what == "pause":
            self.paused.add(service)
        if what == "resume":
            self.paused = self.paused - {service} if service else set()
        self._stops()

    def again(self, which: int, lever: str) -> None:
        """A person sets the very value that slotune has put back, where no call for it may still be on its way, and the
        put-back is written down: of a process that died before, nobody can tell whether it had put anything back."""
        service = SERVICES[which % len(SERVICES)]
        mine = [w for w in self.story.writes if (w.service, w.lever) == (service, lever)]
        if len(mine) < 2 or {w.by for w in mine[-2:]} != {"slotune"} or mine[-1].new != mine[-2].old:
            return
        left = [
            r.body["after"][lever]
            for r in self.ledger.records.values()
            if r.service == service and r.body.get("lever") == lever and r.body.get("after")
        ]
        if (service, lever, mine[-2].new) not in self.story.doubt and left[-1:] == [mine[-1].new]:
            self.story.set(service, lever, mine[-2].new, "somebody")

    def _stops(self) -> None:
        """Who may not be changed any further, as the person who said so sees it."""
        observed = {name for name, mode in self.modes.items() if mode == "observe"}
        self.story.stopped = self.paused | observed | ({""} if self.safety else set())

    def _gone(self, run: str) -> None:
        self.runs.pop(run, None)
        self.waits.pop(run, None)

    def _run(self, request: watch.TuneRequest) -> Iterator[float]:
        """tune_service task by task; each yield is the time until which the next one waits."""
        now, run = self.story.clock, request.run_id
        plan = act.choose_action(self.loop, request.incident, now(), attempt=request.attempt)
        refusal = act.guard_plan(self.loop, plan, now()) if plan.chosen.changes else None
        yield 0.0
        if refusal is not None and refusal.guard == "approval":
            self.answers[run] = None
            yield float("inf")  # until somebody answers
            plan, refusal = approve.answered(self.loop, plan, self.answers.pop(run) or {}, now())
            refusal = refusal or act.guard_plan(self.loop, plan, now(), approved=True)
            yield 0.0
        if not plan.chosen.changes or refusal is not None:
            act.hold(self.loop, plan, now(), refusal.reason if refusal is not None else "")
            tell.email_report(self.loop, plan, now())
            return
        for change in plan.chosen.changes:
            receipt = act.pull_lever(self.loop, plan, change.lever, now(), run=run, now=now)
            yield 0.0
        if prove.nothing_changed(self.loop, plan):
            prove.close(self.loop, plan, now(), "hold", receipt.reason)
            tell.email_report(self.loop, plan, now())
            return
        step: str = "look"
        while step in ("look", "settle"):
            look = 2 if step == "settle" else 1
            yield prove.look_until_s(self.loop, plan, look=look, now_s=now())
            step = verify.verify(self.loop, plan, now(), look=look, run=run)
        yield 0.0
        outcome, decision = prove.last_verdict(self.loop, plan)
        if decision.step == "keep":
            prove.keep(self.loop, plan, outcome, decision, now())
        elif prove.roll_back(self.loop, plan, outcome, decision, now()):
            yield prove.look_until_s(self.loop, plan.inverse(), now_s=now())
            prove.close_rolled_back(self.loop, plan, now())
        tell.email_report(self.loop, plan, now())

    def kill(self, which: int) -> None:
        if self.runs:
            self._gone(sorted(self.runs)[which % len(self.runs)])

    def somebody(self, which: int, lever: str, value: int) -> None:
        self.story.set(SERVICES[which % len(SERVICES)], lever, value, "somebody")

    def jump(self, seconds: float) -> None:
        self.story.skew_s += seconds
        self.story.jumped = True

    def load(self, qps: float) -> None:
        self.story.qps = qps

    def control(self, unreachable: bool, refuses: bool, unanswered: str) -> None:
        self.story.unreachable, self.story.refuses, self.story.unanswered = unreachable, refuses, unanswered

    def stop(self, how: str) -> None:
        self.safety = {"dry_run": {"dry_run": True}, "freeze": {"freeze": ("Mon-Sun",)}, "": {}}[how]
        self._stops()

    def _alone(self, work: Any) -> None:
        """A process of its own: it may die, or fail as it would in a task."""
        with contextlib.suppress(Killed):
            work()

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        unproven = [c.service for c in self.ledger.changes.values() if c.state != "leased"]
        assert len(unproven) == len(set(unproven)), f"two unproven changes: {unproven}"
        assert not self.story.broken, self.story.broken
        assert not self.ledger.over, self.ledger.over
        hour = [c for c in self.ledger.claims if c[0] > self.story.now_s - 3600.0]
        assert sum(n for _, _, n in hour) <= 8, "more changes in an hour than all services together may see"
        for service in SERVICES:
            assert sum(n for _, name, n in hour if name == service) <= 4, f"more changes of {service} than allowed"

    def end(self) -> None:
        """Everything works again, the load is low, nobody does anything more: then nothing may be left open."""
        self.runs.clear()
        self.waits.clear()
        for which in range(len(SERVICES)):
            self.calm(which)
        self.control(False, False, "")
        self.stop("")
        self.order(3, "resume")
        self.modes.clear()
        self._stops()
        self.story.qps, self.story.dies_in = 10.0, None
        for _ in range(150):
            self.story.now_s += 240.0
            self.sweep()
            self.check()
            if not self.ledger.changes and self.story.now_s > START_S:
                break
        assert not self.ledger.changes, [(c.service, c.state, c.plan.chosen.text()) for c in self.ledger.changes.values()]
        self._every_value_has_a_reason()
        self._what_was_lent_is_back()

    def _what_was_lent_is_back(self) -> None:
        """Replicas are lent for a while only: where nobody else was at the service, they are as they were."""
        touched = {w.service for w in self.story.writes if w.by == "somebody"}
        for service in set(SERVICES) - touched:
            assert self.story.value(service, "replicas") == FIRST["replicas"], f"{service} kept what it was lent"

    def _every_value_has_a_reason(self) -> None:
        """What slotune left in force was kept by a decision; what was not kept was put back, or a person was told."""
        rows = list(self.ledger.records.values())
        told = " ".join(mail.text for mail in self.mails.mails)
        for (service, lever), value in self.story.values.items():
            mine = [w for w in self.story.writes if (w.service, w.lever) == (service, lever)]
            if not mine or mine[-1].by != "slotune" or value == FIRST[lever]:
                continue
            plans = {p.id: p for r in rows if "chosen" in r.body and r.service == service
                     for p in [Plan.model_validate(r.body)] if _sets(p, lever, value)}  # fmt: skip
            kept = [r for r in rows if r.kind == "keep" and r.parent_id in plans]
            back = [p for p in plans.values() if p.rollback_of is not None]
            assert kept or back or service in told, f"{service} {lever} is {value}, and nobody knows why"


def _sets(plan: Plan, lever: str, value: int) -> bool:
    return any(c.lever == lever and c.new.get(lever) == value for c in plan.chosen.changes)


def _anomaly(service: str, at_s: float) -> Anomaly:
    return Anomaly(
        id=make_id(service, at_s), service=service, signal="p95_ms", detectors=("rules",), score=1.0, tier="act",
        at_s=at_s, since_s=at_s - 60, observed=400.0, expected_low=0.0, expected_high=150.0, reason="P95")  # fmt: skip
