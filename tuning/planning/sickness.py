"""Which one replica is to blame, told from its own signals beside those of its peers. Pure.

A replica that was started within the warm-up is not called slow: its first batches load, compile and fill caches. One
that is slow because all are slow is no sick replica, and a restart of it would cure nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detection.leaks import MEMORY, UPTIME, leak_of
from detection.model import Incident, MetricWindow
from detection.signals import SIGNALS
from tuning.model import Interval, Observation, SickReplica
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation


def age_s(observation: Observation, label: str) -> float | None:
    """How long a replica has run, None where it does not say."""
    window = observation.replicas.get(label)
    return window.last(UPTIME) if window is not None else None


def warms_up(observation: Observation, label: str, settings: PlanningSettings) -> bool:
    """Whether a replica was started within the warm-up."""
    age = age_s(observation, label)
    return age is not None and age < settings.warm_up_s


def slow_one(observation: Observation, situation: Situation, settings: PlanningSettings) -> SickReplica | None:
    """The single replica that is slow while the others are not."""
    slow, label = situation.replica_slow, situation.slowest
    single = len(slow) >= 2 and slow[-1] >= th.SLOW_REPLICA and slow[-2] < th.SOUND_REPLICA
    if not single or warms_up(observation, label, settings):
        return None
    by_tail = label and _level(observation, label, "batch_ms", settings) is None
    signal = "p95_ms" if by_tail else "batch_ms"
    own = _level(observation, label, signal, settings)
    return SickReplica(
        label=label,
        kind="slow",
        signal=signal,
        own=own if own is not None else slow[-1],
        peers=_peers(observation, label, signal, settings),
        sentence=f"one of {len(slow)} replicas{f', {label},' if label else ''} takes {slow[-1]:.1f} times as long "
        + ("as the others" if by_tail else "per batch"),
    )


def wrong_one(observation: Observation, settings: PlanningSettings) -> SickReplica | None:
    """The single replica whose requests fail, or whose answers differ, while those of its peers do not."""
    if len(observation.replicas) < 2:
        return None
    slo = observation.service.slo
    found = []
    for label, window in sorted(observation.replicas.items()):
        own = _level(observation, label, "error_rate", settings)
        peers = _peers(observation, label, "error_rate", settings)
        failed = _failed(window, observation, settings)
        fails = own is not None and peers is not None and own > slo.error_rate and failed >= th.WRONG_REQUESTS
        if fails and own is not None and peers is not None and peers <= min(slo.error_rate, own / th.WRONG_TIMES):
            told = f"replica {label} fails {own:.1%} of its requests, its peers {peers:.1%}"
            found.append(_wrong(label, "error_rate", own, peers, told))
    for signal in ("accuracy", "agreement"):
        values = {
            label: value
            for label in observation.replicas
            if (value := _level(observation, label, signal, settings)) is not None
        }
        found += _apart(values, signal, slo.accuracy_drop)
    labels = {one.label for one in found}
    return found[0] if len(labels) == 1 and not warms_up(observation, found[0].label, settings) else None


def _apart(values: Mapping[str, float], signal: str, allowed: float) -> list[SickReplica]:
    """The replicas whose answers are right less often than their peers', by more than is allowed."""
    found = []
    for label, own in sorted(values.items()):
        others = [value for name, value in values.items() if name != label]
        if others and float(np.median(others)) - own > max(allowed, SIGNALS[signal].floor):
            peers = float(np.median(others))
            told = f"replica {label} answers with {signal} {own:.3g}, its peers with {peers:.3g}"
            found.append(_wrong(label, signal, own, peers, told))
    return found


def _wrong(label: str, signal: str, own: float, peers: float, told: str) -> SickReplica:
    return SickReplica(label=label, kind="wrong", signal=signal, own=own, peers=peers, sentence=told)


def leaking_one(incident: Incident, observation: Observation, settings: PlanningSettings) -> SickReplica | None:
    """The replica whose memory reaches its limit first, of those whose leak was seen long enough to be an anomaly."""
    seen = {one.replica for one in incident.anomalies if one.signal == MEMORY}
    found = {
        label: leak
        for label, window in observation.replicas.items()
        if label in seen
        and (leak := leak_of(window, observation.at_s, settings.warm_up_s, settings.recent_s)) is not None
    }
    if not found:
        return None
    label = min(found, key=lambda name: (found[name].left_s, name))
    leak = found[label]
    return SickReplica(
        label=label,
        kind="leaking",
        signal=MEMORY,
        own=leak.level,
        peers=_peers(observation, label, MEMORY, settings),
        left_s=Interval(value=leak.left_s, low=leak.soonest_s, high=leak.latest_s),
        limit=leak.limit,
        sentence=f"replica {label}: {leak.text()}",
    )


def warming(observation: Observation, situation: Situation, settings: PlanningSettings) -> str:
    """What warms up and is slow because of that, in a sentence; "" where nothing does.

    One young replica that is slow among others that are not, or a service all of whose replicas are young and whose
    batches take longer than was learned.
    """
    slow, label = situation.replica_slow, situation.slowest
    if len(slow) >= 2 and slow[-1] >= th.SLOW_REPLICA and slow[-2] < th.SOUND_REPLICA:
        if not warms_up(observation, label, settings):
            return ""
        age = age_s(observation, label) or 0.0
        return f"replica {label} was started {age:.0f} s ago and takes {slow[-1]:.1f} times as long as the others"
    ages = [known for name in observation.replicas if (known := age_s(observation, name)) is not None]
    if not ages and (situation.now.replicas or 2) < 2 and (known := observation.window.last(UPTIME)) is not None:
        ages = [known]
    young = bool(ages) and len(ages) >= len(observation.replicas) and max(ages) < settings.warm_up_s
    if not young or situation.slow is None or situation.slow < th.SLOW_REPLICA:
        return ""
    times = f"{situation.slow:.1f} times"
    return f"every replica was started within the last {max(ages):.0f} s, and batches take {times} as long as usual"


def _level(observation: Observation, label: str, signal: str, settings: PlanningSettings) -> float | None:
    return rd.level(observation.replicas.get(label), signal, rd.recent_s(observation, settings))


def _peers(observation: Observation, label: str, signal: str, settings: PlanningSettings) -> float | None:
    """The median of the other replicas' levels."""
    levels = [_level(observation, name, signal, settings) for name in observation.replicas if name != label]
    known = [value for value in levels if value is not None]
    return float(np.median(known)) if known else None


def _failed(window: MetricWindow, observation: Observation, settings: PlanningSettings) -> float:
    """How many requests of a replica failed in the recent past; infinite where their number is not exported."""
    rates, shares = (window.values.get(name) for name in ("qps", "error_rate"))
    if rates is None or shares is None:
        return float("inf")
    points = int(rd.recent_s(observation, settings) // window.span.step_s) + 1
    return float(np.nansum((rates * shares)[-points:])) * window.span.step_s
