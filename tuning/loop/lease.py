"""A leased change, tended by every sweep: left alone, renewed, or handed back in steps, each settled and looked at.

What is due is decided by `tuning.policies.lease` (pure). A step that made P95 worse is taken back; the lease goes on.
"""

from __future__ import annotations

import numpy as np

from detection.model import MetricWindow, make_id
from tuning.guards import Unreadable
from tuning.knobs import same_knobs
from tuning.loop import act, prove, records, tell
from tuning.loop.observe import look_back
from tuning.loop.parts import Parts
from tuning.model import Change, OpenChange, Option, Plan, Record, Setting
from tuning.policies import lease
from tuning.query import Query
from tuning.report.lease_mail import lease_mail


def tend(parts: Parts, change: OpenChange, at_s: float) -> str | None:
    """What was done about a leased change now, in a sentence; None when nothing was."""
    plan, service = change.plan, parts.service(change.service)
    truth = act.truth(parts, plan)
    if any(isinstance(setting, Unreadable) for setting in truth.values()):
        return None
    held = {lever: setting for lever, setting in truth.items() if isinstance(setting, Setting)}
    step = _last_step(parts, plan)
    if step is not None:
        if at_s < prove.look_until_s(parts, step):
            return None
        if (said := _judge_step(parts, change, step, at_s)) is not None:
            return said
    if all(same_knobs(c.old, held[c.lever].values) for c in plan.chosen.changes if c.lever in held):
        prove.close(parts, plan, at_s, "keep", "The temporary change was handed back.")
        return "handed back"
    window = parts.source.read([service], ("qps", "queue_ms", "p95_ms"), look_back(parts, at_s)).get(service.name)
    kept = parts.ledger.find(Query(kinds=("keep",), parent_ids=(plan.id,)))
    renewed = [r for r in kept if r.body.get("renewed")]
    decision = lease.due(change, window, at_s, parts.settings.safety, renewals=len(renewed))
    if decision.action == "renew":
        _renew(parts, plan, at_s, decision.reason)
        return decision.reason
    if decision.action == "ask_person":
        return _ask(parts, plan, at_s, decision.reason)
    if decision.action == "hand_back" and not _resting(renewed, change, at_s):
        return _step_back(parts, plan, held, window, at_s, decision.reason)
    return None


def _last_step(parts: Parts, plan: Plan) -> Plan | None:
    """The newest step back (a plan of its own that undoes part of this one); None before the first."""
    found = records.find(parts.ledger, "roll_back", Plan, parent_id=plan.id, phase="intent")
    return records.newest(found)


def _judge_step(parts: Parts, change: OpenChange, step: Plan, at_s: float) -> str | None:
    """The verdict on the last step back; a sentence when the step had to be taken back."""
    if prove.made_at_s(parts, step) is None or parts.ledger.get(step.inverse().id) is not None:
        return None
    outcome, _ = prove.verify_p95(parts, step, at_s)
    if outcome.verdict != "worse" or outcome.resolved:
        return None
    prove.undo(parts, step, at_s)
    reason = f"Handing back made P95 worse, so the step was taken back: {outcome.reason}"
    _renew(parts, change.plan, at_s, reason)
    return reason


def _resting(renewed: list[Record], change: OpenChange, at_s: float) -> bool:
    """After a step was taken back, or a lease renewed, nothing is handed back before the lease ends again."""
    return bool(renewed) and change.expires_at_s is not None and at_s < change.expires_at_s


def _renew(parts: Parts, plan: Plan, at_s: float, reason: str) -> None:
    record = _record(plan, at_s, reason, renewed=True)
    parts.ledger.update_change(plan.id, "leased", record, expires_at_s=at_s + (plan.lease_s or 3600.0))


def _ask(parts: Parts, plan: Plan, at_s: float, reason: str) -> str | None:
    """A person is asked once, by mail; the lease stays as it is until somebody answers with a change of settings."""
    record_id = make_id(plan.id, "lease", "ask a person")
    if parts.ledger.get(record_id) is not None or tell.tell_all(parts, lease_mail(plan, reason, at_s)) is None:
        return None
    parts.ledger.put(_record(plan, at_s, reason).model_copy(update={"id": record_id}))
    return reason


def _step_back(
    parts: Parts, plan: Plan, held: dict[str, Setting], window: MetricWindow | None, at_s: float, reason: str
) -> str | None:
    service = parts.service(plan.service)
    for change in plan.chosen.changes:
        step = lease.next_step_back(
            change,
            held[change.lever],
            parts.settings.safety,
            qps=_newest(window, "qps"),
            limit_qps=plan.revert_below_qps,
        )
        if step is None:
            continue
        back = _plan_of(plan, step, at_s, reason)
        parts.ledger.put(records.plan_record(back))
        receipt = parts.actuator(service, change.lever).apply(service, step, key=f"{back.id}:{change.lever}")
        receipt = receipt.model_copy(
            update={"id": make_id(back.id, change.lever, "receipt"), "plan_id": back.id, "service": plan.service}
        )
        parts.ledger.put(records.receipt_record(receipt, back))
        return f"handing back: {step.text()}. {reason}"
    return None


def _plan_of(plan: Plan, step: Change, at_s: float, reason: str) -> Plan:
    return plan.model_copy(
        update={
            "id": make_id(plan.id, "hand back", at_s),
            "decided_at_s": at_s,
            "rollback_of": plan.id,
            "chosen": Option(changes=(step,), reason=reason),
            "rejected": (),
            "lease_s": None,
            "reason": reason,
        }
    )


def _newest(window: MetricWindow | None, signal: str) -> float | None:
    values = window.values.get(signal) if window is not None else None
    finite = values[np.isfinite(values)] if values is not None else np.empty(0)
    return float(finite[-1]) if finite.size else None


def _record(plan: Plan, at_s: float, reason: str, *, renewed: bool = False) -> Record:
    body: dict[str, object] = {"plan_id": plan.id, "renewed": renewed, "reason": reason}
    return Record(
        id=make_id(plan.id, "lease", at_s),
        kind="keep",
        service=plan.service,
        parent_id=plan.id,
        incident_id=plan.incident_id,
        at_s=at_s,
        body=body,
    )
