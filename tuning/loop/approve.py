"""Mode approve: a person's answer to a plan, applied within the bounds and written down."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from detection.model import make_id
from tuning import attempt as attempts
from tuning.loop import canary, post, records
from tuning.loop.parts import Parts
from tuning.model import Change, Knob, Plan, Record, Refusal
from tuning.query import Query
from tuning.report import approval, words
from tuning.report.notice_mail import notice_mail

_log = logging.getLogger(__name__)
_LONGEST = 500
_EDITABLE = {"batch_size": "batch_size", "max_num_seqs": "batch_size", "min_replicas": "replicas"}


def editable(plan: Plan) -> tuple[str, ...]:
    """The knobs that a person may set otherwise: those of the plan's own levers."""
    moved = {knob for change in plan.chosen.changes for knob in change.new}
    return tuple(knob for knob in _EDITABLE if knob in moved or (knob == "min_replicas" and "replicas" in moved))


def ask(parts: Parts, plan: Plan, at_s: float, *, answer_url: str = "", how: str = "") -> dict[str, str]:
    """Tell people that a plan waits for them; the question's subject and body. Told once per plan.

    answer_url: where it is answered; how: by which command. Never raises because of a channel.
    """
    first = canary.foretold(parts, plan, at_s)
    until_s = at_s + parts.settings.safety.approval_timeout_s
    page = parts.incident_url(plan.incident_id)
    links = {**({"Answer": answer_url} if answer_url else {}), **({"The incident": page} if page else {})}
    post.post(parts, approval.request_mail(plan, first, until_s, links, at_s, how), at_s)
    return {"subject": approval.subject(plan), "body": approval.body(plan, first, until_s)}


def remind(parts: Parts, at_s: float) -> int:
    """Ask once more, once, where half of the time to answer is over and nobody has; how many were reminded."""
    timeout_s = parts.settings.safety.approval_timeout_s
    plans = parts.ledger.find(
        Query(kinds=("choose_action",), since_s=at_s - timeout_s, until_s=at_s - timeout_s / 2,
              without=("id", ":intent"), holding='"mode":"approve"')
    )  # fmt: skip
    reminded = 0
    for record in plans:
        asked = parts.ledger.get(make_id(record.id, "approval"))
        if asked is None or _is_answered(parts, record):
            continue
        try:
            mail = approval.reminder_mail(post.mail_of(asked.body), at_s)
        except (TypeError, ValueError, KeyError) as error:
            _log.warning("the request about plan %s cannot be read and is not repeated: %r", record.id, error)
            continue
        reminded += not post.keep(parts, mail, at_s)
    return reminded


def _is_answered(parts: Parts, record: Record) -> bool:
    return bool(parts.ledger.find(Query(parent_ids=(record.id,), bodies=False, limit=1))) or (
        parts.ledger.get(make_id(record.id, "answer")) is not None
    )


def answered(
    parts: Parts, plan: Plan, answer: Mapping[str, Any], at_s: float
) -> tuple[Plan, Refusal | None]:
    """The plan as approved (a new one where it was edited), or the Refusal that the answer amounts to; people are told
    which. answer: as `_answered`."""
    approved, refusal = _answered(parts, plan, answer, at_s)
    said = words.option_text(approved.chosen)
    if refusal is not None:
        title, lines = f"{plan.service}: {said}: not done", [refusal.reason]
    else:
        title = f"{plan.service}: {said}: approved by {_who(answer)}"
        lines = ["The guards look once more, then it is made; the report says what came of it."]
        comment = _one_line((answer.get("params_input") or {}).get("comment"))
        lines += [f"Comment: {comment}"] if comment else []
    mail = notice_mail(
        make_id(plan.id, "answer"),
        f"Answer: {title}",
        lines,
        at_s,
        event="approval",
        service=plan.service,
        url=parts.incident_url(plan.incident_id),
    )
    post.post(parts, replace(mail, about=plan.id, over=True), at_s)
    return approved, refusal


def _answered(
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
