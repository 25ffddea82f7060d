"""Which rate comes next: up to the bound or to where an objective breaks, then between what held and what did not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slotune.stress.model import Plan, Step


@dataclass(frozen=True)
class Next:
    """The rate of the next step, at the service. climbing: False once the knee is being narrowed."""

    rate_per_s: float
    climbing: bool = True


@dataclass(frozen=True)
class Done:
    """why: a sentence's end."""

    why: str


_ENDS = {
    "errors": "more requests failed than --stop-errors allows",
    "generator": "the generator could not keep up, so that higher rates would say nothing of the service",
    "interrupted": "it was interrupted",
}


def next_step(steps: Sequence[Step], plan: Plan) -> Next | Done:
    """What follows from the steps so far, in the order in which they ran."""
    if not steps:
        return Next(plan.start_per_s)
    last = steps[-1]
    if last.verdict == "generator" and _once(steps):
        return Next(last.rate_per_s)
    if last.verdict in _ENDS:
        return Done(_ENDS[last.verdict])
    over = [step.rate_per_s for step in steps if step.verdict in ("broken", "stopped")]
    if not over:
        if last.rate_per_s >= plan.bound_per_s * (1 - 1e-9):
            return Done("the bound is reached")
        return Next(min(plan.bound_per_s, last.rate_per_s * plan.growth))
    broke = min(over)
    held = max((step.rate_per_s for step in steps if step.verdict == "met" and step.rate_per_s < broke), default=None)
    if held is None:
        return Done("the objective is broken already at the first rate")
    narrowed = len(steps) - _climbed(steps)
    if broke / held - 1 <= plan.precision:
        return Done("the knee is narrowed down")
    if narrowed >= plan.refinements:
        return Done("the objective broke")
    return Next(math.sqrt(held * broke), climbing=False)


def _once(steps: Sequence[Step]) -> bool:
    """Whether the generator failed at this rate for the first time: something else may have kept the machine busy."""
    return not any(step.verdict == "generator" and step.rate_per_s == steps[-1].rate_per_s for step in steps[:-1])


def _climbed(steps: Sequence[Step]) -> int:
    """How many steps the climb had, the one that broke among them."""
    return next((k + 1 for k, step in enumerate(steps) if step.verdict in ("broken", "stopped")), len(steps))
