"""A threshold with `for`, `keep_firing_for` and hysteresis, evaluated on a window alone.

Nothing is remembered between sweeps: the window reaches back over `for_s + keep_firing_for_s`, so a sweep after a
restart says the same as one that never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, Tier


@dataclass(frozen=True, slots=True)
class Rule:
    """signal above (or below) threshold for for_s; lets go when it was past `clear` for keep_firing_for_s.

    base: a signal that must carry enough requests (per second) for the rule's signal to mean anything.
    """

    name: str
    signal: str
    threshold: float
    tier: Tier
    for_s: float = 60.0
    keep_firing_for_s: float = 60.0
    clear: float | None = None
    below: bool = False
    needs_requests: bool = False


@dataclass(frozen=True, slots=True)
class Firing:
    """The state of a rule at the end of a window. since_s: when the breach began, None while not firing. beyond_s: the
    newest sample beyond the limit itself, while it fires; a rule holds on for a while after that."""

    since_s: float | None
    observed: float | None
    reason: str = ""
    beyond_s: float | None = None


def evaluate(rule: Rule, times: FloatArray, values: FloatArray) -> Firing:
    """Runs a rule over a window (arrays of shape (n,), NaN for gaps) and says whether it fires at the end.

    A gap neither breaks nor extends a breach; a breach over gaps longer than for_s starts anew.
    """
    known = np.isfinite(values)
    if not known.any():
        return Firing(None, None, "no samples")
    at, seen = times[known], values[known]
    if rule.below:
        seen_up, limit, clear = -seen, -rule.threshold, -(rule.threshold if rule.clear is None else rule.clear)
    else:
        seen_up, limit, clear = seen, rule.threshold, rule.threshold if rule.clear is None else rule.clear
    if not (seen_up > limit).any():
        return Firing(None, float(seen[-1]))
    gap_s = max(rule.for_s, 3 * float(times[1] - times[0]) if times.size > 1 else 0.0)
    pending: float | None = None
    firing: float | None = None
    beyond: float | None = None
    last_bad = previous = float(at[0])
    for now, value in zip(at.tolist(), seen_up.tolist(), strict=True):
        beyond = now if value > limit else beyond
        if firing is None:
            if value > limit:
                pending = now if pending is None or now - previous > gap_s else pending
                if now - pending >= rule.for_s:
                    firing, last_bad = pending, now
            else:
                pending = None
        elif value > clear:
            last_bad = now
        elif now - last_bad >= rule.keep_firing_for_s:
            firing = pending = None
        previous = now
    return Firing(firing, float(seen[-1]), beyond_s=beyond if firing is not None else None)


def recently(bad: NDArray[np.bool_], grid_s: FloatArray, times_s: FloatArray, within_s: float) -> NDArray[np.bool_]:
    """At which of the times a bad grid point lies no more than within_s back. bad, grid_s: (n,); times_s: (m,)."""
    total = np.concatenate([[0], np.cumsum(bad)])
    last = np.searchsorted(grid_s, times_s + 1e-6, side="right")
    first = np.searchsorted(grid_s, times_s - within_s - 1e-6, side="left")
    out: NDArray[np.bool_] = total[last] > total[first]
    return out
