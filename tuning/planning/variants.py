"""The variants of a service as a planner sees them: which serves, which are below it, what each costs and gains. Pure.

Another variant is chosen only where nothing else meets the SLO: of those that do, the one that loses least. What it
loses is the difference of the shares of right answers that were measured on held-back rows; what it gains, the quotient
of the batch times, is learned where both have served in calm traffic, else as services.yaml tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from detection.model import Lever, MetricWindow
from tuning.model import LEVER_STEPS, Change, Observation, Record
from tuning.planning import thresholds as th

LEVER = "variant"
Pace = Callable[[str], float | None]
"""How long a batch takes with a variant of that name, in any unit; None: it never served in calm traffic."""


@dataclass(frozen=True)
class Offered:
    """A variant. quality: 0..1. service_time: over that of the first one (None: not told)."""

    name: str
    quality: float
    service_time: float | None


def offered(lever: Lever | None) -> tuple[Offered, ...]:
    """The variants of a lever, the best first."""
    told = lever.options.get("variants") if lever is not None else None
    found = []
    for one in told if isinstance(told, (list, tuple)) else ():
        if isinstance(one, Mapping):
            time = one.get("service_time")
            found.append(Offered(str(one["name"]), float(one["quality"]), None if time is None else float(time)))
    first = found[:1]
    return (*(Offered(v.name, v.quality, 1.0) for v in first), *found[1:])


def serving(observation: Observation) -> str:
    """The variant that serves; "" where the service has none, or it cannot be told."""
    setting = observation.settings.get(LEVER)
    return "" if setting is None or setting.useless else str(setting.values.get(LEVER, ""))


def below(observation: Observation) -> tuple[Offered, ...]:
    """The variants that come after the one that serves, the best first."""
    known, now = offered(observation.service.levers.get(LEVER)), serving(observation)
    names = [one.name for one in known]
    return known[names.index(now) + 1 :] if now in names else ()


def loss(lever: Lever | None, old: str, new: str) -> float:
    """The share of right answers that is lost by a switch, 0..1; 0 where one of them is not known."""
    quality = {one.name: one.quality for one in offered(lever)}
    return max(0.0, quality[old] - quality[new]) if old in quality and new in quality else 0.0


def kept_at_qps(calm: MetricWindow | None, limits: Mapping[str, float], headroom: float) -> float:
    """The load (1/s) below which a lease may end, by what was seen in a calm: the highest at which every objective
    was kept with headroom, and `thresholds.SEEN_ROOM` on top; 0 where nothing was."""
    rates = calm.values.get("qps") if calm is not None else None
    if calm is None or rates is None or any(name not in calm.values for name in limits):
        return 0.0
    well = np.isfinite(rates)
    for name, limit in limits.items():
        well &= np.nan_to_num(calm.values[name], nan=np.inf) <= headroom * limit
    if well.sum() < th.LEVEL_POINTS:
        return 0.0
    return th.SEEN_ROOM * float(np.quantile(rates[well], th.PEAK))


def lost_by(lever: Lever | None, change: Change) -> float:
    """What a switch loses, 0..1; 0 for a change of anything else."""
    return loss(lever, str(change.old[LEVER]), str(change.new[LEVER])) if change.lever == LEVER else 0.0


def degraded(observation: Observation) -> str:
    """The variant that serves where it is not the first; "" where that one does, or there are none."""
    known, now = offered(observation.service.levers.get(LEVER)), serving(observation)
    return now if now in [one.name for one in known[1:]] else ""


def lasted_s(past: Iterable[Record], lever: str = LEVER) -> list[float]:
    """How long a lever was lent before, seconds, oldest first: from a change to the next step back of the lever."""
    found, since_s = [], None
    for record in sorted(past, key=lambda one: one.at_s):
        if record.phase != "result" or record.body.get("lever") != lever or not record.body.get("changed"):
            continue
        if record.kind == LEVER_STEPS[lever] and since_s is None:
            since_s = record.at_s
        elif record.kind == "roll_back" and since_s is not None:
            found.append(record.at_s - since_s)
            since_s = None
    return found


def change(observation: Observation, name: str) -> Change:
    """The switch from what serves to another variant."""
    return Change(lever=LEVER, old={LEVER: serving(observation)}, new={LEVER: name})


def gain(observation: Observation, name: str, pace: Pace) -> tuple[float, float] | None:
    """(speed-up of the batch times, its log scatter) of a variant against the one that serves; None: not known."""
    now = serving(observation)
    old, new = pace(now), pace(name)
    if old and new:
        return old / new, th.GAIN_LEARNED_SD
    told = {one.name: one.service_time for one in offered(observation.service.levers.get(LEVER))}
    before, after = told.get(now), told.get(name)
    return (before / after, th.GAIN_MEASURED_SD) if before and after else None


def untold(observation: Observation, pace: Pace) -> str:
    """Why variants are not weighed of which nobody knows how fast they are; "" where there is none."""
    names = [one.name for one in below(observation) if gain(observation, one.name, pace) is None]
    if not names:
        return ""
    return (
        f"how long a batch takes with {' or '.join(names)} is not known: give it a service_time, or let it serve once "
        "in calm traffic"
    )


def served_version(observation: Observation, version: str, variant: str | None = None) -> str:
    """The version under which a latency model is kept: each variant has its own. variant: default the one serving."""
    return keyed(version, serving(observation) if variant is None else variant)


def keyed(version: str, variant: str) -> str:
    return f"{version}~{variant}" if variant else version


def other_variant(name: str, served: str) -> bool:
    """Whether a latency model's key is that of another variant of the version that is served: it is kept beside its
    line, while that of another version is not."""
    return name != served and "~" in served and name.partition("~")[0] == served.partition("~")[0] and "~" in name
