"""What the signs of causes look at, and what a sign is: the frame of the one table in `diagnosis`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from detection.model import Incident
from detection.signals import percentile
from tuning.formats import ms
from tuning.model import Observation, SickReplica
from tuning.planning import reading as rd
from tuning.planning import sickness
from tuning.planning import thresholds as th
from tuning.planning.language import LanguageReading, read_calm, read_language
from tuning.planning.reading import Reading
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation, calm_window
from tuning.planning.stages import Dominant, dominant

if TYPE_CHECKING:
    from tuning.planning.releases import Blamed


@dataclass(frozen=True)
class Facts:
    """What the signs look at. moving: the signs of what moves the load, by which refusing is told from failing."""

    incident: Incident
    observation: Observation
    situation: Situation
    settings: PlanningSettings
    moving: tuple[Sign, ...] = ()

    @property
    def now(self) -> Reading:
        return self.situation.now

    @property
    def odd_inputs(self) -> tuple[str, ...]:
        """What is odd about what the service is fed."""
        return self.observation.odd_inputs

    @property
    def slo_ms(self) -> float:
        return self.observation.promise.limit_ms

    @property
    def p95(self) -> str:
        """What people call the P95 that is broken."""
        return percentile(self.observation.promise.signal)

    @cached_property
    def language(self) -> LanguageReading | None:
        """The server of a language model now; None: it is none."""
        return read_language(self.observation, self.settings)

    @cached_property
    def calm(self) -> LanguageReading:
        """The same before the incident."""
        return read_calm(calm_window(self.observation, self.incident.opened_at_s, self.settings))

    @cached_property
    def stale(self) -> str:
        return rd.is_stale(self.observation, self.settings)

    @cached_property
    def stage(self) -> Dominant | None:
        """The stage around the model that takes most of the time and grew."""
        calm = calm_window(self.observation, self.incident.opened_at_s, self.settings)
        return dominant(self.observation.window, rd.recent_s(self.observation, self.settings), calm)

    @cached_property
    def blamed(self) -> Blamed | None:
        """The release that is to blame, with what moved."""
        # Imported on use: planners are read wherever a DAG file is parsed, the statistics are not needed there.
        from tuning.planning.releases import blamed

        return blamed(self.incident, self.observation, self.settings, overloaded=self.overloaded)

    @property
    def answers_hurt(self) -> bool:
        """What the model answers is part of the incident, whatever it is called by: a latency may have come first."""
        acting = (one for one in self.incident.anomalies if one.tier == "act")
        return self.incident.symptom == "quality" or any(one.signal in ("accuracy", "agreement") for one in acting)

    @cached_property
    def fresh(self) -> str:
        """The release that may be to blame and cannot be judged yet."""
        from tuning.planning.releases import fresh

        return fresh(self.incident, self.observation, self.settings)

    @cached_property
    def slow_one(self) -> SickReplica | None:
        """The one replica that is slower than the others."""
        return sickness.slow_one(self.observation, self.situation, self.settings)

    @cached_property
    def wrong_one(self) -> SickReplica | None:
        """The one whose requests fail, or whose answers differ."""
        return sickness.wrong_one(self.observation, self.settings)

    @cached_property
    def leaking_one(self) -> SickReplica | None:
        """The one whose memory reaches its limit first."""
        return sickness.leaking_one(self.incident, self.observation, self.settings)

    @cached_property
    def warming(self) -> str:
        """What is slow because it was just started."""
        return sickness.warming(self.observation, self.situation, self.settings)

    @property
    def failing(self) -> bool:
        rate = self.now.error_rate
        return rate is not None and rate > self.observation.service.slo.error_rate

    @property
    def met(self) -> bool:
        return self.now.p95_ms is not None and self.now.p95_ms <= self.slo_ms

    @property
    def saturated(self) -> bool:
        return busy(self) or queue_stands(self.now, self.settings) or self.waiting

    @property
    def overloaded(self) -> bool:
        """More is asked for than is answered: it never rests, or (where that is not exported) a queue stands."""
        return busy(self) if self.now.busy is not None else self.saturated

    @property
    def waiting(self) -> bool:
        """Requests stand before an engine of a language model."""
        return self.language is not None and (self.language.queue_depth or 0.0) >= th.WAITS

    @property
    def shedding(self) -> bool:
        """Requests are refused because the load has outgrown the service: fewer errors take more capacity."""
        return self.failing and self.saturated and self.moved and self.refusable

    @property
    def refusable(self) -> bool:
        """Some queue may have been full: only then are requests refused for want of room, whatever else has grown.

        A server that rested lately has an empty queue, unless one replica of several is slow, or batch times come and
        go within a rate window: what is busy on average rests at times then.
        """
        lately = rd.recent(self.observation.window, "busy", self.settings.recent_s)
        if not lately.size:
            return self.overloaded
        return float(lately.max()) >= self.settings.busy_full or self.slow_one is not None or self.noisy

    @property
    def moved(self) -> bool:
        """A factor of the load has grown since the calm."""
        return any((s.growth(self) or 0.0) > th.MOVED for s in self.moving)

    @property
    def over(self) -> bool:
        """The SLO is met, and not by refusing or now and then."""
        return self.met and not self.borders and not self.shedding

    @property
    def borders(self) -> bool:
        """P95 goes in and out of the SLO: a latency incident whose recent values reach over it is not over."""
        recent = rd.recent(self.observation.window, self.observation.promise.signal, self.settings.recent_s)
        near = (self.now.p95_ms or 0.0) > self.settings.headroom * self.slo_ms
        latency = self.incident.symptom in ("latency", "saturation")
        return latency and near and bool((recent > self.slo_ms).mean() >= th.BORDERS)

    @property
    def noisy(self) -> bool:
        """The service time comes and goes, more than it did."""
        always = self.situation.spread if self.now.batch_cv2 is not None else 0.0
        before = max(self.situation.base.variation or th.NOISY_BEFORE, th.NOISY_SPREAD * always)
        seen = self.situation.variation
        return seen is not None and seen > max(th.NOISY, th.NOISY_TIMES * before)


@dataclass(frozen=True)
class Sign:
    """One row. cause: a name of `causes`. growth: by how much (natural logarithm) the cause made the load grow; None:
    the sign is absent. evidence: the sentences, asked for only where it is there.
    """

    cause: str
    growth: Callable[[Facts], float | None]
    evidence: Callable[[Facts], tuple[str, ...]]


def when(holds: Callable[[Facts], bool]) -> Callable[[Facts], float | None]:
    return lambda facts: 0.0 if holds(facts) else None


def busy(f: Facts) -> bool:
    return f.now.busy is not None and f.now.busy >= f.settings.busy_full


def queue_text(now: Reading) -> tuple[str, ...]:
    if now.queue_ms is None or now.queue_share is None:
        return ()
    return (f"{now.queue_share:.0%} of the latency is waiting ({ms(now.queue_ms)})",)


def queue_stands(now: Reading, settings: PlanningSettings) -> bool:
    """Requests wait for a server: a large share of the latency, and more than half of one batch's time."""
    if now.queue_ms is not None:
        share = now.queue_share
        long = now.batch_ms is None or now.queue_ms > th.QUEUE_BATCHES * now.batch_ms
        return share is not None and share >= settings.queue_share and long
    return now.busy is not None and now.busy >= settings.busy_full


def batches_full(now: Reading, settings: PlanningSettings) -> bool:
    """Batches use their limit, or (where rows are not exported) the server never rests."""
    if now.fill is not None:
        return now.fill > settings.batch_full
    return now.busy is not None and now.busy >= settings.busy_full
