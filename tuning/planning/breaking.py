"""A route whose errors or latency explode while the others are well gets no more requests, or why it does. Pure; shared
by the planners.

A route is a dependency, a replica, a version or a backend that requests go to, with signals of its own in
services.yaml. What one route fails at, no capacity cures: it comes before every lever that adds some. Where the others
could not carry the load without it, it stays in, and the hold says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, Incident, Lever, MetricWindow
from detection.signals import of_unit
from tuning.formats import ms
from tuning.model import Change, Observation, Option, Record
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning.settings import PlanningSettings

LEVER = "breaker"


@dataclass(frozen=True)
class Route:
    """failed, p95: names of its signals ("": it has none of that kind), with their limits (a share, ms). capacity:
    requests per second that it carries."""

    name: str
    failed: str
    max_failed: float
    p95: str
    max_p95_ms: float
    capacity: float

    @property
    def signals(self) -> tuple[tuple[str, float], ...]:
        """(signal, limit) of each."""
        both = ((self.failed, self.max_failed), (self.p95, self.max_p95_ms))
        return tuple((signal, limit) for signal, limit in both if signal)


def routes(lever: Lever | None) -> tuple[Route, ...]:
    """The routes of a lever."""
    told = lever.options.get("routes") if lever is not None else None
    return tuple(
        Route(
            name=str(one["name"]),
            failed=str(one.get("failed") or ""),
            max_failed=float(one.get("max_failed") or 0.0),
            p95=str(one.get("p95") or ""),
            max_p95_ms=float(one.get("max_p95_ms") or math.inf),
            capacity=float(one["capacity"]),
        )
        for one in (told if isinstance(told, (list, tuple)) else ())
        if isinstance(one, Mapping)
    )


def cut(
    incident: Incident, observation: Observation, past: Sequence[Record], settings: PlanningSettings
) -> tuple[Option, tuple[Option, ...]] | None:
    """(what is done about the worst route, what was passed over); None where it is no matter of this lever."""
    lever, setting = observation.service.levers.get(LEVER), observation.settings.get(LEVER)
    if lever is None or setting is None or LEVER in rd.failed_levers(incident, past):
        return None
    closed = [route for route in routes(lever) if setting.values.get(route.name) == "closed"]
    over = {route.name: _over(route, observation.window, settings.recent_s) for route in closed}
    bad = sorted((route for route in closed if over[route.name] > 1), key=lambda route: -over[route.name])
    if not bad or len(bad) == len(closed):
        return None  # what all of them do is no matter of one
    worst = bad[0]
    figures = _figures(worst, observation.window, settings.recent_s)
    others = _others(closed, worst, observation, settings)
    said, asked = f"{figures}, and {others}", rd.level(observation.window, "qps", settings.recent_s)
    rest = sum(route.capacity for route in closed if route is not worst)
    if asked is None or asked > th.HEAL_CARRIES * rest:
        load = "how many requests come is not known" if asked is None else f"{asked:.3g} requests/s come"
        reason = f"hold: {said}; without it the others carry {rest:.3g}/s, and {load}: it stays in"
        return Option(changes=(), reason=reason), ()
    change = Change(lever=LEVER, old={worst.name: "closed"}, new={worst.name: "open"})
    rests = lever.options.get("open_for_s")
    probed = f"; it is probed after {float(rests):.0f} s" if isinstance(rests, int | float) else ""
    reason = f"{said}: nothing is sent to {worst.name} (the others carry {rest:.3g}/s, and {asked:.3g}/s come){probed}"
    chosen = Option(
        changes=(change,),
        cost_per_hour=lever.cost_per_hour,
        effect_delay_s=lever.effect_delay_s,
        risk=th.RISK[LEVER],
        reason=reason,
    )
    return chosen, _passed_over(observation)


def lease_s(lever: Lever | None) -> float | None:
    """How long a circuit rests before it is first probed."""
    told = lever.options.get("open_for_s") if lever is not None else None
    return float(told) if isinstance(told, int | float) else None


def _over(route: Route, window: MetricWindow, within_s: float) -> float:
    """By how much a route is over its limits, 1: just not; 0 where too little tells."""
    found = [0.0]
    for signal, limit in route.signals:
        values = _last(window, signal, within_s)
        if values.size == th.LEVEL_POINTS and limit > 0:
            found.append(float(values.min()) / limit)
    return max(found)


def _last(window: MetricWindow, signal: str, within_s: float) -> FloatArray:
    """The newest values of a signal, as few as are a level."""
    return rd.recent(window, signal, within_s)[-th.LEVEL_POINTS :]


def _figures(route: Route, window: MetricWindow, within_s: float) -> str:
    told = []
    for signal, limit in route.signals:
        values = _last(window, signal, within_s)
        if not values.size or float(np.median(values)) <= limit:
            continue
        now = float(np.median(values))
        if signal == route.failed:
            told.append(f"{now:.0%} of its requests fail (limit {limit:.0%})")
        else:
            told.append(f"its P95 is {ms(now)} (limit {ms(limit)})")
    return f"{route.name}: {' and '.join(told)}"


def _others(closed: Sequence[Route], worst: Route, observation: Observation, settings: PlanningSettings) -> str:
    window, told = observation.window, []
    for route in closed:
        signal = next((s for s, _ in route.signals if _last(window, s, settings.recent_s).size), "")
        if route is not worst and signal:
            unit = "share" if signal == route.failed else "ms"
            now = float(np.median(_last(window, signal, settings.recent_s)))
            told.append(f"{route.name} has {of_unit(unit, now)}")
    return ", ".join(told) or "the others are not measured"


def _passed_over(observation: Observation) -> tuple[Option, ...]:
    return tuple(
        Option(changes=(), feasible=False, reason=f"{name}: what one route fails at it does not cure")
        for name in sorted(observation.service.levers)
        if name != LEVER
    )
