"""A batching server as the dynamic-batching engine sees it: the line s(b) = alpha + beta b now, and its knobs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from detection.model import Incident
from tuning.model import Observation
from tuning.planning import latency_model as lm
from tuning.planning import speed
from tuning.planning.arrivals import arrivals, backlog, burstiness
from tuning.planning.latency_model import LatencyModel
from tuning.planning.reading import Reading, first, number, read_now, settled
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Baseline, Situation, baseline, calm_window, narrowed


@dataclass(frozen=True, kw_only=True)
class BatchingSituation(Situation):
    """model: the line as it runs NOW (slowdown included). learned: the models to be kept, by key; model_key: the one
    that is served. overhead_ms: latency outside queue and batch. rows_per_request: rows that one request brings.
    """

    model: LatencyModel
    learned: Mapping[str, LatencyModel]
    model_key: str
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
    kept = lm.learn(learned.get(name, LatencyModel()), sorted(calm))
    since = settled(window, fresh, settings)
    after = speed.points(window, math.inf, settings.rate_window_s / 3, since_s=since)
    slow, slow_sd, model = speed.slowdown(kept, after, observation, now)
    if kept.known:
        learned = {**learned, name: kept}
    elif model.known:
        learned = {**learned, name: model}
    spread = first(speed.spread_of_stats(observation.batch_stats), speed.calm_spread(observation, onset, settings))
    if spread is not None:
        model = replace(model, spread=spread)
        learned = {**learned, name: replace(learned.get(name, model), spread=spread)}
    before = calm_window(observation, onset, settings)
    base = baseline(before, speed.variation(before, -math.inf, kept) if before is not None else None)
    rate = arrivals(observation, fresh, now, settings)
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
        variation=speed.on_top(now, spread, speed.variation(window, since, kept)),
        spread=model.spread,
        replica_slow=speed.replica_slow(observation, fresh, settings),
        limit_cost=_limit_cost(model, now, base),
        backlog=backlog(now, observation.window, settings),
        identified=model.known and rate is not None and rate.qps.value > 0,
        overhead_ms=speed.overhead_ms(now, observation, onset, settings),
        rows_per_request=speed.rows_per_request(now),
        version=version,
        precision=precision,
    )


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
        return "", ""
    return str(setting.values.get("version", "")), str(setting.values.get("precision", ""))


def current(situation: Situation, observation: Observation) -> tuple[int, float, int]:
    """(batch limit, batch timeout in ms, replicas) as they are; 1, 0 and 1 where nothing tells."""
    now = situation.now
    replicas = now.replicas or round(number(observation.settings.get("replicas"), "min_replicas") or 1)
    return max(1, now.batch_size or 1), max(0.0, now.batch_timeout_ms or 0.0), max(1, replicas)
