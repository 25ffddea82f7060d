"""The restart of the one replica that is to blame, or why it is not made. Pure; shared by the planners.

It comes before everything that costs: more replicas beside a sick one pay for it for as long as it stays. It is made
where one of at least two is sick, never below the lever's minimum of ready ones, never twice for one incident, and at
most `per_day` times a day; a slow replica that may not be restarted leaves the other levers to help.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from detection.leaks import lasting
from detection.model import Incident, Lever
from tuning.formats import ms
from tuning.model import (
    LEVER_STEPS,
    Change,
    Diagnosis,
    Interval,
    Observation,
    Option,
    Record,
    ReplicaSeen,
    Setting,
    SickReplica,
)
from tuning.planning import thresholds as th
from tuning.planning.settings import PlanningSettings

LEVER = "restart"
GONE = "gone"
"""Where the knob of a process stands that has ended."""


def cure(
    incident: Incident,
    observation: Observation,
    diagnosis: Diagnosis,
    past: Sequence[Record],
    settings: PlanningSettings,
    busy: float | None = None,
) -> tuple[Option, tuple[Option, ...]] | None:
    """(what is done about a sick replica, what was passed over); None where it is no matter of the restart lever.

    busy: the share of the time that the replicas compute, None where it is not known.
    """
    sick = diagnosis.sick
    if sick is None:
        return None
    found = _allowed(incident, observation, sick, past, busy)
    if isinstance(found, ReplicaSeen):
        return _restart(observation, sick, found, settings), _passed_over(observation)
    if sick.kind == "slow":
        return None
    return Option(changes=(), reason=f"hold: {sick.sentence}; {found}"), ()


def left_out(
    incident: Incident, observation: Observation, diagnosis: Diagnosis, past: Sequence[Record], busy: float | None
) -> tuple[Option, ...]:
    """Why a slow replica is not restarted, where other levers are weighed instead."""
    if diagnosis.sick is None or LEVER not in observation.service.levers:
        return ()
    found = _allowed(incident, observation, diagnosis.sick, past, busy)
    return () if isinstance(found, ReplicaSeen) else (Option(changes=(), feasible=False, reason=f"{LEVER}: {found}"),)


def _allowed(
    incident: Incident, observation: Observation, sick: SickReplica, past: Sequence[Record], busy: float | None
) -> ReplicaSeen | str:
    """The replica that may be restarted now, or the sentence that says why none may."""
    lever = observation.service.levers.get(LEVER)
    if lever is None:
        return "give the service the lever `restart`, or restart it by hand"
    if _tried(incident, past):
        return "it was restarted for this incident already, and that did not help: look at its machine"
    setting = observation.settings.get(LEVER)
    if setting is None:
        return f"the restart lever cannot be read: {observation.unreadable.get(LEVER, 'it does not answer')}"
    if setting.useless:
        return setting.useless
    replica = _replica(setting, sick.label)
    if isinstance(replica, str):
        return replica
    return _why_not(observation, lever, setting, sick, replica, past, busy) or replica


def _replica(setting: Setting, label: str) -> ReplicaSeen | str:
    """The replica of the lever that has a label in the metrics, or the sentence that says why none is surely it."""
    replicas = setting.replicas
    hosts = Counter(_host(one.place) for one in replicas)
    found = [one for one in replicas if label in (one.name, one.place)]
    alone = [one for one in replicas if hosts[_host(one.place)] == 1]
    found = found or [one for one in alone if _host(one.place) in (label, _host(label))]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{one.name} ({one.place})" if one.place else one.name for one in replicas) or "none"
    return f"which replica {label} is cannot be told: the restart lever knows {known}"


def _host(place: str) -> str:
    return place.rpartition(":")[0]


def _why_not(
    observation: Observation,
    lever: Lever,
    setting: Setting,
    sick: SickReplica,
    replica: ReplicaSeen,
    past: Sequence[Record],
    busy: float | None,
) -> str:
    """Why the replica may not be restarted now, "" where it may."""
    ready = [one for one in setting.replicas if one.ready and one.name != replica.name]
    least = max(1, int(lever.minimum))
    if len(ready) < least:
        some = f"only {len(ready)} of the others {'is' if len(ready) == 1 else 'are'}"
        count = some if ready else "no other replica is"
        return f"{count} ready, and {least} must be while it restarts"
    away = [one.name for one in setting.replicas if not one.ready and one.name != replica.name]
    if away:
        return f"{', '.join(away)} is not ready either: one at a time"
    made = restarts(past, observation.at_s)
    if made >= lever.maximum:
        return f"{made} restarts were made within a day, and the lever allows {lever.maximum:g}"
    rest = _busy_without(observation, sick, busy)
    if sick.kind == "slow" and rest is not None and rest > th.HEAL_CARRIES:
        return f"the others would be busy {rest:.0%} while it restarts: they do not carry its load"
    return ""


def _tried(incident: Incident, past: Sequence[Record]) -> bool:
    """Whether a replica was really restarted for this incident without an improvement; a restart that was refused (a
    disruption budget, one that was not ready) may be tried again."""
    mine = [record for record in past if record.incident_id == incident.id]
    helped = {r.parent_id for r in mine if r.kind == "verify_p95" and r.body.get("verdict") == "improved"}
    return any(_made(record) and record.parent_id not in helped for record in mine)


def _made(record: Record) -> bool:
    return record.kind == LEVER_STEPS[LEVER] and record.phase == "result" and bool(record.body.get("changed"))


def restarts(past: Sequence[Record], at_s: float) -> int:
    """How many restarts of the service were made within a day."""
    since_s = at_s - th.HEAL_MEMORY_S
    return sum(_made(record) and record.at_s >= since_s for record in past)


def _busy_without(observation: Observation, sick: SickReplica, busy: float | None) -> float | None:
    """How busy the others are without it: each request takes them the time of a sound replica.

    With n replicas of which one takes r times as long, all get the same requests: b (n - 1 + r) / n is the mean.
    """
    count = len(observation.replicas)
    if busy is None or count < 2:
        return None
    times = sick.own / sick.peers if sick.kind == "slow" and sick.peers else 1.0
    sound = busy * count / (count - 1 + max(times, 1.0))
    return sound * count / (count - 1)


def _restart(
    observation: Observation, sick: SickReplica, replica: ReplicaSeen, settings: PlanningSettings
) -> Option:
    lever = observation.service.levers[LEVER]
    setting = observation.settings[LEVER]
    change = Change(lever=LEVER, old={replica.knob: setting.values[replica.knob]}, new={replica.knob: GONE})
    predicted = _calm(observation) if sick.kind == "slow" else None
    others = len(setting.replicas) - 1
    hurry = f" before {lasting(sick.left_s.low)} are over" if sick.left_s is not None else ""
    return Option(
        changes=(change,),
        predicted_p95_ms=predicted,
        meets_slo=None if predicted is None else predicted.value <= observation.promise.limit_ms,
        cost_per_hour=lever.cost_per_hour,
        effect_delay_s=lever.effect_delay_s + settings.warm_up_s,
        risk=th.HEAL_RISK,
        reason=(
            f"{sick.sentence}: it alone is drained and restarted{hurry}, while "
            f"{f'{others} others serve' if others > 1 else 'the other serves'}"
            + (f"; P95 was {ms(predicted.value)} before" if predicted is not None else "")
        ),
    )


def _calm(observation: Observation) -> Interval | None:
    """The P95 of before the incident: what there is to win. None where nobody knows it."""
    if observation.since_s is None:
        return None
    window = observation.window.between(observation.window.span.start_s, observation.since_s)
    values = window.values.get(observation.promise.signal)
    known = values[np.isfinite(values)] if values is not None else np.empty(0)
    if known.size < th.LEVEL_POINTS:
        return None
    low, middle, high = (float(np.quantile(known, q)) for q in th.RELEASE_QUANTILES)
    return Interval(value=middle, low=low, high=high)


def _passed_over(observation: Observation) -> tuple[Option, ...]:
    """The other levers: each would work around one replica for as long as it is sick."""
    return tuple(
        Option(changes=(), feasible=False, reason=f"{name}: one replica is wrong, and this would only pay for it")
        for name in sorted(observation.service.levers)
        if name != LEVER
    )
