"""A limit of what is taken in, as a planner sees it: what it counts, what is in force, and which lower ones to weigh.

The last lever: where nothing else meets the SLO, requests that would be answered too late are refused at the door, and
the others are answered in time. A limit of 0 or less in a setting is none. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from detection.model import Lever
from tuning.knobs import same_knobs
from tuning.model import LEVER_STEPS, Change, Knob, Observation, Record
from tuning.planning import thresholds as th

LEVER = "admission"
Counted = Literal["queue", "concurrency", "rate"]
_KNOBS: dict[str, Counted] = {"queue_limit": "queue", "concurrency_limit": "concurrency", "rate_limit": "rate"}
KNOBS = tuple(_KNOBS)


@dataclass(frozen=True)
class Limit:
    """A limit. counts: requests that wait, requests that wait or are computed, or requests a second. value: inf where
    there is none. shared: the replicas share it."""

    counts: Counted
    value: float = math.inf
    shared: bool = False

    def of_each(self, replicas: int) -> float:
        """What one of the replicas has of it."""
        return self.value / max(1, replicas) if self.shared else self.value


def limit_of(lever: Lever | None, setting: Mapping[str, Knob]) -> Limit | None:
    """The limit among the knobs of a setting; None where there is none among them."""
    knob = next((name for name in KNOBS if name in setting), None)
    if knob is None:
        return None
    value, shared = setting[knob], lever is not None and lever.options.get("per") == "service"
    known = isinstance(value, int | float) and value > 0
    return Limit(_KNOBS[knob], float(value) if known else math.inf, shared)


def present(observation: Observation) -> dict[str, Knob]:
    """The limit in force as a knob; {} where the service has none, or it cannot be told."""
    setting = observation.settings.get(LEVER)
    if setting is None or setting.useless:
        return {}
    return {knob: setting.values[knob] for knob in KNOBS if knob in setting.values}


def lower(observation: Observation, batch: int, full_s: float, replicas: int, spare_ms: float) -> list[int]:
    """Lower limits that are worth weighing, the highest first, within the lever's bound; [] where none is.

    batch: requests of one batch; full_s: how long a full one takes; spare_ms: what a request may take, with headroom.
    The highest is what the model says just meets that: a request that is taken in last waits for what is computed,
    for the batches before its own, and for its own.
    """
    lever, knobs = observation.service.levers.get(LEVER), present(observation)
    now = limit_of(lever, knobs)
    if lever is None or now is None or full_s <= 0:
        return []
    capacity = batch / full_s
    if now.counts == "rate":
        tops = [share * capacity for share in th.LIMIT_RATES]
    else:
        ahead_s = max(0.0, spare_ms / 1e3 - 2 * full_s)
        fits = capacity * ahead_s + (batch if now.counts == "concurrency" else 0)
        tops = [share * fits for share in th.LIMIT_SHARES]
    least = int(lever.minimum)
    found = {max(least, math.floor(top * (replicas if now.shared else 1))) for top in tops}
    return sorted((value for value in found if value < now.value), reverse=True)


def change(observation: Observation, value: int) -> Change:
    """From the limit in force to a lower one."""
    old = present(observation)
    return Change(lever=LEVER, old=old, new=dict.fromkeys(old, value))


def most_refused(lever: Lever | None) -> float:
    """Largest share of the requests that may be refused, 0..1."""
    told = lever.options.get("max_refused") if lever is not None else None
    return float(told) if isinstance(told, int | float) else 1.0


def lent(observation: Observation, past: Iterable[Record]) -> str:
    """The newest change of slotune's own that lowered the limit, in words, while it is in force; "" where none is."""
    made = [r for r in past if r.phase == "result" and r.body.get("lever") == LEVER and r.body.get("changed")]
    newest = max(made, key=lambda record: record.at_s, default=None)
    if newest is None or newest.kind != LEVER_STEPS[LEVER]:
        return ""
    before, after = newest.body.get("before"), newest.body.get("after")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return ""
    if not same_knobs(dict(after), present(observation)):
        return ""
    return Change(lever=LEVER, old=dict(before), new=dict(after)).text()


def untold(observation: Observation, told: bool) -> str:
    """Why no lower limit is weighed although the lever is there; "" where one is. told: the service's engine tells what
    a limit does, and answers in time can be counted."""
    if LEVER not in observation.service.levers or not present(observation) or told:
        return ""
    if observation.service.engine != "dynamic_batching":
        return "what a limit does to a language model's server is not predicted: set it by hand"
    return "answers in time cannot be counted (no histogram and no median), so that a limit could not be proven"
