"""How much more (or less) than its calibrated threshold a service's statistical alarms need before they are acted on.

One number per service, 1 as calibrated. It moves one small step at a time, within bounds, and only where the labelled
incidents of the last weeks, judged again with the step, would have come out better: the step and that comparison are a
record. When the following period is worse than the one before, the step is taken back. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

DAY_S = 86_400.0
LOOSEST, STRICTEST = 0.8, 2.0
"""Bounds of the factor: a fifth below its calibrated threshold lies ordinary noise, and beyond twice the threshold is
what nobody overlooks."""
STEP = 1.15
BACK_S = 28 * DAY_S
"""Labels of so long are judged again."""
PERIOD_S = 28 * DAY_S
"""How long a step stands before it is compared with as long before it; there is no further step meanwhile."""
LEAST = 6
"""Labelled incidents that a step, and the judgement of one, rests on at least."""
FALSE_SHARE = 0.2
"""Of the alarms that were acted on; beyond it a service is worth being stricter with."""
MISS_COST = 2.0
"""One real problem missed weighs as much as two false alarms."""
Kind = Literal["stricter", "looser", "undone"]


@dataclass(frozen=True)
class Seen:
    """A labelled incident of the statistical detectors. reach: its highest score in units of the calibrated act
    threshold. weight: of its label, 1 a person's word."""

    at_s: float
    reach: float
    real: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Tally:
    """Sums of weights: real problems acted on and missed, false alarms acted on."""

    found: float
    missed: float
    false: float

    @property
    def cost(self) -> float:
        """In false alarms."""
        return self.false + MISS_COST * self.missed

    @property
    def text(self) -> str:
        return f"{self.found:g} found, {self.missed:g} missed, {self.false:g} false"


@dataclass(frozen=True)
class Step:
    """A change of a service's factor. before, after: the backtest that justified it (of a step that is taken back: the
    period before it and the one after it)."""

    kind: Kind
    at_s: float
    was: float
    now: float
    before: Tally
    after: Tally
    reason: str


def tally(seen: Sequence[Seen], factor: float) -> Tally:
    """What these incidents would have come to with a factor."""
    real = [one for one in seen if one.real]
    found = sum(one.weight for one in real if one.reach > factor)
    false = sum(one.weight for one in seen if not one.real and one.reach > factor)
    return Tally(found, sum(one.weight for one in real) - found, false)


def next_step(seen: Sequence[Seen], steps: Sequence[Step], at_s: float) -> Step | None:
    """What to do now; None where nothing is to be done. steps: those made so far, oldest first."""
    factor = steps[-1].now if steps else 1.0
    last = steps[-1] if steps else None
    if last is not None and last.kind != "undone":
        if at_s - last.at_s < PERIOD_S:
            return None
        if (back := _worse(seen, last, at_s)) is not None:
            return back
    if last is not None and last.kind == "undone" and at_s - last.at_s < PERIOD_S:
        return None
    recent = [one for one in seen if at_s - BACK_S <= one.at_s <= at_s]
    if len(recent) < LEAST:
        return None
    before = tally(recent, factor)
    acted = before.found + before.false
    if before.false > before.missed and acted and before.false / acted > FALSE_SHARE:
        return _better("stricter", recent, factor, min(STRICTEST, factor * STEP), before, at_s)
    if before.missed > before.false:
        return _better("looser", recent, factor, max(LOOSEST, factor / STEP), before, at_s)
    return None


def _better(kind: Kind, recent: Sequence[Seen], was: float, now: float, before: Tally, at_s: float) -> Step | None:
    """The step, where these incidents would have cost less with it."""
    after, now = tally(recent, now), round(now, 4)
    if now == was or after.cost >= before.cost:
        return None
    told = f"of {len(recent)} labelled incidents of the last {BACK_S / DAY_S:.0f} days: {before.text} at {was:g}"
    return Step(kind, at_s, was, now, before, after, f"{kind}: {told}, {after.text} at {now:g}")


def _worse(seen: Sequence[Seen], last: Step, at_s: float) -> Step | None:
    """The way back, where the period after the last step cost more than the one before it."""
    until_s = last.at_s + PERIOD_S
    earlier = [one for one in seen if last.at_s - PERIOD_S <= one.at_s < last.at_s]
    later = [one for one in seen if last.at_s <= one.at_s < until_s]
    if len(later) < LEAST:
        return None
    before, after = tally(earlier, last.was), tally(later, last.now)
    instead = tally(later, last.was)
    # a worse month by itself is no fault of the step: without it, it has to have been better
    if after.cost <= before.cost or instead.cost >= after.cost:
        return None
    told = f"the {PERIOD_S / DAY_S:.0f} days after it came to {after.text}, those before to {before.text}"
    reason = f"undone: {told}, and at {last.was:g} they had come to {instead.text}"
    return Step("undone", at_s, last.now, last.was, before, after, reason)
