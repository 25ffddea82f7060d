"""What ran out first: signals of the service, read from Prometheus, beside the rates at which they were seen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import MetricWindow
from detection.signals import shown, title
from slotune.stress.model import Saturation, Step


@dataclass(frozen=True)
class Limit:
    """full: the level at which a signal has reached its limit. of_signal: the limit is this share of another signal's
    value. grows: the signal is a queue, which has none, but stands once it is this many times what it was, and `least`.
    while_batches_grow: False where it is no limit as long as batches have room: a server that always computes answers
    more with larger batches."""

    signal: str
    full: float = 1.0
    of_signal: str = ""
    grows: float = 0.0
    least: float = 0.0
    while_batches_grow: bool = True


_FILL = Limit("rows_per_batch", 0.9, of_signal="batch_size")
LIMITS = (
    Limit("busy", 0.9, while_batches_grow=False),
    Limit("gpu_util", 0.9, while_batches_grow=False),
    Limit("gpu_memory", 0.95),
    Limit("kv_usage", 0.95),
    _FILL,
    Limit("queue_depth", grows=4.0, least=5.0),
)
"""Shares of what is there: a service that computes 90 % of the time answers at random arrivals with a queue of nine."""
SIGNALS = tuple(dict.fromkeys([*(one.signal for one in LIMITS), *(one.of_signal for one in LIMITS if one.of_signal),
                               "replicas", "emulated"]))  # fmt: skip


def saturated(
    window: MetricWindow, steps: Sequence[Step], most_replicas: float | None
) -> tuple[tuple[Saturation, ...], tuple[str, ...]]:
    """(what reached its limit, by the rate at which it first had; what cannot be told).

    window: of the whole run. most_replicas: the bound of the replicas lever, None: there is none. A signal is taken at
    the end of a step, where its rate window holds the most of it.
    """
    rising = sorted((step for step in steps if step.verdict != "generator"), key=lambda step: step.rate_per_s)
    found, untold = [], []
    for limit in LIMITS:
        seen = [(step, _at_end(window, limit, step)) for step in rising]
        known = [(step, value) for step, value in seen if value is not None]
        if not known:
            untold.append(title(limit.signal))
            continue
        if not limit.while_batches_grow:
            known = [(step, value) for step, value in known if not _has_room(window, step)]
        if known and (hit := _first(limit, known)) is not None:
            found.append(hit)
    replicas = [(step, _last(window, "replicas", step)) for step in rising]
    counts = [(step, value) for step, value in replicas if value is not None]
    if counts and most_replicas is not None and len({value for _, value in counts}) > 1:
        found += [
            Saturation("replicas", step.rate_per_s, value, f"all {value:.0f} replicas that services.yaml allows ran")
            for step, value in counts
            if value >= most_replicas
        ][:1]
    return tuple(sorted(found, key=lambda one: one.at_per_s)), tuple(untold)


def _first(limit: Limit, known: Sequence[tuple[Step, float]]) -> Saturation | None:
    calm = known[0][1]
    for step, value in known:
        if limit.grows:
            if value >= max(limit.least, limit.grows * calm):
                said = f"{title(limit.signal)}: {shown(limit.signal, value)}, at the first rate {calm:.3g}"
                return Saturation(limit.signal, step.rate_per_s, value, said)
        elif value >= limit.full:
            said = f"{title(limit.signal)}: {value:.0%}" + (" of its limit" if limit.of_signal else "")
            return Saturation(limit.signal, step.rate_per_s, value, said)
    return None


def _has_room(window: MetricWindow, step: Step) -> bool:
    """Whether batches are not full yet; where nobody knows, they are taken to be."""
    fill = _at_end(window, _FILL, step)
    return fill is not None and fill < _FILL.full


def _at_end(window: MetricWindow, limit: Limit, step: Step) -> float | None:
    value = _last(window, limit.signal, step)
    if value is None or not limit.of_signal:
        return value
    most = _last(window, limit.of_signal, step)
    # a limit of one row or one sequence is always full
    return value / most if most is not None and most > 1 else None


def _last(window: MetricWindow, signal: str, step: Step) -> float | None:
    """The newest value within a step; None where there is none."""
    if signal not in window.values:
        return None
    inside = window.between(step.start_s, step.end_s).values[signal]
    inside = inside[np.isfinite(inside)]
    return float(inside[-1]) if inside.size else None
