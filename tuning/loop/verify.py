"""From a verdict to the next step, with the stage between one replica and all of them taken on the way."""

from __future__ import annotations

from typing import Literal

from tuning import attempt as attempts
from tuning.attempt import Attempt
from tuning.loop import act, prove
from tuning.loop.parts import Parts
from tuning.model import Decision, Plan

Next = Literal["keep", "roll_back", "settle", "look"]


def verify(parts: Parts, plan: Plan | Attempt, at_s: float, *, look: int = 1, run: str = "") -> Next:
    """keep, roll_back, settle (one longer look), or look: wait until `prove.look_until_s` and ask again.

    "look" follows where a canary did well (the other replicas are changed here), and where it is too early to judge: a
    task that died while it waited is run again from its beginning, or the queue from before the change still drains.
    """
    return verified(parts, attempts.of(parts.ledger, plan), at_s, look=look, run=run)[0]


def verified(parts: Parts, attempt: Attempt, at_s: float, *, look: int = 1, run: str = "") -> tuple[Next, Attempt]:
    """As `verify`, with the attempt as it then stands."""
    if look == 1 and not prove.clock_went_back(attempt, at_s):
        attempt = prove.settled(parts, attempt, at_s)
        if at_s < prove.look_until_s(parts, attempt) - 1.0:
            return "look", attempt
    _, decision, attempt = prove.judged(parts, attempt, at_s, look=look)
    if decision.step != "adjust_batch_size":
        return decision.step, attempt
    # The look took its time: a sweep that took this run for dead may have put the first replica back meanwhile.
    attempt = attempts.of(parts.ledger, attempt.plan)
    receipt, attempt = act.pull(parts, attempt, "batch_size", at_s, run=run)
    if receipt.applied:
        return "look", attempt
    stays = Decision(
        step="roll_back", next="ask_person", reason=f"The other replicas could not follow: {receipt.reason}"
    )
    return "roll_back", prove.decide_otherwise(parts, attempt, stays, receipt.id, at_s)
