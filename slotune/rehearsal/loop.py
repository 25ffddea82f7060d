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
from tuning.ledger.memory import MemoryLedger
from tuning.loop.parts import Parts
from tuning.model import Record
from tuning.notifiers.settings import MailSettings
from tuning.settings import Settings

Progress = Callable[[float], None]
"""Called with the share of the history that is done, 0..1."""


@dataclass(frozen=True)
class Rehearsed:
    """What the loop did. records: its whole ledger, oldest first. said: its sentences. failures: sweeps that failed."""

    records: tuple[Record, ...]
    said: tuple[str, ...]
    failures: int


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


def rehearse(
    settings: Settings, worlds: Mapping[str, Counterfactual], start_s: float, end_s: float, progress: Progress
) -> Rehearsed:
    """Run the loop from `start_s` to `end_s`. settings: of `settings_for`. worlds: by service,
    each at `start_s`."""
    services = {name: acting(world.service) for name, world in worlds.items()}
    said: list[str] = []

    def moved(at_s: float) -> None:
        for world in worlds.values():
            world.advance(at_s)
        progress(min(1.0, (at_s - start_s) / max(end_s - start_s, 1.0)))

    time = VirtualTime(start_s, end_s, moved)
    ledger = MemoryLedger()
    parts = Parts(
        settings=settings,
        services=services,
        source=_Shown(worlds),
        actuator=actuators(worlds),
        planner=planning.get(settings.planning.planner)(settings.planning),
        verifier=verification.get(settings.verification.method)(settings.verification),
        ledger=ledger,
        notifiers=[],
    )
    quiet = QuietTimes(parts, worlds, settings.schedule.watch_every_s, end_s)
    seldom = max(settings.schedule.learn_every_s, KNOWN_LEARN_S)
    schedule = settings.schedule.model_copy(update={"learn_every_s": seldom})
    later = replace(parts, settings=settings.model_copy(update={"schedule": schedule}))
    runner = Runner(
        lambda: later if time.now() - start_s > KNOWN_S else parts,
        "rehearsal",
        Clock(time.now, time.wait),
        VirtualExecutor(time),
        said.append,
        choose=quiet.to_look_at,
    )
    time.run(runner.forever)
    return Rehearsed(tuple(ledger.records.values()), tuple(said), runner.failures)
