"""Every sweep first settles what an earlier run left open: verify it, finish it, undo it, or hand it back.

What follows is decided by `tuning.policies.reconcile` (pure) from the ledger's rows and the truth that is
read back; here it is done. A change whose run is still at work is left alone, until it is long overdue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from detection.errors import Temporary
from tuning import attempt as attempts
from tuning.attempt import Attempt
from tuning.loop import act, breaker, late, lease, prove, records, tell
from tuning.loop.care import Care
from tuning.loop.parts import Parts
from tuning.model import Change, OpenChange
from tuning.policies import reconcile, timing
from tuning.policies.lease import covered

_log = logging.getLogger(__name__)


def reconcile_all(parts: Parts, at_s: float, *, alive: Callable[[str], bool]) -> list[str]:
    """Settle every open change whose run is gone; sentences about what was done, one per change that moved on.

    alive: whether a run (by its id) is queued or running. One change that cannot be settled holds up no other: it is
    named, tried again by later sweeps, and handed to a person. First come changes that landed after their end: they are
    open again, and settled like any other.
    """
    care = Care(parts, at_s)
    done = late.reopen(parts, at_s, care)
    opened = parts.ledger.open_changes()
    for change in opened:
        if change.state == "leased" and covered(change, opened):
            continue
        said = care.item(
            f"change/{change.plan_id}",
            f"{change.service} ({change.plan.chosen.text()}, {change.state})",
            lambda change=change: _look_after(parts, change, at_s, alive, care),  # type: ignore[misc]
            about=change,
        )
        if said:
            _log.info("%s: plan %s: %s", change.service, change.plan_id, said)
            done.append(f"{change.service}: {said}")
    for lost in parts.ledger.unreadable_changes():
        care.failed(
            f"unreadable/{lost.plan_id}",
            f"a change of {lost.service}",
            f"its plan {lost.plan_id} is {lost.state} and cannot be read ({lost.reason}): it may be in force, and no "
            "sweep looks after it. A newer slotune may have written it: look at the setting, and update this one.",
        )
    care.end(("change/", "run/", "late/", "unreadable/"))
    return done


def _look_after(parts: Parts, change: OpenChange, at_s: float, alive: Callable[[str], bool], care: Care) -> str | None:
    if change.state == "leased":
        tend = breaker.tend if "breaker" in change.plan.chosen.levers else lease.tend
        return tend(parts, change, at_s)
    attempt = attempts.of(parts.ledger, change.plan)
    if change.run and alive(change.run):
        if not _overdue(parts, attempt, at_s):
            return None
        care.failed(
            f"run/{change.plan_id}",
            f"run {change.run} of {change.service}",
            "it holds a change, is called alive, and has done nothing about it for far longer than it takes: is "
            "tune_service paused, or its queue dead? Sweeps have taken the change over.",
            about=change,
        )
    return _settle(parts, change, attempt, at_s)


def _overdue(parts: Parts, attempt: Attempt, at_s: float) -> bool:
    """Whether a run that looks alive is no longer believed; a clock that stepped back would make it wait for ever."""
    if attempt.claimed_s is not None and at_s < attempt.claimed_s - prove.CLOCK_TOLERANCE_S:
        return True
    service = parts.services.get(attempt.plan.service)
    levers = service.levers if service is not None else {}
    build_s = max((timing.longest_apply_s(levers[n]) for n in attempt.plan.chosen.levers if n in levers), default=0.0)
    return at_s > timing.overdue_s(attempt, parts.settings.verification, parts.settings.safety, build_s)


def _settle(parts: Parts, change: OpenChange, attempt: Attempt, at_s: float) -> str | None:
    plan, stage = change.plan, attempt.stage
    in_flight_s = parts.settings.safety.in_flight_s
    if stage is not None and (stage.alone or stage.widening) and attempt.undo is None:
        quiet_s = at_s - (attempt.last_s if attempt.last_s is not None else change.opened_at_s)
        if 0.0 <= quiet_s < in_flight_s:
            return None
        prove.undo(parts, attempt, at_s)
        return f"undone. {stage.first.replica} was changed first, and the run that was to look at it is gone."
    found = reconcile.reconcile(
        change, act.truth(parts, plan), attempt.records, at_s, in_flight_s=in_flight_s, verify_after_s=0.0
    )
    if found.action == "wait":
        if found.found == "unknown":
            raise Temporary(found.reason)
        return None
    if found.action == "verify":
        return _verify(parts, change, attempt, at_s)
    if found.action == "undo":
        undone = prove.undo(parts, attempt, at_s)
        return f"undone. {found.reason}" if undone else "left as somebody has set it."
    if found.action == "finish":
        return _finish(parts, attempt, at_s, found.reason)
    # Told first: a sweep that dies in between leaves the change open, and nothing ends without a person knowing why.
    _tell(parts, attempt, at_s, f"The run that made this change ended early. {found.reason}")
    prove.close(parts, attempt, at_s, "hold", found.reason, unmade=found.action == "close_unchanged")
    return found.reason


def _tell(parts: Parts, attempt: Attempt, at_s: float, note: str) -> None:
    """The report of an attempt that a sweep ended; one that was told already is told to have ended otherwise."""
    if attempt.report is None:
        tell.email_report(parts, attempt.plan, at_s, notes=(note,))
    else:
        tell.tell_end(parts, attempt.plan, note, at_s)


def _verify(parts: Parts, change: OpenChange, attempt: Attempt, at_s: float) -> str | None:
    plan = attempt.plan
    for one in plan.chosen.changes:
        attempt = _missing_receipt(parts, attempt, one, change.opened_at_s)
    if not prove.clock_went_back(attempt, at_s):
        if at_s < prove.look_until_s(parts, attempt):
            return None
        attempt = prove.settled(parts, attempt, at_s)
        if at_s < prove.look_until_s(parts, attempt):
            return None
    _, decision, attempt = prove.judged(parts, attempt, at_s)
    if decision.step == "settle":
        if at_s < prove.look_until_s(parts, attempt, look=2):
            return None
        _, decision, attempt = prove.judged(parts, attempt, at_s, look=2)
    outcome, decision, attempt = prove.last_judged(parts, attempt)
    if decision.step == "keep":
        prove.keep(parts, plan, outcome, decision, at_s)
        _tell(parts, attempt, at_s, "The run that made this change ended early; a sweep proved it.")
        return f"verified after its run had gone: {outcome.verdict}, kept"
    prove.roll_back(parts, attempt, outcome, decision, at_s)
    return f"verified after its run had gone: {outcome.verdict}, rolled back"


def _missing_receipt(parts: Parts, attempt: Attempt, change: Change, at_s: float) -> Attempt:
    """The change is there and nobody wrote that down: the read-back is the receipt."""
    if attempt.receipt(change.lever) is not None:
        return attempt
    why = "found in force after its run had gone; written down from the read-back"
    record = records.found_record(attempt.plan, change, at_s, why)
    parts.ledger.update_change(attempt.plan.id, "made", record)
    return attempt.plus(record)


def _finish(parts: Parts, attempt: Attempt, at_s: float, reason: str) -> str | None:
    """Write down the end that was reached. Where a roll-back was decided, the old setting is in force: an undo that is
    applied again changes nothing and leaves its receipt."""
    decision = attempt.final_decision
    if attempt.undo is None and (decision is None or decision.step == "keep"):
        outcome, decision, attempt = prove.last_judged(parts, attempt)
        prove.keep(parts, attempt.plan, outcome, decision, at_s)
    else:
        prove.undo(parts, attempt, at_s)
        attempt = attempts.of(parts.ledger, attempt.plan)
        undo = attempt.undo
        if undo is not None and not prove.clock_went_back(undo, at_s) and at_s < prove.look_until_s(parts, undo):
            return None
        prove.close_rolled_back(parts, attempt, at_s)
    _tell(parts, attempt, at_s, reason)
    return reason
