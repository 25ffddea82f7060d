"""Where a change stands in truth: in force, put back, set again by a person, or replaced by somebody else's value."""

from __future__ import annotations

from dataclasses import replace

from tuning.attempt import Attempt
from tuning.loop.act import truth
from tuning.loop.parts import Parts
from tuning.model import OpenChange
from tuning.policies.reconcile import Found, where


def not_ours_any_more(parts: Parts, attempt: Attempt) -> str | None:
    """Why there is nothing to judge: a person's value is in force, or the old one again. None where the change is."""
    found, words = stands(parts, attempt)
    if found == "foreign":
        return f"Somebody else changed it meanwhile, and that is final: {words}"
    if found == "old" and attempt.plan.rollback_of is None and attempt.receipts_changed:
        return "The old setting is back, and slotune did not do that: it stays."
    return None


def is_back(attempt: Attempt, found: Found) -> bool:
    """Whether the change is in force although it was put back: it landed again, or somebody has set it."""
    return attempt.is_put_back and found in ("new", "mixed")


def is_somebodys(parts: Parts, attempt: Attempt, found: Found, theirs: frozenset[str]) -> bool:
    """Whether all that is in force again is a person's: all replicas have it, and no call may still be on its way. A
    single replica was away when the others were put back. theirs: the levers that a person has set again."""
    rest = set(attempt.plan.chosen.levers) - theirs
    settled = bool(theirs) and (not rest or stands(parts, _only(attempt, rest))[0] == "old")
    return settled or (found == "new" and attempt.answered)


def set_again(parts: Parts, attempt: Attempt) -> frozenset[str]:
    """The levers that were put back, stand at the new value on all replicas again, and had every call answered: no
    late landing explains that, so a person has set them."""
    theirs = set()
    for change in attempt.plan.chosen.changes:
        receipt = attempt.receipt(change.lever)
        if receipt is not None and receipt.answered and stands(parts, _only(attempt, {change.lever}))[0] == "new":
            theirs.add(change.lever)
    return frozenset(theirs)


def _only(attempt: Attempt, levers: set[str]) -> Attempt:
    """The attempt with these levers of its plan alone."""
    chosen = attempt.plan.chosen
    some = chosen.model_copy(update={"changes": tuple(one for one in chosen.changes if one.lever in levers)})
    return replace(attempt, plan=attempt.plan.model_copy(update={"chosen": some}))


def stands(parts: Parts, attempt: Attempt) -> tuple[Found, str]:
    """Where the levers stand. What cannot be read is left to the actuator, which reads before it writes and says what
    is wrong."""
    opened = OpenChange(
        plan_id=attempt.plan.id,
        service=attempt.plan.service,
        incident_id=attempt.plan.incident_id,
        state="made",
        plan=attempt.plan,
        opened_at_s=0.0,
    )
    left = {lever: knobs for lever in attempt.plan.chosen.levers if (knobs := attempt.left(lever)) is not None}
    return where(opened, truth(parts, attempt.plan), left)
