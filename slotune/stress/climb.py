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
    over = broken_rates(steps)
    if last.verdict == "broken" and over == [last.rate_per_s]:
        return Next(last.rate_per_s)  # chance breaks a rate that is well carried now and then: once more, to be sure
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


def broken_rates(steps: Sequence[Step]) -> list[float]:
    """The rates that broke an objective; none that was met when it was tried again, or below one that was met."""
    met = max((step.rate_per_s for step in steps if step.verdict == "met"), default=0.0)
    broken = [step.rate_per_s for step in steps if step.verdict in ("broken", "stopped")]
    return [rate for rate in broken if rate > met]


def _once(steps: Sequence[Step]) -> bool:
    """Whether the generator failed at this rate for the first time: something else may have kept the machine busy."""
    return not any(step.verdict == "generator" and step.rate_per_s == steps[-1].rate_per_s for step in steps[:-1])


def _climbed(steps: Sequence[Step]) -> int:
    """How many steps the climb had, those at the rate that broke among them."""
    over = broken_rates(steps)
    top = next((step.rate_per_s for step in steps if step.rate_per_s in over), None)
    first = next((k for k, step in enumerate(steps) if step.rate_per_s == top), len(steps))
    return first + sum(step.rate_per_s == top for step in steps)
