"""The loop by itself, without a scheduler: sweeps on a beat, every attempt in a thread of its own, learning beside.

The steps are those of Airflow's tasks, on the same ledger and settings; services.yaml is read again for every sweep.
Beside an Airflow that runs, or a second loop, nothing happens twice: a sweep is left out while somebody else's is
fresh, an attempt is begun by whoever writes its first line, and a change belongs to whoever claims it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from detection.errors import Overtaken, SlotuneError
from detection.model import make_id
from tuning import attempt as attempts
from tuning.attempt import value
from tuning.cron import matches
from tuning.loop import alive, once, records
from tuning.loop.approve import ask
from tuning.loop.learn import learn_baselines
from tuning.loop.learn_latency import learn_latency
from tuning.loop.open_incidents import open_incidents_of
from tuning.loop.parts import Parts
from tuning.loop.review import review_week
from tuning.loop.watch import TuneRequest
from tuning.loop.window_store import DIGEST
from tuning.model import Plan, Record
from tuning.orders import answer_to
from tuning.query import Query

_log = logging.getLogger(__name__)
_ASK_EVERY_S = 2.0
_BEGINNINGS = 3
_DAY_S = 86_400.0
_FRESH_SHARE = 0.5
"""A sweep by somebody else that is younger than this share of the interval takes the place of ours."""


class Stopped(BaseException):
    """The loop was told to stop while an attempt waited: the change stays claimed, and the next sweep proves it.

    No Exception: nothing between the wait and the thread's end may take it for a fault and go on.
    """


@dataclass(frozen=True)
class Clock:
    """now: epoch seconds. wait: returns after that many seconds, True when the loop was told to stop meanwhile."""

    now: Callable[[], float]
    wait: Callable[[float], bool]


@dataclass
class Runner:
    """build: the loop's parts, as the settings are now. name: of this loop, its own among all that share the ledger.

    say: takes a sentence for the person who watches. executor: where attempts run. only: the services of a sweep.
    choose: the services of the sweep at a moment, for who knows beforehand that it finds nothing about the others; a
    sweep that would look at none is left out.
    """

    build: Callable[[], Parts]
    name: str
    clock: Clock
    executor: Executor
    say: Callable[[str], None]
    every_s: float | None = None
    only: Sequence[str] = ()
    choose: Callable[[float], Sequence[str]] | None = None
    _at_work: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _swept_s: float = float("-inf")
    _learned_s: float = float("-inf")
    _minute: int | None = None
    failures: int = 0
    """Sweeps that did not come to their end."""

    def forever(self) -> None:
        """Sweep again and again until the clock says stop."""
        while True:
            began_s = self.clock.now()
            every_s = self.turn()
            if self.clock.wait(max(0.0, began_s + every_s - self.clock.now())):
                return

    def turn(self, *, beside: bool = True) -> float:
        """One sweep, and what is due beside it; seconds to the next. A turn that fails is told, and the next comes.

        beside: False where somebody else has learning and the review on a schedule.
        """
        try:
            parts = self.build()
        except SlotuneError as error:
            self._failed(error)
            return self.every_s or 60.0
        every_s = self.every_s or parts.settings.schedule.watch_every_s
        try:
            self._sweep(parts, every_s)
            if beside:
                self._beside(parts)
        except Overtaken as error:
            self.say(f"This sweep was overtaken: {error}.")
        except SlotuneError as error:
            self._failed(error)
        except Exception as error:  # the next sweep tries again, as the next run of a DAG would
            _log.exception("sweep: %r", error)
            self._failed(error)
        return every_s

    def under_way(self) -> tuple[str, ...]:
        """What attempts are at, a sentence each."""
        with self._lock:
            return tuple(self._at_work.values())

    def beat(self) -> None:
        """Say that this loop is at work; called every alive.BEAT_S seconds while an attempt is under way."""
        with self._lock:
            runs = tuple(self._at_work)
        try:
            alive.beat(self.build().ledger, self.name, runs, self.clock.now())
        except SlotuneError as error:
            _log.warning("the beat of %s was lost: %s", self.name, error)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.say(f"This sweep failed: {error}")

    def _sweep(self, parts: Parts, every_s: float) -> None:
        at_s = self.clock.now()
        only = self.only if self.choose is None else self.choose(at_s)
        if self.choose is not None and not only:
            return
        if (other_s := self._swept_elsewhere(parts, at_s, every_s)) is not None:
            self.say(f"Somebody else swept {other_s:.0f} s ago: this sweep is left out.")
            return
        self._swept_s = at_s
        requests = once.sweep(parts, at_s, alive=lambda run: self._alive(parts, run, at_s), only=only)
        wanted = {request.run_id: request for request in (*requests, *self._broken_off(parts, at_s))}
        begun = [request for request in wanted.values() if self._begin(parts, request, at_s)]
        with self._lock:
            busy = len(self._at_work)
        watched = len(only) or len(parts.services)
        services = "1 service" if watched == 1 else f"{watched} services"
        self.say(f"Swept {services}: " + (f"{_count(busy, 'attempt')} under way." if busy else "nothing to do."))
        for request in begun:
            self.say(f"{request.incident.service}: {request.incident.reason} Attempt {request.attempt} begins.")

    def _broken_off(self, parts: Parts, at_s: float) -> list[TuneRequest]:
        """Attempts of loops that died with a plan and before its change: begun again, they find their own records.

        Where the change was claimed, the sweep has settled it like any other whose run is gone.
        """
        known = {incident.id: incident for incident in open_incidents_of(parts.ledger, at_s)}
        found = []
        for line in _newest_begun(parts.ledger.find(Query(kinds=(records.BEGUN,), since_s=at_s - _DAY_S))):
            incident, number = known.get(line.incident_id or ""), line.body.get("attempt")
            if incident is None or not isinstance(number, int) or self._alive(parts, records.run_of(line), at_s):
                continue
            rows = parts.ledger.find(Query(ids=(make_id(incident.id, "plan", number),)))
            plan = value(rows[0], Plan) if rows else None
            attempt = attempts.of(parts.ledger, plan) if plan is not None else None
            if attempt is not None and attempt.report is None and attempt.claimed_s is None:
                found.append(TuneRequest(incident, number))
        return found

    def _swept_elsewhere(self, parts: Parts, at_s: float, every_s: float) -> float | None:
        """The age of a fresh sweep that is not ours; None where there is none."""
        data = parts.ledger.get_blob(DIGEST)
        try:
            last_s = float(json.loads(data)["at_s"]) if data else float("-inf")
        except (ValueError, TypeError, KeyError):
            return None
        age_s = at_s - last_s
        return age_s if last_s > self._swept_s and 0.0 <= age_s < _FRESH_SHARE * every_s else None

    def _alive(self, parts: Parts, run: str, at_s: float) -> bool:
        """Another scheduler's run cannot be asked: it is believed, until it is far longer silent than it takes."""
        with self._lock:
            if run in self._at_work:
                return True
        return alive.is_beating(parts.ledger, run, at_s) if alive.is_ours(run) else True

    def _begin(self, parts: Parts, request: TuneRequest, at_s: float) -> bool:
        """Whether this loop is the one that runs the attempt: the first line about it in the ledger is the claim."""
        run = alive.run_of(self.name, request.run_id)
        if not self._first_to_begin(parts, request, run, at_s):
            return False
        with self._lock:
            self._at_work[run] = f"{request.incident.service} (attempt {request.attempt})"
        self.beat()
        self.executor.submit(self._tune, request, run).add_done_callback(lambda done: self._ended(run, request, done))
        return True

    def _first_to_begin(self, parts: Parts, request: TuneRequest, run: str, at_s: float) -> bool:
        """An attempt whose run died before it had a plan is begun again, a few times."""
        for number in range(_BEGINNINGS):
            line = records.begun_record(request.run_id, number, request.incident, request.attempt, run, at_s)
            if parts.ledger.put(line):
                return True
            earlier = parts.ledger.get(line.id)
            if earlier is None or self._alive(parts, records.run_of(earlier), at_s):
                return False
        self.say(f"{request.incident.service}: {_BEGINNINGS} runs have died of this attempt; look at the log.")
        return False

    def _tune(self, request: TuneRequest, run: str) -> str:
        parts = self.build()
        service = request.incident.service
        ask = lambda plan: self._ask(parts, plan)  # noqa: E731 - it closes over the parts
        report = once.tune(parts, request, self.clock.now, self._wait_until, run=run, ask=ask)
        plan = report.plan
        if report.outcome is not None and report.decision is not None:
            word = "kept" if report.decision.step == "keep" else "rolled back"
            return f"{service}: {plan.chosen.text()}: {report.outcome.verdict}, {word}."
        why = report.refusal.reason if report.refusal is not None else plan.reason or plan.chosen.reason
        return f"{service}: nothing is changed. {why}"

    def _ended(self, run: str, request: TuneRequest, done: Future[str]) -> None:
        with self._lock:
            self._at_work.pop(run, None)
        error = done.exception()
        if error is None:
            self.say(done.result())
        elif not isinstance(error, Stopped):
            _log.error("attempt at %s", request.incident.service, exc_info=error)
            self.say(f"{request.incident.service}: this attempt broke off: {error}. The next sweep settles it.")

    def _wait_until(self, until_s: float) -> None:
        if self.clock.wait(max(0.0, until_s - self.clock.now())):
            raise Stopped

    def _ask(self, parts: Parts, plan: Plan) -> Mapping[str, Any]:
        """Waits for a yes or no in the ledger; no answer in time is a no. As Airflow's own question answers."""
        until_s = self.clock.now() + parts.settings.safety.approval_timeout_s
        self.say(f"{plan.service}: {plan.chosen.text()} waits for a yes: slotune approve {plan.id}")
        ask(parts, plan, self.clock.now(), how=f"slotune approve {plan.id}")
        while True:
            given = answer_to(records.orders(parts.ledger, plan.service), plan.id)
            if given is not None:
                chosen = "Approve" if given.what == "approve" else "Reject"
                user = {"id": given.who, "name": given.who}
                return {"chosen_options": [chosen], "params_input": {"comment": given.why}, "responded_by_user": user}
            if self.clock.now() >= until_s:
                return {"chosen_options": [], "timedout": True}
            self._wait_until(min(until_s, self.clock.now() + _ASK_EVERY_S))

    def _beside(self, parts: Parts) -> None:
        """Learning and the review, when they are due. Both are idempotent: a second loop that does them too harms none.

        What is learned first is learned after the first sweep: looking comes before knowing better.
        """
        at_s = self.clock.now()
        if at_s - self._learned_s >= parts.settings.schedule.learn_every_s:
            self._learned_s = at_s
            self.executor.submit(self._learn).add_done_callback(self._learned)
        minute = int(at_s // 60)
        first = minute if self._minute is None else self._minute + 1
        # At most a day is made up for: after a long stop nobody waits for last month's review.
        due = range(max(first, minute - 1440), minute + 1)
        self._minute = minute
        if any(matches(parts.settings.schedule.review, datetime.fromtimestamp(60.0 * m, UTC)) for m in due):
            self.say(f"The week's review: {review_week(parts, at_s)}.")

    def _learn(self) -> str:
        parts, at_s = self.build(), self.clock.now()
        learned, models = learn_baselines(parts, at_s), learn_latency(parts, at_s)
        return f"Learned what is normal for {_count(learned.services, 'service')}, {_count(models, 'latency model')}."

    def _learned(self, done: Future[str]) -> None:
        error = done.exception()
        self.say(done.result() if error is None else f"Nothing could be learned: {error}")


def _newest_begun(lines: Sequence[Record]) -> list[Record]:
    """The line of the newest attempt at each incident: a later one begins only when the one before has ended."""
    newest: dict[str | None, Record] = {}
    for line in sorted(lines, key=lambda line: (_number(line), line.at_s)):
        newest[line.incident_id] = line
    return list(newest.values())


def _number(line: Record) -> int:
    number = line.body.get("attempt")
    return number if isinstance(number, int) else -1


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

