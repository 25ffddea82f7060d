"""Every sweep first settles what an earlier run left open: verify it, finish it, undo it, or hand it back.

What follows is decided by `tuning.policies.reconcile` (pure) from the ledger's rows and the truth that is
read back; here it is done. A change whose run is still at work is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from detection.errors import SlotuneError
from detection.model import make_id
from tuning.loop import act, canary, late, lease, prove, records, tell
from tuning.loop.parts import Parts
from tuning.model import Change, OpenChange, Plan, Receipt
from tuning.policies import reconcile
from tuning.query import Query

_log = logging.getLogger(__name__)


def reconcile_all(parts: Parts, at_s: float, *, alive: Callable[[str], bool]) -> list[str]:
    """Settle every open change whose run is gone; sentences about what was done, one per change that moved on.

    alive: whether a run (by its id) is queued or running. One change that cannot be settled holds up no other. First
    come changes that landed after their end: they are open again, and settled like any other.
    """
    done = late.reopen(parts, at_s)
    for change in parts.ledger.open_changes():
        if change.state != "leased" and change.run and alive(change.run):
            continue
        try:
            said = lease.tend(parts, change, at_s) if change.state == "leased" else _settle(parts, change, at_s)
        except SlotuneError as error:
            _log.warning("%s: plan %s stays open: %s", change.service, change.plan_id, error)
            continue
        if said:
            _log.info("%s: plan %s: %s", change.service, change.plan_id, said)
            done.append(f"{change.service}: {said}")
    return done


def _settle(parts: Parts, change: OpenChange, at_s: float) -> str | None:
    plan = change.plan
    stage = canary.stage(parts.ledger, plan)
    if stage is not None and (stage.alone or stage.widening) and parts.ledger.get(plan.inverse().id) is None:
        said = parts.ledger.find(Query(parent_ids=(plan.id,), bodies=False))
        if at_s - max(r.at_s for r in said) < parts.settings.safety.in_flight_s:
            return None
        prove.undo(parts, plan, at_s)
        return f"undone. {stage.first.replica} was changed first, and the run that was to look at it is gone."
    found = reconcile.reconcile(
        change,
        act.truth(parts, plan),
        parts.ledger.find(Query(parent_ids=(plan.id,))),
        at_s,
        in_flight_s=parts.settings.safety.in_flight_s,
        verify_after_s=0.0,
    )
    if found.action == "wait":
        return None
    if found.action == "verify":
        return _verify(parts, change, at_s)
    if found.action == "undo":
        prove.undo(parts, plan, at_s)
        return f"undone. {found.reason}"
    if found.action == "finish":
        return _finish(parts, plan, at_s, found.reason)
    prove.close(parts, plan, at_s, "hold", found.reason, unmade=found.action == "close_unchanged")
    notes = (f"The run that made this change ended early. {found.reason}",)
    tell.email_report(parts, plan, at_s, notes=notes)
    return found.reason


def _verify(parts: Parts, change: OpenChange, at_s: float) -> str | None:
    plan = change.plan
    for one in plan.chosen.changes:
        _missing_receipt(parts, plan, one, change.opened_at_s)
    if at_s < prove.look_until_s(parts, plan) or at_s < prove.settle(parts, plan, at_s):
        return None
    _, decision = prove.verify_p95(parts, plan, at_s)
    if decision.step == "settle":
        if at_s < prove.look_until_s(parts, plan, look=2):
            return None
        prove.verify_p95(parts, plan, at_s, look=2)
    outcome, decision = prove.last_verdict(parts, plan)
    if decision.step == "keep":
        prove.keep(parts, plan, outcome, decision, at_s)
        tell.email_report(parts, plan, at_s, notes=("The run that made this change ended early; a sweep proved it.",))
        return f"verified after its run had gone: {outcome.verdict}, kept"
    prove.roll_back(parts, plan, outcome, decision, at_s)
    return f"verified after its run had gone: {outcome.verdict}, rolled back"


def _missing_receipt(parts: Parts, plan: Plan, change: Change, at_s: float) -> None:
    """The change is there and nobody wrote that down: the read-back is the receipt."""
    receipt_id = make_id(plan.id, change.lever, "receipt")
    if parts.ledger.get(receipt_id) is not None:
        return
    receipt = Receipt(
        id=receipt_id,
        plan_id=plan.id,
        service=plan.service,
        lever=change.lever,
        before=change.old,
        after=change.new,
        applied=True,
        changed=True,
        at_s=at_s,
        reason="found in force after its run had gone; written down from the read-back",
    )
    parts.ledger.update_change(plan.id, "made", records.receipt_record(receipt, plan))


def _finish(parts: Parts, plan: Plan, at_s: float, reason: str) -> str | None:
    inverse = plan.inverse()
    if parts.ledger.get(inverse.id) is None:
        outcome, decision = prove.last_verdict(parts, plan)
        prove.keep(parts, plan, outcome, decision, at_s)
    else:
        # The old setting is in force; an undo that is applied again changes nothing and leaves its receipt.
        prove.undo(parts, plan, at_s)
        stored = records.load(parts.ledger, inverse.id, Plan)
        if at_s < prove.look_until_s(parts, stored):
            return None
        prove.close_rolled_back(parts, plan, at_s)
    tell.email_report(parts, plan, at_s, notes=(reason,))
    return reason
