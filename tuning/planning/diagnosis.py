"""The cause of an incident: one table of signs, which serves every planner.

The load of a server is arrivals * time per batch / (rows per batch * replicas). Its logarithm is a sum, so each
factor's share in the rise is its own difference of logarithms: the largest one is the cause, and the sizes are the
evidence. What excuses a change is looked for first; what the present state alone says comes last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from detection.model import Incident
from tuning.formats import ms
from tuning.model import Diagnosis, Observation
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning.causes import CAUSES
from tuning.planning.reading import Reading
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation


@dataclass(frozen=True)
class Facts:
    """What the signs look at."""

    incident: Incident
    observation: Observation
    situation: Situation
    settings: PlanningSettings

    @property
    def now(self) -> Reading:
        return self.situation.now

    @property
    def slo_ms(self) -> float:
        return self.observation.service.slo.p95_ms

    @cached_property
    def stale(self) -> str:
        return rd.is_stale(self.observation, self.settings)

    @property
    def failing(self) -> bool:
        rate = self.now.error_rate
        return rate is not None and rate > self.observation.service.slo.error_rate

    @property
    def met(self) -> bool:
        return self.now.p95_ms is not None and self.now.p95_ms <= self.slo_ms

    @property
    def saturated(self) -> bool:
        return _busy(self) or queue_stands(self.now, self.settings)

    @property
    def shedding(self) -> bool:
        """Requests are refused because the load has outgrown the service: fewer errors take more capacity."""
        return self.failing and self.saturated and any((sign.growth(self) or 0.0) > th.MOVED for sign in MOVED)

    @property
    def over(self) -> bool:
        """The SLO is met, and not by refusing or now and then."""
        return self.met and not self.borders and not self.shedding

    @property
    def borders(self) -> bool:
        """P95 goes in and out of the SLO: a latency incident whose recent values reach over it is not over."""
        recent = rd.recent(self.observation.window, "p95_ms", self.settings.recent_s)
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


def _if(holds: Callable[[Facts], bool]) -> Callable[[Facts], float | None]:
    return lambda facts: 0.0 if holds(facts) else None


# What excuses a change or names itself --------------------------------------------------------------------------------


def _failing_text(f: Facts) -> tuple[str, ...]:
    calm = f"P95, {ms(f.now.p95_ms)}, is under the SLO" if f.saturated else "no queue stands"
    limit = f.observation.service.slo.error_rate
    return (f"{f.now.error_rate or 0:.1%} of requests fail (limit {limit:.1%}) while {calm}",)


def _met_text(f: Facts) -> tuple[str, ...]:
    return (f"P95 is {ms(f.now.p95_ms)}, the SLO is {ms(f.slo_ms)}",)


def _idle_text(f: Facts) -> tuple[str, ...]:
    busy = f.now.busy
    share = f"the replicas compute {busy:.0%} of the time" if busy is not None else "busy share not exported"
    return (*_met_text(f), share)


def _one_is_slow(f: Facts) -> bool:
    slow = f.situation.replica_slow
    return len(slow) >= 2 and slow[-1] >= th.SLOW_REPLICA and slow[-2] < th.SOUND_REPLICA


def _slow_replica_text(f: Facts) -> tuple[str, ...]:
    slow = f.situation.replica_slow
    return (f"one of {len(slow)} replicas takes {slow[-1]:.1f} times as long per batch",)


def _waits_for_rows(f: Facts) -> bool:
    now = f.now
    if not now.batch_timeout_ms or now.queue_ms is None or now.fill is None:
        return False
    least, most = th.WAIT_SHARE
    waits = least * now.batch_timeout_ms <= now.queue_ms <= most * now.batch_timeout_ms
    share = now.queue_share is not None and now.queue_share >= f.settings.queue_share
    rests = now.busy is None or now.busy < th.WAIT_BUSY
    return waits and share and now.fill < f.settings.batch_full and rests


def _waits_text(f: Facts) -> tuple[str, ...]:
    now = f.now
    return (
        f"requests wait {ms(now.queue_ms)} for a batch that holds {now.rows_per_batch:.1f} of {now.batch_size} "
        f"rows, while the server computes {now.busy or 0:.0%} of the time (timeout {ms(now.batch_timeout_ms)})",
    )


FIRST = (
    Sign("stale_data", _if(lambda f: bool(f.stale)), lambda f: (f.stale,)),
    Sign("errors", _if(lambda f: f.failing and (f.met or not f.saturated) and not f.shedding), _failing_text),
    Sign("idle_capacity", _if(lambda f: f.over and f.incident.symptom == "idle"), _idle_text),
    Sign("healthy", _if(lambda f: f.over), _met_text),
    Sign(
        "unknown",
        _if(lambda f: f.now.queue_ms is None and f.now.batch_ms is None),
        lambda f: ("neither queue nor batch time is exported: the split of the latency is unknown",),
    ),
    Sign("slow_replica", _if(_one_is_slow), _slow_replica_text),
    Sign("batch_wait_too_long", _if(_waits_for_rows), _waits_text),
)
"""The first that is there is the cause."""


# What moved since the baseline ----------------------------------------------------------------------------------------


def _load(f: Facts) -> tuple[float, float] | None:
    """(requests per second now, before)."""
    rate, before = f.situation.arrivals, f.situation.base.qps
    return (rate.qps.value, before) if rate is not None and before else None


def _load_growth(f: Facts) -> float | None:
    load = _load(f)
    return None if load is None else math.log(max(load[0] / load[1], 1e-3))


def _load_text(f: Facts) -> tuple[str, ...]:
    now, before = _load(f) or (math.nan, math.nan)
    return (f"{now:.0f} requests/s instead of {before:.0f} (x{now / before:.1f})",)


def _slow_growth(f: Facts) -> float | None:
    slow = f.situation.slow
    return math.log(slow) if slow is not None and slow > 1 + 2 * f.situation.slow_sd else None


def _slow_text(f: Facts) -> tuple[str, ...]:
    text = f"a batch of the same size takes {f.situation.slow:.1f} times as long"
    if f.situation.slower_per_min:
        text += f", {f.situation.slower_per_min:.0%} more with every minute"
    return (f"{text}, coming and going (variation {f.situation.variation:.0%})" if f.noisy else text,)


def _lost_growth(f: Facts) -> float | None:
    now, before = f.now.replicas, f.situation.base.replicas
    return math.log(before / now) if now and before and before > now else None


MOVED = (
    Sign("load_surge", _load_growth, _load_text),
    Sign("slower_service", lambda f: None if f.noisy else _slow_growth(f), _slow_text),
    Sign("noisy_neighbour", lambda f: _slow_growth(f) if f.noisy else None, _slow_text),
    Sign(
        "lost_capacity",
        _lost_growth,
        lambda f: (f"{f.now.replicas} replicas instead of {f.situation.base.replicas:.0f}",),
    ),
    Sign(
        "batch_too_small",
        lambda f: math.log(f.situation.limit_cost) if f.situation.limit_cost else None,
        lambda f: (f"the batch limit is {f.now.batch_size} instead of {f.situation.base.batch_size:.0f}",),
    ),
)
"""The one with the largest growth is the cause; all that grew by more than `thresholds.MOVED` are evidence."""


# What the present state alone says ------------------------------------------------------------------------------------


def _busy(f: Facts) -> bool:
    return f.now.busy is not None and f.now.busy >= f.settings.busy_full


def _full(f: Facts) -> bool:
    return f.now.fill is not None and f.now.fill > f.settings.batch_full


def _limit_is_low(f: Facts) -> bool:
    lever = f.observation.service.levers.get("batch_size")
    return lever is not None and bool(f.now.batch_size) and (f.now.batch_size or 0) < lever.maximum


def _rests(f: Facts) -> bool:
    return f.now.queue_share is not None and f.now.queue_share < f.settings.queue_share


def _rests_text(f: Facts) -> tuple[str, ...]:
    return (f"no queue stands: {ms(f.now.batch_ms or 0)} per batch is the latency itself",)


STATE = (
    Sign(
        "batch_too_small",
        _if(lambda f: f.saturated and _full(f) and _limit_is_low(f)),
        lambda f: (
            f"batches are full ({f.now.rows_per_batch:.1f} of {f.now.batch_size} rows)",
            *queue_text(f.now),
        ),
    ),
    Sign(
        "load_surge",
        _if(lambda f: f.saturated),
        lambda f: ("requests come faster than they are answered", *queue_text(f.now)),
    ),
    Sign(
        "slower_service",
        _if(_rests),
        _rests_text,
    ),
    Sign("unknown", _if(lambda f: True), lambda f: ("nothing that is exported has moved since the baseline",)),
)
"""Nothing moved, or nothing to compare with: the first that is there is the cause."""


def diagnose(
    incident: Incident, observation: Observation, situation: Situation, settings: PlanningSettings
) -> Diagnosis:
    """One cause with its evidence; `curable` False where no lever can help. Never guesses: "unknown" is an answer."""
    facts = Facts(incident, observation, situation, settings)
    sign = next((sign for sign in FIRST if sign.growth(facts) is not None), None)
    if sign is not None:
        return _diagnosis(sign.cause, sign.evidence(facts), facts)
    grown = [(growth, sign) for sign in MOVED if (growth := sign.growth(facts)) is not None and growth > th.MOVED]
    if grown:
        grown.sort(key=lambda pair: -pair[0])
        told = tuple(text for _, sign in grown for text in sign.evidence(facts))
        cause, evidence = grown[0][1].cause, (*told, *queue_text(facts.now))
    else:
        sign = next(sign for sign in STATE if sign.growth(facts) is not None)
        cause, evidence = sign.cause, sign.evidence(facts)
    if facts.failing:
        failing = f"{facts.now.error_rate or 0:.1%} of requests fail as well, while the service is saturated"
        refused = f" and P95 is {ms(facts.now.p95_ms)}: what cures must bring P95 well below that" if facts.met else ""
        evidence = (*evidence, failing + refused)
    return _diagnosis(cause, evidence, facts)


def _diagnosis(cause: str, evidence: tuple[str, ...], facts: Facts) -> Diagnosis:
    split = {} if cause == "stale_data" else split_of(facts.now)
    return Diagnosis(cause=cause, evidence=evidence, curable=CAUSES[cause].curable, **split)


def split_of(now: Reading) -> dict[str, float | None]:
    """queue, batch wait and service in ms. The batch wait is what a server that rests makes requests wait for rows."""
    if now.queue_ms is None:
        return {"service_ms": now.batch_ms}
    wait = 0.0
    if now.batch_timeout_ms and now.fill is not None and now.fill < th.WAIT_FILL:
        wait = min(now.queue_ms, now.batch_timeout_ms) * (1 - min(1.0, now.busy or 0.0))
    total = rd.first(now.latency_ms, now.queue_ms + (now.batch_ms or 0.0))
    return {
        "queue_ms": max(0.0, now.queue_ms - wait),
        "batch_wait_ms": wait,
        "service_ms": now.batch_ms,
        "queue_share": min(1.0, now.queue_ms / total) if total else None,
    }


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
