"""Whether an incident needs another attempt now: a table from how the last one ended to what follows. Pure.

What bounds the attempts is the levers that were really pulled. A hold is looked at again while the incident is still
firing, at most every `safety.hold_again`; one that said "it passes by itself", or whose load or replicas have moved
since, sooner, at most every `safety.passing_again`; one that waits for what a release moved, at the next sweep. A
success that did not last is looked at again as soon as something is wrong that its proof had not seen: the objective
was kept, so that is news. A rule that only holds on for a while, or an alert of others that still stands is none: it is
looked at again like a hold.
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
    "held_as_passing",
    "held_as_fresh",
]
Action = Literal["start", "start_at_news", "start_when_firing", "start_while_firing", "start_if_it_stays", "nothing"]
_FOR_NOW = frozenset({"one_open_change", "services_at_once", "stale_data", "unreadable", "clock"})
"""Guards whose reason goes away by itself: nobody has to do anything before it is worth asking again."""

AFTER: dict[Last, Action] = {
    "none": "start",
    "under_way": "nothing",
    "dry_run": "nothing",
    "worn_out": "nothing",
    "next_attempt": "start",
    "ask_person": "nothing",
    "done": "start_at_news",
    "refused": "nothing",
    "refused_for_now": "start_while_firing",
    "held": "start_while_firing",
    "held_as_passing": "start_if_it_stays",
    "held_as_fresh": "start_when_firing",
}


def next_attempt(
    last: Attempt | None,
    at_s: float,
    settings: SafetySettings,
    *,
    firing: bool,
    wrong_s: float | None = None,
    moved: bool = False,
) -> int | None:
    """The number of the attempt to start now; None while one is under way, or when there is nothing more to try.

    last: the newest attempt (None: there was none). firing: the incident's anomalies are being seen right now.
    wrong_s: when something of it was last seen to be wrong (None: now). moved: what the last attempt saw has changed.
    """
    if last is None:
        return 1
    refusal = last.refusal
    if refusal is not None and refusal.until_s is not None and _how_it_ended(last, settings) in _REFUSED:
        return last.plan.attempt + 1 if at_s >= refusal.until_s else None
    action = AFTER[_how_it_ended(last, settings)]
    quiet_s = at_s - (last.last_s if last.last_s is not None else last.plan.decided_at_s)
    soon_s = min(settings.passing_again_s, settings.hold_again_s)
    least_s = {
        "start_when_firing": 0.0,
        "start_at_news": settings.hold_again_s,
        "start_while_firing": soon_s if moved else settings.hold_again_s,
        "start_if_it_stays": soon_s,
    }
    if action == "start":
        return last.plan.attempt + 1
    if action == "start_at_news" and firing and _is_news(last, at_s, at_s if wrong_s is None else wrong_s):
        return last.plan.attempt + 1
    # A clock that stepped back a little says nothing; one that stepped back far is no reason to wait.
    again = firing and action in least_s and not -least_s[action] < quiet_s < least_s[action]
    return last.plan.attempt + 1 if again else None


def _is_news(last: Attempt, at_s: float, wrong_s: float) -> bool:
    """Whether its last verdict cannot have seen what was wrong at wrong_s. Before that verdict, by a clock that stepped
    back, nothing can be concluded."""
    proven_s = max((outcome.at_s for outcome in last.outcomes.values()), default=last.last_s)
    return proven_s is None or wrong_s > proven_s or at_s < proven_s


_PASSING = frozenset({"healthy", "warming_up"})
"""Causes that are another one soon, or none."""
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
    plan = last.plan
    if not plan.chosen.changes and plan.diagnosis.cause == "fresh_release":
        return "held_as_fresh"
    passing = not plan.chosen.changes and (plan.chosen.meets_slo or plan.diagnosis.cause in _PASSING)
    return "held_as_passing" if passing else "held"
