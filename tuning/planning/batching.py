"""A batching server as the dynamic-batching engine sees it: the line s(b) = alpha + beta b now, and its knobs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from detection.model import Incident
from tuning.model import Observation
from tuning.planning import latency_model as lm
from tuning.planning import speed
from tuning.planning import thresholds as th
from tuning.planning import variants as va
from tuning.planning.arrivals import arrivals, backlog, burstiness
from tuning.planning.latency_model import LatencyModel
from tuning.planning.phases import Phases
from tuning.planning.reading import Reading, first, number, read_now, settled
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Baseline, Situation, baseline, calm_window, narrowed
from tuning.planning.speed import Slowing


@dataclass(frozen=True, kw_only=True)
class BatchingSituation(Situation):
    """model: the line as it runs NOW (slowdown included). learned: the models to be kept, by key; model_key: the one
    that is served. slowing: a slowness that grows (None: it stands). slow_point: rows per batch and batch time (ms) of
    the slow replicas (None: none is slow, or only their latency is known). phase_s: how long slow and fast phases last
    each, where batch times come and go; phases: equally likely explanations of that, where the line of before is known,
    over the line as it runs now, which is then that of a server that never rests. overhead_ms: latency outside queue
    and batch. rows_per_request: rows of one request.
    """

    model: LatencyModel
    learned: Mapping[str, LatencyModel]
    model_key: str
    slowing: Slowing | None = None
    slow_point: tuple[float, float] | None = None
    phase_s: float = 10.0
    phases: tuple[Phases, ...] = ()
    overhead_ms: float = 0.0
    rows_per_request: float = 1.0
    version: str = ""
    precision: str = ""


def assess(
    incident: Incident | None, observation: Observation, settings: PlanningSettings, changed_s: float = -math.inf
) -> BatchingSituation:
    """Derive the situation: the line from what came before the incident, its slowness from what came after.

    changed_s: when a lever of this service was last moved; what is older says nothing about the present setting.
    """
    window = observation.window
    onset = incident.opened_at_s if incident is not None else observation.at_s + 1.0
    fresh = max(onset, changed_s)
    now = read_now(narrowed(observation, fresh, settings), settings)
    version, precision = _served(observation)
    name = lm.key(version, precision)
    learned = lm.load(observation.latency_model)
    until = onset - settings.rate_window_s
    calm = speed.points(observation.history, until, settings.rate_window_s)
    calm += speed.points(window, until, settings.rate_window_s)
    known = learned.get(name, LatencyModel())
    kept, slowing = _line_before(known, sorted(calm), observation, settings)
    since = settled(window, fresh, settings)
    pace = speed.replica_pace(observation, fresh, settings, kept)
    stride_s = settings.rate_window_s / 3
    sound = speed.sound_points(observation, pace, stride_s, since)
    after = sound or speed.points(window, math.inf, stride_s, since_s=since)
    slow, slow_sd, model = speed.slowdown(kept, after, observation, now)
    if slowing is not None and slow is not None and not sound:
        slow, model = slowing.now, kept.scaled(slowing.now)
    # Where this precision was never served before and INT8 was, what was calm was INT8: only what is now is this line.
    fell_back = not known.known and precision != "int8" and lm.key(version, "int8") in learned
    if kept.known and not fell_back:
        learned = {**learned, name: kept}
    elif model.known:
        learned = {**learned, name: model}
    spread = first(speed.spread_of_stats(observation.batch_stats), speed.calm_spread(observation, onset, settings))
    if spread is not None:
        model = replace(model, spread=spread)
        learned = {**learned, name: replace(learned.get(name, model), spread=spread)}
    quiet = calm_window(observation, onset, settings)
    base = baseline(quiet, speed.variation(quiet, -math.inf, kept) if quiet is not None else None)
    rate = arrivals(observation, fresh, now, settings)
    # What one slow replica and its sound peers make between them does not come and go.
    top = None if sound else speed.on_top(now, spread, None if slowing else speed.variation(window, since, kept))
    phases: tuple[Phases, ...] = ()
    if kept.known and slow is not None and top is not None and top >= max(th.COMES_AND_GOES, model.spread):
        phases = speed.phases(observation, onset, kept, now, model.spread, settings)
    if phases:
        # What a server that never rests takes is known as surely as the phases are.
        lasts = np.array([found.sustained for found in phases])
        pace_now = float(np.median(lasts))
        model = replace(kept.scaled(pace_now), spread=model.spread)
        slow_sd = math.hypot(slow_sd, float(np.log(lasts).std()))
        phases = tuple(replace(found, fast=found.fast / pace_now) for found in phases)
    return BatchingSituation(
        now=now,
        base=base,
        model=model,
        learned=learned,
        model_key=name,
        arrivals=rate,
        cv2=burstiness(observation, now),
        slow=slow,
        slow_sd=slow_sd,
        slower_per_min=60 * slowing.growth_per_s if slowing is not None and not sound else 0.0,
        variation=top,
        spread=model.spread,
        replica_slow=tuple(sorted(pace.values())),
        slowest=max(sorted(pace), key=lambda label: pace[label], default=""),
        slow_point=speed.slow_replicas(observation, pace, fresh, settings),
        limit_cost=_limit_cost(model, now, base),
        backlog=backlog(now, observation.window, settings),
        identified=model.known and rate is not None and rate.qps.value > 0,
        slowing=None if sound else slowing,
        phases=phases,
        phase_s=speed.phase_s(window, since, kept, top, settings.rate_window_s),
        overhead_ms=speed.overhead_ms(now, observation, onset, settings),
        rows_per_request=speed.rows_per_request(now),
        version=version,
        precision=precision,
    )


def _line_before(
    known: LatencyModel, calm: list[speed.Point], observation: Observation, settings: PlanningSettings
) -> tuple[LatencyModel, Slowing | None]:
    """The line of before, and the slowness that grows: what came after that began is not calm, whatever the onset.

    It is looked for with the line of the first half, because a line that learned from the slow points fits them.
    """
    kept = lm.learn(known, calm)
    half = calm[: len(calm) // 2]
    early = lm.learn(known, half) if known.known or len(half) >= th.EARLY_POINTS else kept
    slowing = speed.slowing(observation.window, early, settings.rate_window_s)
    if slowing is None:
        return kept, None
    earlier = lm.learn(known, [point for point in calm if point[0] < slowing.since_s])
    if not earlier.known:
        return kept, speed.slowing(observation.window, kept, settings.rate_window_s)
    again = speed.slowing(observation.window, earlier, settings.rate_window_s)
    return (earlier, again) if again is not None else (kept, None)


def _limit_cost(model: LatencyModel, now: Reading, base: Baseline) -> float | None:
    """What a row of a full batch costs at the present limit over what it cost at the baseline's higher one."""
    if not (now.batch_size and base.batch_size and base.batch_size > now.batch_size and model.known):
        return None
    curve = model.curve()
    return (max(curve.at(now.batch_size), 1e-9) / now.batch_size) / (
        max(curve.at(base.batch_size), 1e-9) / base.batch_size
    )


def _served(observation: Observation) -> tuple[str, str]:
    setting = observation.settings.get("precision")
    if setting is None:
        return va.served_version(observation, ""), ""
    version = va.served_version(observation, str(setting.values.get("version", "")))
    return version, str(setting.values.get("precision", ""))


def current(situation: Situation, observation: Observation) -> tuple[int, float, int]:
    """(batch limit, batch timeout in ms, replicas) as they are; 1, 0 and 1 where nothing tells."""
    now = situation.now
    replicas = now.replicas or round(number(observation.settings.get("replicas"), "min_replicas") or 1)
    return max(1, now.batch_size or 1), max(0.0, now.batch_timeout_ms or 0.0), max(1, replicas)
