"""The cause of an incident: one table of signs, which serves every planner.

The load of a server is arrivals * time per batch / (rows per batch * replicas). Its logarithm is a sum, so each
factor's share in the rise is its own difference of logarithms: the largest one is the cause, and the sizes are the
evidence. What excuses a change is looked for first; what the present state alone says comes last.
"""

from __future__ import annotations

import math
from typing import Any

from detection import own_signals
from detection.model import Incident
from detection.signals import title
from tuning.formats import ms
from tuning.model import Diagnosis, Observation, SickReplica
from tuning.planning import chain
from tuning.planning import language_signs as lang
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning.advice import advise
from tuning.planning.causes import CAUSES
from tuning.planning.facts import Facts, Sign, queue_text, when
from tuning.planning.reading import Reading
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation
from tuning.planning.stages import stages_of

# What excuses a change or names itself --------------------------------------------------------------------------------


def _failing_text(f: Facts) -> tuple[str, ...]:
    calm = f"{f.p95}, {ms(f.now.p95_ms)}, is under the SLO" if f.saturated else "no queue stands"
    limit = f.observation.service.slo.error_rate
    return (f"{f.now.error_rate or 0:.1%} of requests fail (limit {limit:.1%}) while {calm}",)


def _met_text(f: Facts) -> tuple[str, ...]:
    return (f"{f.p95} is {ms(f.now.p95_ms)}, the SLO is {ms(f.slo_ms)}",)


def _idle_text(f: Facts) -> tuple[str, ...]:
    share = f.now.busy
    text = f"the replicas compute {share:.0%} of the time" if share is not None else "busy share not exported"
    return (*_met_text(f), text)


def _sentence(sick: SickReplica | None) -> tuple[str, ...]:
    return (sick.sentence,) if sick is not None else ()


def _leaks(f: Facts) -> bool:
    """Nothing else hurts, or the leak is what the incident was opened for."""
    return (f.over or f.incident.symptom == "leaking_replica") and f.leaking_one is not None


def _warms_up(f: Facts) -> bool:
    """More load than before is no matter of the first minutes, whatever was just started because of it."""
    return bool(f.warming) and (_load_growth(f) or 0.0) <= th.MOVED


def _waits_for_rows(f: Facts) -> bool:
    now = f.now
    if not now.batch_timeout_ms or now.queue_ms is None or now.fill is None:
        return False
    least, most = th.WAIT_SHARE
    waits = least * now.batch_timeout_ms <= now.queue_ms <= most * now.batch_timeout_ms
    share = now.queue_share is not None and now.queue_share >= f.settings.queue_share
    rests = now.busy is None or now.busy < th.WAIT_BUSY
    if not (waits and share and rests):
        return False
    before = f.situation.base.batch_timeout_ms
    if before is None:
        return now.fill < f.settings.batch_full
    if now.batch_timeout_ms > before * math.exp(th.MOVED):
        # What waits long enough fills its batches, at whatever load.
        return now.busy is not None or now.fill < f.settings.batch_full
    # The wait is as it was in the calm: it is the cause where nothing else has moved.
    return now.fill < f.settings.batch_full and not f.moved


def _waits_text(f: Facts) -> tuple[str, ...]:
    now = f.now
    return (
        f"requests wait {ms(now.queue_ms)} for a batch that holds {now.rows_per_batch:.1f} of {now.batch_size} "
        f"rows, while the server computes {now.busy or 0:.0%} of the time (timeout {ms(now.batch_timeout_ms)})",
    )


def _bad_release(f: Facts) -> bool:
    """Something hurts, and a release moved it. What became slower within the SLO is told by the release's guard."""
    return _hurts(f) and f.blamed is not None


def _hurts(f: Facts) -> bool:
    return (not f.over or f.failing or f.answers_hurt) and f.incident.symptom != "idle"


def _bad_release_text(f: Facts) -> tuple[str, ...]:
    found = f.blamed
    if found is None:
        return ()
    return (*(moved.sentence for moved in found.moved), found.came)


def _inputs_text(f: Facts) -> tuple[str, ...]:
    return f.odd_inputs


def _stage_text(f: Facts) -> tuple[str, ...]:
    return (f.stage.sentence,) if f.stage is not None else ()


FIRST = (
    Sign("stale_data", when(lambda f: bool(f.stale)), lambda f: (f.stale,)),
    Sign("bad_release", when(_bad_release), _bad_release_text),
    Sign("fresh_release", when(lambda f: _hurts(f) and bool(f.fresh)), lambda f: (f.fresh,)),
    Sign("wrong_replica", when(lambda f: f.wrong_one is not None), lambda f: _sentence(f.wrong_one)),
    Sign("data_drift", when(lambda f: bool(f.odd_inputs) and f.incident.symptom in ("quality", "data")), _inputs_text),
    Sign("errors", when(lambda f: f.failing and (f.met or not f.saturated) and not f.shedding), _failing_text),
    lang.STALLED,
    Sign("leaking_replica", when(_leaks), lambda f: _sentence(f.leaking_one)),
    Sign("idle_capacity", when(lambda f: f.over and f.incident.symptom == "idle"), _idle_text),
    Sign("healthy", when(lambda f: f.over), _met_text),
    Sign("warming_up", when(_warms_up), lambda f: (f.warming,)),
    Sign("slow_replica", when(lambda f: f.slow_one is not None), lambda f: _sentence(f.slow_one)),
    Sign(
        "unknown",
        when(lambda f: f.now.queue_ms is None and f.now.batch_ms is None and f.language is None),
        lambda f: ("neither queue nor batch time is exported: the split of the latency is unknown",),
    ),
    Sign("batch_wait_too_long", when(_waits_for_rows), _waits_text),
    Sign("slow_stage", when(lambda f: f.stage is not None and not f.saturated), _stage_text),
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
    return math.log(slow) if slow is not None and slow > 1 + 2 * f.situation.slow_sd and f.language is None else None


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
    *lang.FACTORS,
)
"""The one with the largest growth is the cause; all that grew by more than `thresholds.MOVED` are evidence."""


# What the present state alone says ------------------------------------------------------------------------------------


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
    *lang.NARROW,
    Sign(
        "batch_too_small",
        when(lambda f: f.saturated and _full(f) and _limit_is_low(f)),
        lambda f: (
            f"batches are full ({f.now.rows_per_batch:.1f} of {f.now.batch_size} rows)",
            *queue_text(f.now),
        ),
    ),
    Sign(
        "load_surge",
        when(lambda f: f.saturated),
        lambda f: ("requests come faster than they are answered", *queue_text(f.now)),
    ),
    Sign(
        "slower_service",
        when(_rests),
        _rests_text,
    ),
    Sign("unknown", when(lambda f: True), lambda f: ("nothing that is exported has moved since the baseline",)),
)
"""Nothing moved, or nothing to compare with: the first that is there is the cause."""


def diagnose(
    incident: Incident, observation: Observation, situation: Situation, settings: PlanningSettings
) -> Diagnosis:
    """One cause with its evidence; `curable` False where no lever can help. Never guesses: "unknown" is an answer."""
    facts = Facts(incident, observation, situation, settings, MOVED)
    sign = next((sign for sign in FIRST if sign.growth(facts) is not None), None)
    if sign is not None:
        return _diagnosis(sign.cause, sign.evidence(facts), facts)
    grown = [(growth, sign) for sign in MOVED if (growth := sign.growth(facts)) is not None and growth > th.MOVED]
    if grown:
        grown.sort(key=lambda pair: -pair[0])
        told = tuple(text for _, sign in grown for text in sign.evidence(facts))
        cause, evidence = grown[0][1].cause, (*told, *lang.narrow(facts), *queue_text(facts.now))
    else:
        sign = next(sign for sign in STATE if sign.growth(facts) is not None)
        cause, evidence = sign.cause, sign.evidence(facts)
    if facts.failing:
        failing = f"{facts.now.error_rate or 0:.1%} of requests fail as well, while the service is saturated"
        below = f" and {facts.p95} is {ms(facts.now.p95_ms)}: what cures must bring {facts.p95} well below that"
        refused = below if facts.met else ""
        evidence = (*evidence, failing + refused)
    return _diagnosis(cause, evidence, facts)


def _diagnosis(cause: str, evidence: tuple[str, ...], facts: Facts) -> Diagnosis:
    if facts.stage is not None and (told := facts.stage.sentence) not in evidence:
        evidence = (*evidence, told)
    evidence = (*evidence, *(f"beside it, {text}" for text in facts.odd_inputs if text not in evidence))
    split = {} if cause == "stale_data" else lang.split_of(facts) or split_of(facts.now)
    found = facts.blamed if cause == "bad_release" else None
    return Diagnosis(
        cause=cause,
        evidence=evidence,
        curable=CAUSES[cause].curable,
        release=found.release if found is not None else None,
        slower=found.slower if found is not None else None,
        stages=stages_of(facts.observation.window, rd.recent_s(facts.observation, facts.settings)),
        chain=_chain(facts),
        sick=_sick(cause, facts),
        advice=advise(cause, facts),
        **split,
    )


def _sick(cause: str, facts: Facts) -> SickReplica | None:
    """The replica that a cause names."""
    if cause == "slow_replica":
        return facts.slow_one
    if cause == "wrong_replica":
        return facts.wrong_one
    return facts.leaking_one if cause == "leaking_replica" else None


def _chain(f: Facts) -> str:
    service = f.observation.service
    if len(service.chain) < 2:
        return ""
    titles = {name: title(name) for name in service.chain}
    titles |= {name: signal.title for name, signal in own_signals.table(service).items()}
    return chain.told(chain.links(f.observation.window, service.chain, f.incident.opened_at_s), titles)


def split_of(now: Reading) -> dict[str, Any]:
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
