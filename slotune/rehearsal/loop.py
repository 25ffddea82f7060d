"""The whole loop on a history: the runner of `slotune run`, with only time, metrics, levers and ledger replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from detection.model import BucketWindow, MetricWindow, Service, Span
from detection.sources.recorded import RecordedSource
from slotune.rehearsal.counterfactual import Counterfactual
from slotune.rehearsal.levers import LENT, actuators
from slotune.rehearsal.quiet import QuietTimes
from slotune.rehearsal.virtual_time import VirtualExecutor, VirtualTime
from slotune.runner import Clock, Runner
from tuning import planning, verification
from tuning.channel_settings import NotifySettings
from tuning.ledger.memory import Mark, MemoryLedger
from tuning.loop.parts import Parts
from tuning.model import Record
from tuning.notifiers.settings import MailSettings
from tuning.settings import Settings

Progress = Callable[[float], None]
"""Called with the share of the history that is done, 0..1."""


@dataclass(frozen=True)
class Rehearsed:
    """What the loop did. records: its whole ledger, oldest first. said: its sentences. failures: sweeps that failed.
    again: another loop from a moment at which nothing was under way."""

    records: tuple[Record, ...]
    said: tuple[str, ...]
    failures: int
    again: Again


class _Shown:
    """What a metrics source would have shown, up to the moment that was reached."""

    def __init__(self, worlds: Mapping[str, Counterfactual]) -> None:
        self._recorded = RecordedSource(
            {name: world.window for name, world in worlds.items()},
            {name: world.replicas for name, world in worlds.items()},
            {name: world.buckets for name, world in worlds.items() if world.buckets is not None},
        )

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        return self._recorded.read(services, signals, span)

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        return self._recorded.read_replicas(services, signals, span)

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        return self._recorded.read_buckets(services, span)


LONG_S, LONG_LEARN_S = 2 * 86_400.0, 6 * 3600.0
"""In a history longer than this, what is normal is learned this often instead of hourly: half of the time is saved."""
KNOWN_S, KNOWN_LEARN_S = 7 * 86_400.0, 86_400.0
"""Where so much of it has been seen, another day changes little of what is normal."""


def settings_for(settings: Settings, step_s: float, length_s: float = 0.0) -> Settings:
    """The settings of a rehearsal: nobody is told anything, and nothing is read in finer steps than were recorded.

    length_s: of the history.
    """
    coarse = max(settings.prometheus.step_s, step_s)
    window_s = max(settings.prometheus.rate_window_s, coarse)
    prometheus = settings.prometheus.model_copy(update={"step_s": coarse, "rate_window_s": window_s})
    schedule = settings.schedule
    if length_s > LONG_S:
        schedule = schedule.model_copy(update={"learn_every_s": max(schedule.learn_every_s, LONG_LEARN_S)})
    quiet = {"mail": MailSettings(), "notify": NotifySettings(), "prometheus": prometheus, "schedule": schedule}
    return settings.model_copy(update=quiet).completed()


def acting(service: Service) -> Service:
    """The service with every lever in mode act: a rehearsal asks what would have been done. Without those that it
    cannot lend."""
    lent = {name: lever for name, lever in service.levers.items() if name in LENT}
    levers = {name: lever.model_copy(update={"mode": None}) for name, lever in lent.items()}
    return service.model_copy(update={"mode": "act", "levers": levers})


@dataclass(frozen=True)
class Again:
    """The same loop on another service that the history leaves possible. marks: when nothing was under way, and the
    ledger then."""

    settings: Settings
    ledger: MemoryLedger
    marks: tuple[tuple[float, Mark], ...]

    def last(self, at_s: float) -> float | None:
        """The last moment up to `at_s` from which a loop can go on."""
        return next((when_s for when_s, _ in reversed(self.marks) if when_s <= at_s), None)

    def run(self, world: Counterfactual, start_s: float, end_s: float) -> None:
        """Go on from `start_s` (of `last`) with this service, up to `end_s`. What is normal is not learned again."""
        mark = next(mark for when_s, mark in self.marks if when_s == start_s)
        time = VirtualTime(start_s, end_s, world.advance)
        parts = _parts(self.settings, {world.service.name: world}, self.ledger.at(mark))
        clock = Clock(time.now, time.wait)
        every_s = self.settings.schedule.watch_every_s

        def sweeps() -> None:
            runner = Runner(lambda: parts, "rehearsal", clock, VirtualExecutor(time), lambda _text: None)
            while True:
                runner.turn(beside=False)
                if clock.wait(every_s):
                    return

        time.run(sweeps)


def rehearse(
    settings: Settings, worlds: Mapping[str, Counterfactual], start_s: float, end_s: float, progress: Progress
) -> Rehearsed:
    """Run the loop from `start_s` to `end_s`. settings: of `settings_for`. worlds: by service,
    each at `start_s`."""
    said: list[str] = []

    def moved(at_s: float) -> None:
        for world in worlds.values():
            world.advance(at_s)
        progress(min(1.0, (at_s - start_s) / max(end_s - start_s, 1.0)))

    time = VirtualTime(start_s, end_s, moved)
    ledger = MemoryLedger()
    parts = _parts(settings, worlds, ledger)
    quiet = QuietTimes(parts, worlds, settings.schedule.watch_every_s, end_s)
    seldom = max(settings.schedule.learn_every_s, KNOWN_LEARN_S)
    schedule = settings.schedule.model_copy(update={"learn_every_s": seldom})
    later = replace(parts, settings=settings.model_copy(update={"schedule": schedule}))
    marks: list[tuple[float, Mark]] = []

    def choose(at_s: float) -> tuple[str, ...]:
        if not runner.under_way():
            marks.append((at_s, ledger.mark()))
        return quiet.to_look_at(at_s)

    runner = Runner(
        lambda: later if time.now() - start_s > KNOWN_S else parts,
        "rehearsal",
        Clock(time.now, time.wait),
        VirtualExecutor(time),
        said.append,
        choose=choose,
    )
    time.run(runner.forever)
    again = Again(settings, ledger, tuple(marks))
    return Rehearsed(tuple(ledger.records.values()), tuple(said), runner.failures, again)


def _parts(settings: Settings, worlds: Mapping[str, Counterfactual], ledger: MemoryLedger) -> Parts:
    return Parts(
        settings=settings,
        services={name: acting(world.service) for name, world in worlds.items()},
        source=_Shown(worlds),
        actuator=actuators(worlds),
        planner=planning.get(settings.planning.planner)(settings.planning),
        verifier=verification.get(settings.verification.method)(settings.verification),
        ledger=ledger,
        notifiers=[],
    )
