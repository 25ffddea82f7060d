"""A change that lands after its end: a call that timed out was given up, or rolled back, and then takes effect.

Nobody waits for it any more, so every sweep looks for it for a while. What is found in force is a change like any
other, only that nobody saw it being made: it becomes an attempt of its own with a claim on the service, and is proven
or undone. Only a change of which a call was never answered can land: where all were, a person has set the value that
was rolled back, and it is left alone. Which of the two it was after an unanswered call cannot be told.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detection.model import make_id
from tuning.attempt import value
from tuning.loop import act, prove, records
from tuning.loop.care import Care
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, OpenChange, Plan, Record
from tuning.policies.reconcile import landed_late
from tuning.query import Query

_log = logging.getLogger(__name__)
_CLOSINGS = ("hold", "roll_back")


def reopen(parts: Parts, at_s: float, care: Care | None = None) -> list[str]:
    """Open again what landed after its end; sentences about what was found, one per change."""
    care = care or Care(parts, at_s)
    claimed = {change.service for change in parts.ledger.open_changes() if change.state != "leased"}
    said = []
    for closing in _closings(parts, at_s):
        if closing.service in claimed or closing.service not in parts.services:
            continue
        found = care.item(
            f"late/{closing.id}",
            f"{closing.service} (a change that may land after its end)",
            lambda closing=closing: _reopen_one(parts, closing, at_s),  # type: ignore[misc]
        )
        if found:
            _log.warning("%s", found)
            said.append(found)
    return said


def _closings(parts: Parts, at_s: float) -> Sequence[Record]:
    """The newest end of each service within `safety.late`, when it left the old setting in force."""
    since_s = at_s - parts.settings.safety.late_s
    ended = [r for r in parts.ledger.find(Query(kinds=_CLOSINGS, since_s=since_s)) if r.body.get("closed")]
    newest = {r.service: r for r in sorted(ended, key=lambda r: (r.at_s, r.id))}
    return [r for r in newest.values() if r.body.get("unmade") and r.at_s <= at_s]


def _reopen_one(parts: Parts, closing: Record, at_s: float) -> str | None:
    plan = records.load(parts.ledger, str(closing.body["plan_id"]), Plan)
    if plan.one_way or _changed_since(parts, closing):
        return None  # what cannot be undone has nothing that could come back
    change = OpenChange(
        plan_id=plan.id,
        service=plan.service,
        incident_id=plan.incident_id,
        state="intended",
        plan=plan,
        opened_at_s=closing.at_s,
    )
    if not landed_late(change, closing.at_s, act.truth(parts, plan), at_s, parts.settings.safety.late_s):
        return None
    found = f"{plan.chosen.text()} is in force after its end: it landed late, or somebody set it."
    again = plan.model_copy(
        update={
            "id": make_id(plan.id, "landed late", closing.at_s),
            "attempt": _last_attempt(parts, plan) + 1,
            "decided_at_s": at_s,
            "tries": plan.tries + 1,
            "reason": f"{found} It was never proven, so it is proven now, or undone.",
        }
    )
    parts.ledger.put(records.plan_record(again))
    act.claim(parts, again, at_s, counted=False)
    if closing.kind == "roll_back":
        # It was on trial already and was put back: it is put back again, without another trial.
        prove.undo(parts, again, at_s)
    return f"{plan.service}: {found}"


def _changed_since(parts: Parts, closing: Record) -> bool:
    """Whether slotune itself has changed this service since: then what is in force is that change's doing."""
    steps = tuple(LEVER_STEPS.values())
    later = Query(kinds=steps, services=(closing.service,), phase="result", since_s=closing.at_s)
    return any(r.at_s > closing.at_s and r.body.get("changed") for r in parts.ledger.find(later))


def _last_attempt(parts: Parts, plan: Plan) -> int:
    plans = parts.ledger.find(Query(kinds=("choose_action",), incident_ids=(plan.incident_id,)))
    return max((known.attempt for r in plans if (known := value(r, Plan)) is not None), default=plan.attempt)
