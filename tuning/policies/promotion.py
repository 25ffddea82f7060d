"""What follows from a verdict: keep, roll back, or look once longer; and whether anything else should be tried."""

from __future__ import annotations

from typing import Literal

from detection.model import Lever
from tuning.guards.settings import SafetySettings
from tuning.model import Decision, Outcome, Plan
from tuning.verification.settings import VerificationSettings

Next = Literal["done", "next_attempt", "ask_person"]


def decide(outcome: Outcome, plan: Plan, attempts: int, settings: SafetySettings, looked_twice: bool) -> Decision:
    """Pure. attempts: how many levers were tried for this incident, this one included.

    worse -> roll back at once. unchanged -> roll back, unless free and harmless. inconclusive -> one longer look,
    then roll back. improved and resolved -> keep, done. improved, not resolved -> keep and try the next lever.
    """
    if plan.rollback_of is not None:
        return _rolled_back(outcome, attempts, settings, looked_twice)
    following = _following(attempts, settings)
    if outcome.verdict == "worse":
        return Decision(step="roll_back", next=following, reason=f"P95 or a guard metric got worse: {outcome.reason}")
    if outcome.verdict == "inconclusive":
        if not looked_twice:
            return Decision(step="settle", next="done", reason=f"One longer look: {outcome.reason}")
        return Decision(
            step="roll_back", next=following, reason=f"Two looks could not show that it helps: {outcome.reason}"
        )
    if outcome.verdict == "improved":
        if outcome.resolved:
            return Decision(step="keep", next="done", reason="P95 fell and is under its objective.")
        if outcome.resolved is None and not looked_twice:
            return Decision(step="settle", next="done", reason="P95 fell; one longer look tells whether it is enough.")
        return Decision(step="keep", next=following, reason="P95 fell, and is not under its objective yet.")
    free = plan.chosen.cost_per_hour <= 0 and all(guarded.ok for guarded in outcome.guards)
    if free and settings.keep_free_changes:
        done: Next = "done" if outcome.resolved else following
        return Decision(step="keep", next=done, reason="It made no difference, and it is free and harmless.")
    done = "done" if outcome.resolved else following
    return Decision(step="roll_back", next=done, reason="It made no difference, and it is not free.")


def decide_canary(outcome: Outcome, attempts: int, settings: SafetySettings, looked_twice: bool) -> Decision:
    """Pure: what follows for the other replicas from how the changed one did beside them.

    Only "improved" goes on: the others keep the old setting until the change has shown that it helps.
    """
    if outcome.verdict == "improved":
        return Decision(
            step="adjust_batch_size",
            next="done",
            reason=f"The replica that was changed first did better: {outcome.reason}",
        )
    if outcome.verdict == "inconclusive" and not looked_twice:
        return Decision(step="settle", next="done", reason=f"One longer look at the first replica: {outcome.reason}")
    words = {
        "worse": "did worse than its unchanged peers",
        "unchanged": "did no better than its unchanged peers",
        "inconclusive": "could not be told apart from its unchanged peers in two looks",
    }[outcome.verdict]
    return Decision(
        step="roll_back",
        next=_following(attempts, settings),
        reason=f"The replica that was changed first {words}: {outcome.reason}",
    )


def _rolled_back(outcome: Outcome, attempts: int, settings: SafetySettings, looked_twice: bool) -> Decision:
    """A roll-back is never rolled back: the old setting is where slotune is allowed to leave a service."""
    if outcome.verdict == "inconclusive" and not looked_twice:
        return Decision(step="settle", next="done", reason=f"One longer look at the roll-back: {outcome.reason}")
    if outcome.verdict in ("worse", "inconclusive"):
        return Decision(
            step="keep",
            next="ask_person",
            reason=f"The old setting is back, and that did not restore P95: {outcome.reason}",
        )
    done: Next = "done" if outcome.resolved else _following(attempts, settings)
    return Decision(step="keep", next=done, reason="The old setting is back, and P95 is no worse than before.")


def _following(attempts: int, settings: SafetySettings) -> Next:
    return "next_attempt" if attempts < settings.max_attempts else "ask_person"


def settle_s(verification: VerificationSettings, lever: Lever, percentile_source: str = "histogram") -> float:
    """How long to wait after a change before looking: the window behind P95 and the lever's own delay, in seconds."""
    window_s = verification.summary_window_s if percentile_source == "summary" else verification.rate_window_s
    return max(verification.settle_min_s, window_s + lever.effect_delay_s)


def worst_case_rollback_s(
    verification: VerificationSettings,
    safety: SafetySettings,
    lever: Lever,
    *,
    watch_every_s: float = 300.0,
    one_replica_first: bool = False,
) -> float:
    """The longest time, in seconds, that a harmful change can stay anywhere, by these settings.

    The worker dies right after the change, and the sweep that is under way dies with it: Airflow notices both after
    `dead_task_s`; the next sweep finds the change (`watch_every_s`, after an answer can no longer be on its way); both
    looks are needed; both control calls take their full time; the old setting needs its own delay. one_replica_first:
    before all that, the first replica had the change for a settle time and both looks, and seemed to do better with it.
    Time in which no part of Airflow runs comes on top, and so does, once per settle time and up to
    `verification.drain_max_s`, a queue from before the change that is still draining.
    """
    found_s = safety.dead_task_s + max(watch_every_s, safety.in_flight_s) + safety.control_timeout_s
    settled_s = max(settle_s(verification, lever), settle_s(verification, lever, "summary"))
    looks_s = verification.look_s + verification.longer_look_s
    first_s = safety.control_timeout_s + settled_s + looks_s if one_replica_first else 0.0
    return first_s + found_s + settled_s + looks_s + safety.control_timeout_s + lever.effect_delay_s
