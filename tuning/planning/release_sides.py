"""The two sides of a release: what was measured under each version, under which load, and what begins with it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow
from tuning.model import Observation, Release
from tuning.planning import thresholds as th
from tuning.planning.settings import PlanningSettings

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Sides:
    """The window before and after a release; onset: the stretch within which what it moved begins (epoch seconds)."""

    whole: MetricWindow
    before: MetricWindow
    after: MetricWindow
    onset: tuple[float, float]
    rate_window_s: float


def sides_of(release: Release, observation: Observation, settings: PlanningSettings) -> Sides | None:
    window, step_s = observation.window, observation.window.span.step_s
    earlier = [one.whole_s or one.at_s for one in observation.releases if one.at_s < release.at_s]
    since_s = max([release.at_s - th.RELEASE_BEFORE_S, *(s + settings.rate_window_s for s in earlier)])
    until_s = release.at_s - step_s
    before = window.between(since_s, until_s)
    if before.span.points < th.RELEASE_POINTS and observation.history is not None:
        before = observation.history.between(max(since_s, release.at_s - th.BASELINE_HISTORY_S), until_s)
    whole_s = _whole_s(release)
    settled_s = min(whole_s + settings.rate_window_s, window.span.end_s - th.SETTLED_STEPS * step_s)
    after = window.between(settled_s, window.span.end_s)
    if min(before.span.points, after.span.points) < th.LEVEL_POINTS or after.span.start_s < release.at_s:
        return None
    slack_s = th.RELEASE_SEEN_STEPS * step_s
    window_s = settings.rate_window_s
    return Sides(window, before, after, (release.at_s - slack_s, whole_s + 2 * window_s + slack_s), window_s)


def told_s(release: Release, observation: Observation, settings: PlanningSettings) -> float:
    """When the rates of a release are its own, and so many of them are known that it can be judged (epoch seconds)."""
    return _whole_s(release) + settings.rate_window_s + th.LEVEL_POINTS * observation.window.span.step_s


def _whole_s(release: Release) -> float:
    return min(release.whole_s or release.at_s, release.at_s + th.RELEASE_ROLLOUT_S)


def load(sides: Sides, *, overloaded: bool) -> float | None:
    """Requests that come per second and replica, after over before; None where it cannot be told.

    What comes is what is answered plus the growth of the queue. Without the queue's length a service that is as busy as
    it can be hides what comes, unless it answers less than before: then it is the service that carries less.
    """
    old, new = (_came(side) for side in (sides.before, sides.after))
    if not old or new is None:
        return None
    if overloaded and "queue_depth" not in sides.after.values and new >= old:
        return None
    return new / old * fewer(sides)


def _came(side: MetricWindow) -> float | None:
    rate, depth = median(side.values.get("qps")), side.values.get("queue_depth")
    if rate is None or depth is None:
        return rate
    known = np.flatnonzero(np.isfinite(depth))
    if known.size < 2:
        return rate
    grown = float(depth[known[-1]] - depth[known[0]]) / (float(known[-1] - known[0]) * side.span.step_s)
    return rate + max(0.0, grown)


def equal(load: float | None) -> bool:
    """No more load than before, as far as noise goes: less of it slows nothing down."""
    return load is not None and math.log(max(load, 1e-9)) <= th.MOVED


def could_carry(sides: Sides) -> bool:
    """Whether less is answered, per replica, than was carried before: qps / busy at the batches of then, and fuller
    ones carry more. A service that could answer more refuses nothing for want of room."""
    old, new, busy = (
        median(side.values.get(name))
        for side, name in ((sides.before, "qps"), (sides.after, "qps"), (sides.before, "busy"))
    )
    failed = median(sides.after.values.get("error_rate"))
    if not old or new is None or not busy or not same_limit(sides):
        return False
    return new * (1 - (failed or 0.0)) * fewer(sides) < th.RELEASE_CARRIES * old / busy


def fewer(sides: Sides) -> float:
    """Replicas before over those after; 1 where they are not known."""
    counts = [median(side.values.get("replicas")) for side in (sides.before, sides.after)]
    return counts[0] / counts[1] if counts[0] and counts[1] else 1.0


def same_limit(sides: Sides) -> bool:
    """A larger batch limit makes batches longer by itself."""
    limits = [median(side.values.get("batch_size")) for side in (sides.before, sides.after)]
    return limits[0] is None or limits[1] is None or limits[1] <= limits[0]


def begins(
    sides: Sides, values: FloatArray, least: float = math.log(th.RELEASE_SLOWER), counted: float = 0.0
) -> bool:
    """Whether what moved up began with the release: not before it, and not much later by something else.

    A brief excursion long before says nothing: it is the last stretch, which lasts until now, that is placed.
    counted: the deviation that shares of so many requests have by chance, in the unit of the values. Their median
    deviation may be 0 where most points count no failure at all, and then every single one would be an excursion.
    """
    times, known = sides.whole.span.times(), np.isfinite(values)
    calm = values[known & (times < sides.onset[0])]
    if calm.size < th.LEVEL_POINTS:
        return True  # what was before it is known from the history alone, which cannot place it
    middle = float(np.median(calm))
    spread = 1.4826 * float(np.median(np.abs(calm - middle)))  # of a normal scatter, by its median deviation
    spread = max(spread, counted)
    high = values[known] > middle + max(th.RELEASE_SCATTER * spread, least / 2)
    began_s = _lasting_start(times[known], high)
    return began_s is not None and sides.onset[0] <= began_s <= sides.onset[1]


def _lasting_start(times: FloatArray, high: BoolArray) -> float | None:
    """When the stretch began that lasts until the end, with most of its points high; None where the end is not."""
    if not high[-th.LEVEL_POINTS :].any():
        return None
    share = np.cumsum(high[::-1].astype(float)) / np.arange(1, high.size + 1)
    lasting = np.flatnonzero((share >= th.RELEASE_LASTING) & high[::-1])
    return float(times[high.size - 1 - lasting[-1]]) if lasting.size else None


def broken_since(observation: Observation) -> float | None:
    """Since when a promise of the service is broken without a pause, by the window; None where none is at its end."""
    slo, values = observation.service.slo, observation.window.values
    limits = {one.signal: one.limit_ms for one in slo.objectives} | {"error_rate": slo.error_rate}
    over = [values[name] > limit for name, limit in limits.items() if name in values]
    known = [np.isfinite(values[name]) for name in limits if name in values]
    if not over:
        return None
    seen = np.any(known, axis=0)
    return _lasting_start(observation.window.span.times()[seen], np.any(over, axis=0)[seen])


def median(values: FloatArray | None) -> float | None:
    if values is None:
        return None
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None
