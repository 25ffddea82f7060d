"""From a verdict to the next step, with the stage between one replica and all of them taken on the way."""

from __future__ import annotations

from typing import Literal

from tuning.loop import act, prove
from tuning.loop.parts import Parts
from tuning.model import Plan

Next = Literal["keep", "roll_back", "settle", "look"]


def verify(parts: Parts, plan: Plan, at_s: float, *, look: int = 1, run: str = "") -> Next:
    """keep, roll_back, settle (one longer look), or look: wait until `prove.look_until_s` and ask again.

    "look" follows where a canary did well (the other replicas are changed here), and where it is too early to judge: a
    task that died while it waited is run again from its beginning, or the queue from before the change still drains.
    """
    if look == 1 and at_s < prove.settle(parts, plan, at_s) - 1.0:
        return "look"
    _, decision = prove.verify_p95(parts, plan, at_s, look=look)
    if decision.step != "adjust_batch_size":
        return decision.step
    receipt = act.pull_lever(parts, plan, "batch_size", at_s, run=run)
    return "look" if receipt.applied else "roll_back"
