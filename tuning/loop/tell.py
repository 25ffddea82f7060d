"""email_report: from the ledger's records of one attempt to a Report, and the outbox that survives a dead mail server.

The report is in the ledger before anybody tries to send it; what could not be sent is tried again by every later
sweep until it is sent or too old to be news.
"""

from __future__ import annotations

import logging

import numpy as np

from detection.errors import Permanent, SlotuneError
from detection.model import Incident, Span, make_id
from tuning.loop import canary, records
from tuning.loop.parts import Parts
from tuning.mail import Mail
from tuning.model import Outcome, Plan, Receipt, Refusal, Report
from tuning.query import Query
from tuning.report import render

_log = logging.getLogger(__name__)
_NEWS_S = 7 * 86400.0
_PLOT_POINTS = 240


def email_report(parts: Parts, plan: Plan, at_s: float, *, notes: tuple[str, ...] = ()) -> Report:
    """Make the report of one attempt, keep it, and try to send it. Never raises because of a notifier."""
    report_id = make_id(plan.incident_id, "report", plan.attempt)
    if parts.ledger.get(report_id) is None:
        report = make_report(parts, plan, at_s, notes=notes)
        parts.ledger.put(records.report_record(report, "intent", at_s))
        if (known := _said_before(parts, report)) is not None:
            note = f"not sent: it says what attempt {known.plan.attempt} said already"
            parts.ledger.put(records.report_record(report, "result", at_s, note))
    else:
        report = records.load(parts.ledger, report_id, Report)
    send(parts, report, at_s)
    return report


def _said_before(parts: Parts, report: Report) -> Report | None:
    """The previous attempt's report when both did nothing, for the same reason: people need that mail only once."""
    previous_id = make_id(report.incident.id, "report", report.plan.attempt - 1)
    if report.receipts or parts.ledger.get(previous_id) is None:
        return None
    previous = records.load(parts.ledger, previous_id, Report)
    return previous if not previous.receipts and _why_nothing(previous) == _why_nothing(report) else None


def _why_nothing(report: Report) -> tuple[str, str, str]:
    guard = report.refusal.guard if report.refusal else ""
    return guard, report.plan.diagnosis.cause, report.plan.chosen.text()


def send(parts: Parts, report: Report, at_s: float) -> bool:
    """Try every notifier; True when all succeeded (or will never succeed) and the report is settled."""
    if parts.ledger.get(f"{report.id}:sent") is not None:
        return True
    notes = tell_all(parts, render(report))
    if notes is None:
        return False
    parts.ledger.put(records.report_record(report, "result", at_s, notes))
    return True


def tell_all(parts: Parts, mail: Mail) -> str | None:
    """Try every notifier; what came of it in words, or None when one of them asks to try again later."""
    notes, later = [], False
    for notifier in parts.notifiers:
        try:
            notifier.send(mail)
            notes.append(f"{notifier.name}: sent")
        except Permanent as error:
            _log.error("email_report: %s", error)
            notes.append(f"{notifier.name}: {error}")
        except SlotuneError as error:
            _log.warning("email_report: %s; the report is kept and sent later", error)
            later = True
    return None if later else "; ".join(notes)


def send_unsent(parts: Parts, at_s: float) -> int:
    """Try again what an earlier run could not send; the number of reports settled now."""
    unsent = Query(kinds=("email_report",), phase="intent", since_s=at_s - _NEWS_S, without=("id", ":sent"))
    waiting = parts.ledger.find(unsent)
    return sum(send(parts, Report.model_validate(r.body), at_s) for r in reversed(waiting))


def make_report(parts: Parts, plan: Plan, at_s: float, *, notes: tuple[str, ...] = ()) -> Report:
    ledger = parts.ledger
    incident = records.load(ledger, plan.incident_id, Incident)
    service = parts.service(plan.service)
    receipts = records.receipts(ledger, plan)
    outcome = records.newest(records.find(ledger, "verify_p95", Outcome, parent_id=plan.id))
    stage, beside_peers = canary.stage(ledger, plan), canary.last_outcome(ledger, plan.id)
    undo = plan.inverse()
    undone = records.receipts(ledger, undo)
    refusal = records.newest(records.find(ledger, "guard", Refusal, parent_id=plan.id))
    decision = records.newest(records.decisions(ledger.find(Query(kinds=("keep", "roll_back"), parent_ids=(plan.id,)))))
    timeline, emulated = _timeline(parts, plan, incident, at_s)
    return Report(
        id=make_id(plan.incident_id, "report", plan.attempt),
        incident=incident.model_copy(update={"attempt": plan.attempt}),
        plan=plan,
        refusal=refusal,
        receipts=tuple(receipts),
        canary=stage.first if stage is not None else None,
        canary_outcome=beside_peers[0] if beside_peers is not None else None,
        outcome=outcome,
        decision=decision,
        rollback=tuple(undone),
        rollback_outcome=records.newest(records.find(ledger, "verify_p95", Outcome, parent_id=undo.id)),
        links=dict(parts.links),
        at_s=at_s,
        slo_p95_ms=service.slo.p95_ms,
        timeline=timeline,
        events=_events(incident, receipts, outcome, undone),
        notes=notes,
        emulated=emulated,
    )


def _timeline(
    parts: Parts, plan: Plan, incident: Incident, at_s: float
) -> tuple[tuple[tuple[float, float], ...], bool]:
    """P95 around the incident, thinned to what a plot can show; a source that fails costs the plot, not the mail."""
    step_s = parts.settings.prometheus.step_s
    length_s = max(at_s - incident.opened_at_s, 20 * step_s)
    coarse_s = max(step_s, np.ceil(1.5 * length_s / _PLOT_POINTS / step_s) * step_s)
    end_s = at_s // coarse_s * coarse_s
    points = int(1.5 * length_s // coarse_s)
    span = Span(end_s - points * coarse_s, end_s, coarse_s)
    service = parts.service(plan.service)
    try:
        window = parts.source.read([service], ["p95_ms", "emulated"], span).get(service.name)
    except SlotuneError as error:
        _log.warning("email_report: the plot is left out: %s", error)
        return (), False
    if window is None or "p95_ms" not in window.values:
        return (), False
    pairs = zip(window.span.times(), window.values["p95_ms"], strict=True)
    timeline = tuple((float(t), float(v)) for t, v in pairs if np.isfinite(v))
    return timeline, bool(window.last("emulated"))


def _events(
    incident: Incident, receipts: list[Receipt], outcome: Outcome | None, undone: list[Receipt]
) -> tuple[tuple[float, str], ...]:
    events = [(incident.opened_at_s, "onset"), (incident.detected_at_s, "detected")]
    events += [(r.at_s, _moved(r)) for r in receipts if r.changed]
    events += [(r.at_s, f"undone: {_moved(r)}") for r in undone if r.changed]
    if outcome is not None:
        events.append((outcome.at_s, f"verified: {outcome.verdict}"))
    return tuple(events)


def _moved(receipt: Receipt) -> str:
    moved = [k for k in receipt.after if receipt.after[k] != receipt.before.get(k)]
    text = ", ".join(f"{k} {receipt.before.get(k, '?')} → {receipt.after[k]}" for k in moved) or receipt.lever
    return f"{text} on {receipt.replica}" if receipt.replica else text
