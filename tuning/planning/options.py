"""Options within bounds that every engine shares, replicas and precision, and pairs; and those of a dynamic batcher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from detection.model import Lever
from tuning.model import Change, Knob, Observation, Setting
from tuning.planning import admission as ad
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning import variants as va
from tuning.planning.ports import Candidate


def pair(one: Candidate, other: Candidate, base: Candidate) -> Candidate:
    """Two levers at once: each knob from the one that moved it, cost and risk added, the slower delay."""
    moved: dict[str, Knob] = {}
    for half in (one, other):
        moved.update({knob: value for knob, value in half.setting.items() if value != base.setting.get(knob)})
    return Candidate(
        setting={**base.setting, **moved},
        changes=one.changes + other.changes,
        cost_per_hour=one.cost_per_hour + other.cost_per_hour,
        delay_s=max(one.delay_s, other.delay_s),
        risk=min(1.0, one.risk + other.risk + th.RISK["pair"]),
        size=tuple(max(mine, theirs) for mine, theirs in zip(one.size, other.size, strict=True)),
    )


def batches(observation: Observation, base: Candidate) -> list[Candidate]:
    """Batch limits (powers of two and the bounds) and shorter timeouts; base: the setting as it is."""
    lever, setting = observation.service.levers.get("batch_size"), observation.settings.get("batch_size")
    if lever is None or setting is None or setting.useless:
        return []
    batch, timeout = int(base.setting["batch_size"]), float(base.setting["batch_timeout_ms"])
    low, high = int(lever.minimum), int(lever.maximum)
    sizes = {2**k for k in range(12) if low <= 2**k <= high} | {low, high} | {batch}
    timeouts = _timeouts(lever, timeout, observation.promise.limit_ms) if "batch_timeout_ms" in setting.values else []
    found = []
    for size in sorted(size for size in sizes if low <= size <= high):
        for wait in sorted({timeout, *timeouts}):
            if (size, wait) == (batch, timeout):
                continue
            change = rd.batch_change(setting, size, wait)
            risk = th.RISK["batch_size" if size >= batch else "smaller batch"]
            moved = {"batch_size": size, "batch_timeout_ms": wait}
            found.append(_moved(base, lever, change, moved, lever.cost_per_hour, risk))
    return found


def _timeouts(lever: Lever, timeout: float, slo_ms: float) -> list[float]:
    """Shorter waits worth a look: none at all (or the bound), and a twentieth of the SLO; longer ones never help."""
    lowest, highest = lever.options.get("timeout_min_ms", 0.0), lever.options.get("timeout_max_ms", 1e9)
    low = float(lowest) if isinstance(lowest, (int, float)) else 0.0
    high = float(highest) if isinstance(highest, (int, float)) else 1e9
    wanted = [low, round(th.SHORT_WAIT * slo_ms, 1)]
    return [value for value in wanted if low <= value <= high and value < timeout]


def more_replicas(observation: Observation, base: Candidate) -> list[Candidate]:
    """Every number up to the bound, ten at equal ratios where there are more."""
    lever, setting = observation.service.levers.get("replicas"), observation.settings.get("replicas")
    if lever is None or setting is None:
        return []
    start, _ = _running(setting, base)
    _, high = rd.replica_bounds(lever, setting)
    counts = list(range(start + 1, high + 1))
    if len(counts) > th.REPLICA_CHOICES:
        step = (high / start) ** (1 / th.REPLICA_CHOICES)
        counts = sorted({min(high, round(start * step**k)) for k in range(1, th.REPLICA_CHOICES + 1)} - {start})
    return _replicas(lever, setting, base, counts)


def fewer_replicas(observation: Observation, base: Candidate) -> list[Candidate]:
    """One replica fewer: a lower bound is not cushioned by the autoscaler's stabilisation."""
    lever, setting = observation.service.levers.get("replicas"), observation.settings.get("replicas")
    if lever is None or setting is None:
        return []
    start, _ = _running(setting, base)
    low, _ = rd.replica_bounds(lever, setting)
    return _replicas(lever, setting, base, [start - 1] if start - 1 >= low else [])


def _running(setting: Setting, base: Candidate) -> tuple[int, int]:
    """(number to start from, number that was asked for and does not run)."""
    running = int(base.setting["replicas"])
    asked = int(rd.first(rd.number(setting, "min_replicas"), rd.number(setting, "replicas")) or running)
    return max(asked, running), max(0, asked - running)


def _replicas(lever: Lever, setting: Setting, base: Candidate, counts: list[int]) -> list[Candidate]:
    start, missing = _running(setting, base)
    found = []
    for count in counts:
        change = rd.replica_change(setting, count)
        if change.old == change.new:
            continue
        # What was asked for and does not run (a lost node, no room) is not there when more is asked for either.
        moved = {"replicas": max(1, count - missing)}
        cost = (count - start) * lever.cost_per_hour
        found.append(_moved(base, lever, change, moved, cost, th.RISK["replicas"]))
    return found


def int8(observation: Observation, base: Candidate) -> list[Candidate]:
    """INT8, where a model is configured and not served already."""
    lever, setting = observation.service.levers.get("precision"), observation.settings.get("precision")
    if lever is None or setting is None or setting.values.get("precision") == "int8" or rd.no_int8(lever):
        return []
    change = Change(lever="precision", old=dict(setting.values), new={"precision": "int8"})
    return [_moved(base, lever, change, {"precision": "int8"}, lever.cost_per_hour, th.RISK["precision"])]


def variants(observation: Observation, base: Candidate, pace: va.Pace) -> list[Candidate]:
    """The variants below the one that serves, the best first; without those of which nobody knows how fast they are."""
    lever = observation.service.levers.get(va.LEVER)
    if lever is None:
        return []
    found, now = [], va.serving(observation)
    for one in va.below(observation):
        if va.gain(observation, one.name, pace) is not None:
            change, moved = va.change(observation, one.name), {va.LEVER: one.name}
            step = _moved(base, lever, change, moved, lever.cost_per_hour, th.RISK[va.LEVER])
            found.append(replace(step, loss=va.loss(lever, now, one.name)))
    return found


def limits(observation: Observation, base: Candidate, batch_s: float, spare_ms: float) -> list[Candidate]:
    """Lower limits of what is taken in, the highest first. batch_s: how long a full batch takes; spare_ms: what a
    request may take."""
    lever = observation.service.levers.get(ad.LEVER)
    if lever is None:
        return []
    batch, replicas = int(base.setting["batch_size"]), int(base.setting["replicas"])
    found = []
    for value in ad.lower(observation, batch, batch_s, replicas, spare_ms):
        change = ad.change(observation, value)
        found.append(_moved(base, lever, change, change.new, lever.cost_per_hour, th.RISK[ad.LEVER]))
    return found


def stepped(base: Candidate, step: Change) -> Candidate:
    """As it is, but for the replicas that a step back takes away; one stays at least."""
    knob = "min_replicas" if "min_replicas" in step.new else "replicas"
    old, new = step.old.get(knob), step.new.get(knob)
    fewer = int(old) - int(new) if isinstance(old, (int, float)) and isinstance(new, (int, float)) else 0
    return replace(base, setting={**base.setting, "replicas": max(1, int(base.setting["replicas"]) - fewer)})


def _moved(
    base: Candidate, lever: Lever, change: Change, moved: Mapping[str, Knob], cost: float, risk: float
) -> Candidate:
    setting = {**base.setting, **moved}
    return Candidate(setting, (change,), cost, lever.effect_delay_s, risk, size_of(setting))


def size_of(setting: Mapping[str, Knob]) -> tuple[float, ...]:
    """(replicas, batch limit): of two settings that do equally well the smaller is the smaller step."""
    return tuple(float(setting.get(knob, 0)) for knob in ("replicas", "batch_size"))
