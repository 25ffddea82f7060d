"""Where the minutes over the SLO go: what had to happen before they could end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.control.runs import Action

UNSEEN, UNDECIDED, FIRST, BETWEEN, LATER, AFTER = (
    "before the SLO's rule speaks",
    "until the first change",
    "until the first change takes effect",
    "under the first change",
    "until a later change takes effect",
    "under later changes",
)
PHASES = (UNSEEN, UNDECIDED, FIRST, BETWEEN, LATER, AFTER)
"""In their order. Nobody who watches the SLO can spare the first; the third is what the lever itself takes."""


def spent(
    over_s: Sequence[float], stretch_s: float, actions: Sequence[Action], spoke_s: float | None
) -> dict[str, float]:
    """Minutes by phase; phases without any are absent.

    over_s: starts of the stretches over the SLO. spoke_s: when the SLO's rule speaks with nothing done (None: never).
    """
    forward = [action for action in actions if not action.undo]
    found: dict[str, float] = {}
    for at_s in over_s:
        phase = _phase(at_s, forward, spoke_s)
        found[phase] = found.get(phase, 0.0) + stretch_s / 60.0
    return found


def _phase(at_s: float, forward: Sequence[Action], spoke_s: float | None) -> str:
    made = [action for action in forward if action.at_s <= at_s]
    if not made:
        return UNSEEN if spoke_s is None or at_s < spoke_s else UNDECIDED
    waits = at_s < made[-1].at_s + made[-1].effect_s
    if len(made) == 1:
        return FIRST if waits else BETWEEN
    return LATER if waits else AFTER


def total(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sum over incidents, in the phases' order, rounded to a tenth."""
    return {phase: round(sum(one.get(phase, 0.0) for one in several), 1) for phase in PHASES}
