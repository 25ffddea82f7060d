"""Mode approve: a person's answer to a plan, applied within the bounds and written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detection.model import make_id
from tuning import attempt as attempts
from tuning.loop import records
from tuning.loop.parts import Parts
from tuning.model import Change, Knob, Plan, Refusal

_LONGEST = 500
_EDITABLE = {"batch_size": "batch_size", "max_num_seqs": "batch_size", "min_replicas": "replicas"}


def answered(
    parts: Parts, plan: Plan, answer: Mapping[str, Any], at_s: float
) -> tuple[Plan, Refusal | None]:
    """The plan as approved (a new one where it was edited), or the Refusal that the answer amounts to.

    answer: Airflow's XCom of the request: chosen_options, params_input, responded_by_user, timedout. No answer in
    time is a no.
    """
    inputs = answer.get("params_input") or {}
    comment = _one_line(inputs.get("comment"))
    by = _who(answer)
    if "Approve" not in (answer.get("chosen_options") or []):
        late = bool(answer.get("timedout")) or not answer.get("responded_by_user")
        reason = "Nobody answered in time, so nothing is changed." if late else f"Rejected by {by}."
        return plan, _refusal(parts, plan, at_s, reason + (f" Comment: {comment}" if comment else ""))
    approvers = parts.settings.safety.approvers
    if approvers and not _names(answer) & set(approvers):
        reason = f"{by} said yes, and is not among safety.approvers: nothing is changed."
        return plan, _refusal(parts, plan, at_s, reason)
    attempt = attempts.of(parts.ledger, plan)
    if attempt.over_s is not None and plan.since_s is not None:
        return plan, _refusal(parts, plan, at_s, f"{by} said yes, and the incident is over by now: nothing is changed.")
    edits = {knob: inputs[knob] for knob in _EDITABLE if inputs.get(knob) is not None}
    unused = [knob for knob in edits if _EDITABLE[knob] not in plan.chosen.levers]
    if unused:
        return plan, _refusal(parts, plan, at_s, f"{by} edited {', '.join(unused)}, which this plan does not change.")
    approved = _edited(plan, edits, by, comment) if edits else plan
    if approved.id != plan.id:
        parts.ledger.put(records.plan_record(approved))
    return approved, None


def _edited(plan: Plan, edits: Mapping[str, Knob], by: str, comment: str) -> Plan:
    changes = tuple(_with(change, edits) for change in plan.chosen.changes)
    said = ", ".join(f"{knob}: {value}" for knob, value in edits.items())
    reason = f"{plan.reason} Approved by {by} with {said}.{' Comment: ' + comment if comment else ''}"
    chosen = plan.chosen.model_copy(update={"changes": changes, "predicted_p95_ms": None})
    return plan.model_copy(
        update={"id": make_id(plan.id, "edited", *sorted(map(str, edits.items()))), "chosen": chosen, "reason": reason}
    )


def _with(change: Change, edits: Mapping[str, Knob]) -> Change:
    new = dict(change.new)
    for knob, value in edits.items():
        if _EDITABLE[knob] == change.lever:
            name = knob if knob in new else "replicas"
            new[name] = value
            high = new.get("max_replicas")
            if name == "min_replicas" and isinstance(high, (int, float)) and isinstance(value, (int, float)):
                new["max_replicas"] = max(high, value)
    return change.model_copy(update={"new": new})


def _who(answer: Mapping[str, Any]) -> str:
    user = answer.get("responded_by_user")
    if isinstance(user, Mapping):
        user = user.get("name") or user.get("id")
    return _one_line(user) or "somebody"


def _names(answer: Mapping[str, Any]) -> set[str]:
    """What a person is known by, as Airflow says it: never what the person wrote."""
    user = answer.get("responded_by_user")
    given = [user.get("id"), user.get("name")] if isinstance(user, Mapping) else [user]
    return {str(word) for word in given if word not in (None, "")}


def _one_line(text: object) -> str:
    """Bounded, and without the line breaks by which a comment could pass for lines of the report."""
    return " ".join(str(text or "").split())[:_LONGEST]


def _refusal(parts: Parts, plan: Plan, at_s: float, reason: str) -> Refusal:
    refusal = Refusal(
        id=make_id(plan.id, "refusal", "approval"),
        plan_id=plan.id,
        service=plan.service,
        guard="approval",
        reason=reason,
        at_s=at_s,
    )
    parts.ledger.put(records.refusal_record(refusal, plan))
    return refusal
