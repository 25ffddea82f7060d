"""Whether a restart healed the replica: beside its peers over the same time, by the signal that named it. Pure.

P95 of the service says whether its promises are kept. Whether the replica is well it cannot say: a leak was never
slow, and one slow replica of many hardly shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detection.model import MetricWindow, Slo
from detection.signals import SIGNALS, shown
from tuning.model import Outcome, SickReplica

WITHIN = 1.2
"""A replica is as fast as its peers within this factor of their median, or where one of them is no faster."""
LESS_MEMORY = 0.97
"""Memory of the next process over that of the one that ended, at most: it begins below where that one was."""
LEAST_POINTS = 3

Replicas = Mapping[str, MetricWindow]


def with_replica(outcome: Outcome, sick: SickReplica, before: Replicas, after: Replicas, slo: Slo) -> Outcome:
    """The outcome of a restart: the service's as it was judged, the verdict by the replica.

    before, after: the replicas' windows of the look before the restart and after it. The next process is whoever was
    not there before, or the same label again. A service that got worse is worse, whatever the replica does.
    """
    if outcome.verdict == "worse":
        return outcome
    healed, words = _healed(sick, before, after, slo)
    reason = f"{words} (the service: {outcome.reason})" if outcome.reason else words
    if healed is None:
        return outcome.model_copy(update={"verdict": "inconclusive", "reason": reason})
    return outcome.model_copy(update={"verdict": "improved" if healed else "unchanged", "reason": reason})


def _healed(sick: SickReplica, before: Replicas, after: Replicas, slo: Slo) -> tuple[bool | None, str]:
    """(whether the next process is well, None where it cannot be told; the sentence)."""
    fresh = sorted(label for label in after if label not in before)
    labels = fresh or ([sick.label] if sick.label in after else [])
    peers = [level for label in before if label != sick.label and (level := _level(after.get(label), sick)) is not None]
    own = [level for label in labels if (level := _level(after[label], sick)) is not None]
    name, now = ", ".join(labels), max(own, default=None) if _worse_is_more(sick) else min(own, default=None)
    what = SIGNALS[sick.signal].title
    if now is None:
        return None, f"the replica that came for {sick.label} shows too little of its {what} yet"
    if sick.kind == "leaking":
        well = now <= LESS_MEMORY * sick.own
        return well, f"{name} uses {_told(sick, now)} of memory, {sick.label} used {_told(sick, sick.own)} before"
    if not peers:
        return None, f"the peers of {name} show too little of their {what} to compare with"
    middle = float(np.median(peers))
    compared = f"{name}: {what} {_told(sick, now)}, its peers {_told(sick, middle)} (before: {_told(sick, sick.own)})"
    if sick.kind == "slow":
        return now <= max(WITHIN * middle, *peers), compared
    if sick.signal == "error_rate":
        return now <= max(slo.error_rate, middle + SIGNALS[sick.signal].floor), compared
    return now >= middle - max(slo.accuracy_drop, SIGNALS[sick.signal].floor), compared


def _worse_is_more(sick: SickReplica) -> bool:
    return SIGNALS[sick.signal].worse != "down"


def _level(window: MetricWindow | None, sick: SickReplica) -> float | None:
    values = window.values.get(sick.signal) if window is not None else None
    known = values[np.isfinite(values)] if values is not None else np.empty(0)
    return float(np.median(known)) if known.size >= LEAST_POINTS else None


def _told(sick: SickReplica, value: float) -> str:
    return shown(sick.signal, value)
