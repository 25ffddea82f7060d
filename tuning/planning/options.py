"""Every option within bounds: singles and pairs of batch (with timeout), replicas and precision."""

from __future__ import annotations

from dataclasses import dataclass

from detection.model import Lever
from tuning.model import Change, Observation
from tuning.planning import reading as rd
from tuning.planning.situation import Situation, current

_REPLICA_CHOICES = 10


@dataclass(frozen=True)
class Candidate:
    """A setting that may be tried: what the levers would read, the changes that lead there, and their price.

    faster: INT8 would be served (its gain comes from the model or a prior).
    """

    batch: int
    timeout_ms: float
    replicas: int
    faster: bool = False
    changes: tuple[Change, ...] = ()
    cost_per_hour: float = 0.0
    delay_s: float = 0.0
    risk: float = 0.0

    @property
    def levers(self) -> tuple[str, ...]:
        return tuple(change.lever for change in self.changes)


def singles(observation: Observation, situation: Situation) -> list[Candidate]:
    """One lever moved, everything else as it is; levers that could not be read are absent."""
    return [
        *_batches(observation, situation),
        *_replicas(observation, situation, lower=False),
        *_precision(observation, situation),
    ]


def savings(observation: Observation, situation: Situation) -> list[Candidate]:
    """Fewer replicas, one step at a time (a lower bound is not cushioned by the autoscaler's stabilisation)."""
    return _replicas(observation, situation, lower=True)


def unchanged(observation: Observation, situation: Situation) -> Candidate:
    """Everything as it is: what a hold would bring."""
    return Candidate(*current(situation, observation))


def pair(one: Candidate, other: Candidate, base: Candidate) -> Candidate:
    """Two levers at once: each knob from the one that moved it, cost and risk added, the slower delay."""
    return Candidate(
        batch=other.batch if other.batch != base.batch else one.batch,
        timeout_ms=other.timeout_ms if other.timeout_ms != base.timeout_ms else one.timeout_ms,
        replicas=other.replicas if other.replicas != base.replicas else one.replicas,
        faster=one.faster or other.faster,
        changes=one.changes + other.changes,
        cost_per_hour=one.cost_per_hour + other.cost_per_hour,
        delay_s=max(one.delay_s, other.delay_s),
        risk=min(1.0, one.risk + other.risk + 0.02),
    )


def _batches(observation: Observation, situation: Situation) -> list[Candidate]:
    lever, setting = observation.service.levers.get("batch_size"), observation.settings.get("batch_size")
    if lever is None or setting is None or setting.useless or situation.now.batch_size is None:
        return []
    batch, timeout, replicas = current(situation, observation)
    low, high = int(lever.minimum), int(lever.maximum)
    sizes = {2**k for k in range(12) if low <= 2**k <= high} | {low, high} | {batch}
    timeouts = _timeouts(lever, timeout, observation.service.slo.p95_ms) if "batch_timeout_ms" in setting.values else []
    found = []
    for size in sorted(size for size in sizes if low <= size <= high):
        for wait in sorted({timeout, *timeouts}):
            if (size, wait) == (batch, timeout):
                continue
            change = rd.batch_change(setting, size, wait)
            risk = 0.02 if size >= batch else 0.03
            found.append(
                Candidate(size, wait, replicas, False, (change,), lever.cost_per_hour, lever.effect_delay_s, risk)
            )
    return found


def _timeouts(lever: Lever, timeout: float, slo_ms: float) -> list[float]:
    """Shorter waits worth a look: none at all (or the bound), and a twentieth of the SLO; longer ones never help."""
    lowest, highest = lever.options.get("timeout_min_ms", 0.0), lever.options.get("timeout_max_ms", 1e9)
    low = float(lowest) if isinstance(lowest, (int, float)) else 0.0
    high = float(highest) if isinstance(highest, (int, float)) else 1e9
    wanted = [low, round(0.05 * slo_ms, 1)]
    return [value for value in wanted if low <= value <= high and value < timeout]


def _replicas(observation: Observation, situation: Situation, *, lower: bool) -> list[Candidate]:
    lever, setting = observation.service.levers.get("replicas"), observation.settings.get("replicas")
    if lever is None or setting is None:
        return []
    batch, timeout, running = current(situation, observation)
    low, high = rd.replica_bounds(lever, setting)
    asked = int(rd.first(rd.number(setting, "min_replicas"), rd.number(setting, "replicas")) or running)
    # What was asked for and does not run (a lost node, no room) is not there when more is asked for either.
    missing, base = max(0, asked - running), max(asked, running)
    if lower:
        counts = [base - 1] if base - 1 >= low else []
    else:
        counts = list(range(base + 1, high + 1))
        if len(counts) > _REPLICA_CHOICES:
            step = (high / base) ** (1 / _REPLICA_CHOICES)
            counts = sorted({min(high, round(base * step**k)) for k in range(1, _REPLICA_CHOICES + 1)} - {base})
    found = []
    for count in counts:
        change = rd.replica_change(setting, count)
        if change.old == change.new:
            continue
        cost = (count - base) * lever.cost_per_hour
        there = max(1, count - missing)
        found.append(Candidate(batch, timeout, there, False, (change,), cost, lever.effect_delay_s, 0.02))
    return found


def _precision(observation: Observation, situation: Situation) -> list[Candidate]:
    lever, setting = observation.service.levers.get("precision"), observation.settings.get("precision")
    if lever is None or setting is None or setting.values.get("precision") == "int8" or rd.no_int8(lever):
        return []
    batch, timeout, replicas = current(situation, observation)
    change = Change(lever="precision", old=dict(setting.values), new={"precision": "int8"})
    return [Candidate(batch, timeout, replicas, True, (change,), lever.cost_per_hour, lever.effect_delay_s, 0.15)]
