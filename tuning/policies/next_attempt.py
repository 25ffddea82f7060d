"""Whether an incident needs another attempt now: a table from how the last one ended to what follows. Pure.

What bounds the attempts is the levers that were really pulled. A hold, or a success that did not last, is looked at
again while the incident is still firing, at most every `safety.hold_again`.
"""

from __future__ import annotations

from typing import Literal

from tuning.attempt import Attempt
from tuning.guards.settings import SafetySettings

Last = Literal[
    "none",
    "under_way",
    "dry_run",
    "worn_out",
    "next_attempt",
    "ask_person",
    "done",
    "refused",
    "refused_for_now",
    "held",
]
Action = Literal["start", "start_while_firing", "nothing"]
_FOR_NOW = frozenset({"one_open_change", "services_at_once", "stale_data", "unreadable", "clock"})
"""Guards whose reason goes away by itself: nobody has to do anything before it is worth asking again."""

AFTER: dict[Last, Action] = {
    "none": "start",
    "under_way": "nothing",
    "dry_run": "nothing",
    "worn_out": "nothing",
    "next_attempt": "start",
    "ask_person": "nothing",
    "done": "start_while_firing",
    "refused": "nothing",
    "refused_for_now": "start_while_firing",
    "held": "start_while_firing",
}


def next_attempt(last: Attempt | None, at_s: float, settings: SafetySettings, *, firing: bool) -> int | None:
    """The number of the attempt to start now; None while one is under way, or when there is nothing more to try.

    last: the newest attempt (None: there was none). firing: the incident's anomalies are being seen right now.
    """
    if last is None:
        return 1
    refusal = last.refusal
    if refusal is not None and refusal.until_s is not None and _how_it_ended(last, settings) in _REFUSED:
        return last.plan.attempt + 1 if at_s >= refusal.until_s else None
    action = AFTER[_how_it_ended(last, settings)]
    quiet_s = at_s - (last.last_s if last.last_s is not None else last.plan.decided_at_s)
    again = firing and not -settings.hold_again_s < quiet_s < settings.hold_again_s
    if action == "start" or (action == "start_while_firing" and again):
        return last.plan.attempt + 1
    return None


_REFUSED = frozenset({"refused", "refused_for_now"})


def _how_it_ended(last: Attempt, settings: SafetySettings) -> Last:
    if last.plan.dry_run:
        return "dry_run"
    if last.report is None:
        return "under_way"
    if last.tries >= settings.max_attempts:
        return "worn_out"
    if last.final_decision is not None:
        return last.final_decision.next
    if last.refusal is not None:
        return "refused_for_now" if last.refusal.guard in _FOR_NOW else "refused"
    return "held"
