"""Whether what a hold rested on has moved since, so that it is worth another look before its time. Pure."""

from __future__ import annotations

import numpy as np

from detection.model import MetricWindow

LOOK_S = 60.0
"""A level is a median over this long: shorter, a burst or a slow phase of a neighbour would count as a change."""
_WORDS = {"qps": "the load", "replicas": "the number of ready replicas"}


def moved(window: MetricWindow | None, then_s: float, now_s: float, share: float) -> str:
    """What differs now from when the plan was made, as a sentence; "" where nothing does, or nothing can be told.

    window: the service's look-back, which reaches from before `then_s` to `now_s`. share: of the level then, by which
    the load or the number of ready replicas has to have risen or fallen. What overlaps with the look back then is no
    news yet.
    """
    if window is None or now_s - then_s < LOOK_S:
        return ""
    for signal, name in _WORDS.items():
        then, now = (_level(window, signal, at_s) for at_s in (then_s, now_s))
        if then is None or now is None:
            continue
        low, high = sorted((then, now))
        if high > 0 and high >= (1 + share) * low:
            return f"{name} has moved from {then:.3g} to {now:.3g} since"
    return ""


def _level(window: MetricWindow, signal: str, at_s: float) -> float | None:
    values = window.between(at_s - LOOK_S, at_s).values.get(signal)
    finite = values[np.isfinite(values)] if values is not None else np.empty(0)
    return float(np.median(finite)) if finite.size else None
