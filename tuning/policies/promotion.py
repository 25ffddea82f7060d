"""What follows from a verdict: keep, roll back, or look once longer; and whether anything else should be tried.

Four tables: of a change, of one that cannot be undone, of one that a replica has alone, and of a roll-back. Pure.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from detection.signals import percentile
from tuning.guards.settings import SafetySettings
from tuning.model import Decision, Outcome, Plan
from tuning.policies.tables import ANY, table

Next = Literal["done", "next_attempt", "ask_person"]
Step = Literal["keep", "roll_back", "settle", "adjust_batch_size"]
_VERDICTS = ("improved", "unchanged", "worse", "inconclusive")
_LEANING = "leaning"
"""Inconclusive, and the whole interval of the effect says better: not sure enough to be told as a success, and a change
that most probably helps. To undo it would most probably bring the trouble back."""
_RESOLVED = (True, False, None)
_BOOL = (True, False)
_NOT_RESOLVED = frozenset({False, None})


class Rule(NamedTuple):
    """following: the next attempt, or a person once `safety.max_attempts` levers were tried. reason: {why} is the
    outcome's."""

    step: Step
    next: Literal["done", "following", "ask_person"]
    reason: str


_FREE = "It made no difference, and it is free and harmless."
_NOT_FREE = "It made no difference, and it is not free."
_MET = "{p95} is under its objective in two looks, which could not tell how much of it the change did: {why}"
_LEANS = "{p95} fell as far as can be told, and is not under its objective yet: {why}"
_LEANS_MET = "{p95} fell as far as can be told, and is under its objective: {why}"
# (verdict, resolved, looked twice, free and harmless)
CHANGE = table(
    ((*_VERDICTS, _LEANING), _RESOLVED, _BOOL, _BOOL),
    [
        (("worse", ANY, ANY, ANY), Rule("roll_back", "following", "{p95} or a guard metric got worse: {why}")),
        (("inconclusive", frozenset({True, None}), False, ANY), Rule("settle", "done", "One longer look: {why}")),
        # However much of it a longer look could show, it is not enough: the time is another change's.
        (
            ("inconclusive", False, False, ANY),
            Rule("roll_back", "following", "{p95} is over its objective, and nothing shows that it helps: {why}"),
        ),
        # Undoing it would bring back a trouble that is over as far as anybody can see; what costs is leased and tested.
        (("inconclusive", True, True, ANY), Rule("keep", "done", _MET)),
        (
            ("inconclusive", _NOT_RESOLVED, True, ANY),
            Rule("roll_back", "following", "Two looks could not show that it helps: {why}"),
        ),
        # A longer look could make it surer, and no other step should follow: it is met, and most probably by it.
        ((_LEANING, True, ANY, ANY), Rule("keep", "done", _LEANS_MET)),
        ((_LEANING, None, False, ANY), Rule("settle", "done", "One longer look: {why}")),
        ((_LEANING, None, True, ANY), Rule("keep", "following", _LEANS)),
        ((_LEANING, False, ANY, ANY), Rule("keep", "following", _LEANS)),
        (("improved", True, ANY, ANY), Rule("keep", "done", "{p95} fell and is under its objective.")),
        (
            ("improved", None, False, ANY),
            Rule("settle", "done", "{p95} fell; one longer look tells whether it is enough."),
        ),
        (("improved", None, True, ANY), Rule("keep", "following", "{p95} fell, and is not under its objective yet.")),
        (("improved", False, ANY, ANY), Rule("keep", "following", "{p95} fell, and is not under its objective yet.")),
        (("unchanged", True, ANY, True), Rule("keep", "done", _FREE)),
        (("unchanged", _NOT_RESOLVED, ANY, True), Rule("keep", "following", _FREE)),
        (("unchanged", True, ANY, False), Rule("roll_back", "done", _NOT_FREE)),
        (("unchanged", _NOT_RESOLVED, ANY, False), Rule("roll_back", "following", _NOT_FREE)),
    ],
)

_NO_HELP = "It did not help, and there is nothing to undo: {why}"
# (verdict, resolved, looked twice): what was ended cannot be brought back, and is not ended again for the same incident
ONE_WAY = table(
    (_VERDICTS, _RESOLVED, _BOOL),
    [
        (("improved", True, ANY), Rule("keep", "done", "It helped: {why}")),
        (("improved", None, False), Rule("settle", "done", "It helped; one longer look tells whether it is enough.")),
        (("improved", None, True), Rule("keep", "following", "It helped, and that is not enough yet: {why}")),
        (("improved", False, ANY), Rule("keep", "following", "It helped, and that is not enough yet: {why}")),
        (("inconclusive", ANY, False), Rule("settle", "done", "One longer look: {why}")),
        (("inconclusive", True, True), Rule("keep", "done", _MET)),
        (("inconclusive", _NOT_RESOLVED, True), Rule("keep", "following", _NO_HELP)),
        ((frozenset({"unchanged", "worse"}), ANY, ANY), Rule("keep", "following", _NO_HELP)),
    ],
)

_FIRST = "The replica that was changed first"
# (verdict, looked twice): only "improved" goes on; the others keep the old setting until it has shown that it helps
FIRST_REPLICA = table(
    (_VERDICTS, _BOOL),
    [
        (("improved", ANY), Rule("adjust_batch_size", "done", f"{_FIRST} did better: {{why}}")),
        (("inconclusive", False), Rule("settle", "done", "One longer look at the first replica: {why}")),
        (
            ("inconclusive", True),
            Rule(
                "roll_back",
                "following",
                f"{_FIRST} could not be told apart from its unchanged peers in two looks: {{why}}",
            ),
        ),
        (("worse", ANY), Rule("roll_back", "following", f"{_FIRST} did worse than its unchanged peers: {{why}}")),
        (
            ("unchanged", ANY),
            Rule("roll_back", "following", f"{_FIRST} did no better than its unchanged peers: {{why}}"),
        ),
    ],
)

_BACK = "The old setting is back, and {p95} is no worse than before."
_NOT_RESTORED = "The old setting is back, and that did not restore {p95}: {why}"
_SLOWER = "The old setting is back, slower and within the objective: {why}"
# (verdict, resolved, looked twice): a roll-back is never rolled back, the old setting is where a service may be left
UNDOING = table(
    (_VERDICTS, _RESOLVED, _BOOL),
    [
        (("inconclusive", ANY, False), Rule("settle", "done", "One longer look at the roll-back: {why}")),
        (("inconclusive", ANY, True), Rule("keep", "ask_person", _NOT_RESTORED)),
        # What was lent is faster than what it was lent for: that is no harm while the objective is kept.
        (("worse", True, ANY), Rule("keep", "done", _SLOWER)),
        (("worse", _NOT_RESOLVED, ANY), Rule("keep", "ask_person", _NOT_RESTORED)),
        ((frozenset({"improved", "unchanged"}), True, ANY), Rule("keep", "done", _BACK)),
        ((frozenset({"improved", "unchanged"}), _NOT_RESOLVED, ANY), Rule("keep", "following", _BACK)),
    ],
)


def decide(outcome: Outcome, plan: Plan, attempts: int, settings: SafetySettings, looked_twice: bool) -> Decision:
    """Pure. attempts: how many levers were tried for this incident, this one included."""
    if plan.rollback_of is not None:
        rule = UNDOING[outcome.verdict, outcome.resolved, looked_twice]
    elif plan.one_way:
        rule = ONE_WAY[outcome.verdict, outcome.resolved, looked_twice]
    else:
        # Somebody wants the version that was taken away, an answer, or the route: what helped nothing is not harmless.
        free = plan.chosen.cost_per_hour <= 0 and not {"release", "admission", "breaker"} & set(plan.chosen.levers)
        harmless = free and all(guarded.ok for guarded in outcome.guards)
        stays = harmless and settings.keep_free_changes
        rule = CHANGE[_leaning(outcome), outcome.resolved, looked_twice, stays]
    return _decision(rule, outcome, attempts, settings, _name(plan))


def _leaning(outcome: Outcome) -> str:
    """The verdict, told apart by whether an inconclusive one leans to better; a guard that lost says it does not."""
    leans = outcome.verdict == "inconclusive" and outcome.leaning and all(guarded.ok for guarded in outcome.guards)
    return _LEANING if leans else outcome.verdict


def _name(plan: Plan) -> str:
    """The P95 that the plan is about."""
    return percentile(plan.objective.signal if plan.objective is not None else "p95_ms")


def decide_canary(outcome: Outcome, attempts: int, settings: SafetySettings, looked_twice: bool) -> Decision:
    """Pure: what follows for the other replicas from how the changed one did beside them."""
    return _decision(FIRST_REPLICA[outcome.verdict, looked_twice], outcome, attempts, settings)


def _decision(
    rule: Rule, outcome: Outcome, attempts: int, settings: SafetySettings, name: str = "P95"
) -> Decision:
    following: Next = "next_attempt" if attempts < settings.max_attempts else "ask_person"
    then: Next = following if rule.next == "following" else rule.next
    return Decision(step=rule.step, next=then, reason=rule.reason.format(why=outcome.reason, p95=name))
