"""How long things take: settling, the looks at a change, and the longest that a harmful change can last. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from detection.model import Lever
from tuning.attempt import Attempt
from tuning.guards.settings import SafetySettings
from tuning.model import Change, Plan
from tuning.verification.settings import VerificationSettings


def settle_s(verification: VerificationSettings, lever: Lever, percentile_source: str = "histogram") -> float:
    """How long to wait after a change before looking: the window behind P95 and the lever's own delay, in seconds."""
    window_s = verification.summary_window_s if percentile_source == "summary" else verification.rate_window_s
    return max(verification.settle_min_s, window_s + lever.effect_delay_s)


def back_s(
    verification: VerificationSettings, lever: Lever, step: Change, percentile_source: str = "histogram"
) -> float:
    """How long to wait after a step back. Replicas that go are gone at once, however long one takes to start: only the
    window behind P95 has to pass."""
    gone = step.lever == "replicas" and any(
        isinstance(old := step.old.get(knob), int | float) and isinstance(new, int | float) and new < old
        for knob, new in step.new.items()
    )
    waited = lever.model_copy(update={"effect_delay_s": 0.0}) if gone else lever
    return settle_s(verification, waited, percentile_source)


def undo_s(verification: VerificationSettings, levers: Mapping[str, Lever], inverse: Plan) -> float:
    """How long to wait after a roll-back: for its own steps, not for what the change was made of or was waiting for
    (replicas that had to start, a queue that drained), and never longer than that."""
    sources = ("histogram", "summary")
    own_s = [
        back_s(verification, levers[step.lever], step, source)
        for step in inverse.chosen.changes
        for source in sources
        if step.lever in levers
    ]
    return min(inverse.settle_s, max(own_s, default=inverse.settle_s))


def look_until_s(
    attempt: Attempt, verification: VerificationSettings, look: int = 1, now_s: float | None = None
) -> float:
    """When the first (1) or the longer, second (2) look at a change is over; absolute, so that a restart waits on.

    now_s: the clock of whoever waits. A change that seems to be made in the future was made before the clock stepped
    back: no wait is longer than the whole of it, and the verdict sees the step.
    """
    start_s = attempt.plan.decided_at_s if attempt.made_s is None else attempt.made_s
    longer_s = verification.longer_look_s if look > 1 else 0.0
    begun_s = start_s if now_s is None else min(start_s, now_s)
    return begun_s + attempt.settle_s + verification.look_s + longer_s


def overdue_s(attempt: Attempt, verification: VerificationSettings, safety: SafetySettings, build_s: float) -> float:
    """When a run that holds a change and has not ended it is no longer believed to be at work, however alive it looks.

    build_s: how long the change itself may take before it is made (INT8 is built first). A change on two stages is
    settled and looked at twice, and so is one that is rolled back.
    """
    stages = 2 + (attempt.stage is not None)
    looks_s = attempt.settle_s + verification.look_s + verification.longer_look_s + verification.drain_max_s
    start_s = attempt.claimed_s if attempt.claimed_s is not None else attempt.plan.decided_at_s
    return start_s + build_s + stages * looks_s + safety.in_flight_s + safety.stuck_after_s


_APPLY_LIMITS = (
    "rollout_timeout_s",
    "load_timeout_s",
    "unschedulable_after_s",
    "restart_timeout_s",
    "budget_timeout_s",
    "ready_timeout_s",
)


def longest_apply_s(lever: Lever) -> float:
    """How long an actuator may take to make a change, by the limits in its own settings; INT8 is built first."""
    build = lever.options.get("build")
    limits = [lever.options.get(name) for name in _APPLY_LIMITS]
    if isinstance(build, Mapping):
        limits += [build.get("deadline_s"), build.get("pending_s")]
    return sum(float(limit) for limit in limits if isinstance(limit, int | float))


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
