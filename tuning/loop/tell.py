"""email_report: from the ledger's records of one attempt to a Report, and the outbox that survives a dead mail server.

The report is in the ledger before anybody tries to send it; what could not be sent is tried again by every later
sweep until it is sent or too old to be news.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from detection.errors import Permanent, SlotuneError
from detection.model import Incident, Span, make_id
from tuning import attempt as attempts
from tuning.attempt import Attempt, value
from tuning.errors import LedgerUnavailable
from tuning.loop import records
from tuning.loop.parts import Parts
from tuning.mail import Mail
from tuning.model import Outcome, Plan, Receipt, Record, Report
from tuning.policies import outbox
from tuning.query import Query
from tuning.report import render
from tuning.report.notice_mail import notice_mail

_log = logging.getLogger(__name__)
_NEWS_S = 7 * 86400.0
_PLOT_POINTS = 240


def email_report(parts: Parts, plan: Plan | Attempt, at_s: float, *, notes: tuple[str, ...] = ()) -> Report:
    """Make the report of one attempt, keep it, and try to send it. Never raises because of a notifier."""
    attempt = attempts.of(parts.ledger, plan)
    plan = attempt.plan
    report_id, report, tries = make_id(plan.incident_id, "report", plan.attempt), attempt.report, None
    if report is None:
        report = make_report(parts, attempt, at_s, notes=notes)
        if not parts.ledger.put(records.report_record(report, "intent", at_s)):
            report = records.load(parts.ledger, report_id, Report)
        elif (known := _said_before(parts, report)) is not None:
            note = f"not sent: it says what attempt {known.plan.attempt} said already"
            parts.ledger.put(records.report_record(report, "result", at_s, note))
            return report
        else:
            tries = ()  # just made: nobody can have tried
    send(parts, report, at_s, tries=tries)
    return report


def _said_before(parts: Parts, report: Report) -> Report | None:
    """The previous attempt's report when both did nothing, for the same reason: people need that mail only once."""
    if report.receipts or report.plan.attempt < 2:
        return None
    record = parts.ledger.get(make_id(report.incident.id, "report", report.plan.attempt - 1))
    previous = value(record, Report) if record is not None else None
    if previous is None or previous.receipts or _why_nothing(previous) != _why_nothing(report):
        return None
    return previous


def _why_nothing(report: Report) -> tuple[str, str, str]:
    guard = report.refusal.guard if report.refusal else ""
    return guard, report.plan.diagnosis.cause, report.plan.chosen.text()


def send(parts: Parts, report: Report, at_s: float, *, tries: Sequence[Record] | None = None) -> bool:
    """Try every notifier; True when all succeeded (or will never succeed) and the report is settled.

    Whoever sends claims the try in the ledger first, so that a run and a sweep never send one report twice. tries: what
    the ledger holds about earlier tries (None: it is asked).
    """
    known = parts.ledger.find(Query(parent_ids=(report.id,))) if tries is None else tries
    if any(record.id == f"{report.id}:sent" for record in known):
        return True
    number = outbox.next_try(_tries(report, known), at_s)
    if number is None:
        return False
    claim = records.try_record(report, number, at_s)
    if not parts.ledger.put(claim):
        return False  # claimed at the same time by somebody else
    notes = tell_all(parts, _mail(report))
    if notes is None:
        parts.ledger.put(records.try_record(report, number, at_s, failed=True))
        return False
    parts.ledger.put(records.report_record(report, "result", at_s, notes))
    return True


def _tries(report: Report, known: Sequence[Record]) -> list[outbox.Try]:
    """Every try so far: its number, when it began, and whether it is known to have failed."""
    failed = {r.body.get("failed") for r in known if r.body.get("failed")}
    numbers = [(n, r.at_s) for r in known if isinstance(n := r.body.get("try"), int)]
    return [outbox.Try(number, began_s, failed=number in failed) for number, began_s in numbers]


def _mail(report: Report) -> Mail:
    """The report laid out; where it cannot be, a plain mail that says so and where to read it."""
    try:
        return render(report)
    except Exception as error:  # a report that breaks its own page is a report all the same
        _log.exception("email_report: report %s cannot be laid out", report.id)
        return notice_mail(
            report.id,
            f"{report.incident.service}: a report that could not be laid out",
            [f"The report cannot be laid out as a page: {error!r}.",
             f"Read it with: slotune show {report.incident.id}"],
            report.at_s,
        )  # fmt: skip


def tell_all(parts: Parts, mail: Mail) -> str | None:
    """Try every notifier; what came of it in words, or None when one of them asks to try again later. Never raises
    because of a notifier or of what stands in the mail."""
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
        except Exception as error:  # one channel that breaks takes no other with it
            _log.exception("email_report: %s broke", notifier.name)
            notes.append(f"{notifier.name}: broke: {error!r}")
    return None if later else "; ".join(notes)


def tell_end(parts: Parts, plan: Plan, note: str, at_s: float) -> None:
    """A short mail: an attempt whose report was sent already has ended otherwise than that report could know."""
    lines = [f"{plan.service}: {plan.chosen.text()} (plan {plan.id}).", note, f"slotune show {plan.incident_id}"]
    title = f"{plan.service}: {plan.chosen.text()} has ended: {note}"
    tell_all(parts, notice_mail(make_id(plan.id, "ended"), title, lines, at_s))


def send_unsent(parts: Parts, at_s: float) -> int:
    """Try again what an earlier run could not send; the number of reports settled now. One that cannot be sent holds up
    no other."""
    unsent = Query(kinds=("email_report",), phase="intent", since_s=at_s - _NEWS_S, without=("id", ":sent"))
    settled = 0
    for record in reversed(parts.ledger.find(unsent)):
        report = value(record, Report)
        if report is None:
            continue  # another version's: it is named in the log, and that version sends it
        try:
            settled += send(parts, report, at_s)
        except LedgerUnavailable:
            raise
        except Exception as error:
            _log.exception("email_report: report %s could not be looked after: %r", report.id, error)
    return settled


def make_report(parts: Parts, plan: Plan | Attempt, at_s: float, *, notes: tuple[str, ...] = ()) -> Report:
    attempt = attempts.of(parts.ledger, plan)
    plan, undo = attempt.plan, attempt.undo
    incident = records.load(parts.ledger, plan.incident_id, Incident)
    service = parts.service(plan.service)
    outcome, beside_peers = attempt.last_verdict(), attempt.last_verdict(alone=True)
    undone = undo.last_verdict() if undo is not None else None
    promise = plan.objective or service.slo.main
    timeline, emulated = _timeline(parts, plan, incident, promise.signal, at_s)
    back = undo.receipts if undo is not None else ()
    return Report(
        id=make_id(plan.incident_id, "report", plan.attempt),
        incident=incident.model_copy(update={"attempt": plan.attempt}),
        plan=plan,
        refusal=attempt.refusal,
        receipts=attempt.receipts,
        canary=attempt.stage.first if attempt.stage is not None else None,
        canary_outcome=beside_peers[0] if beside_peers is not None else None,
        outcome=outcome[0] if outcome is not None else None,
        decision=attempt.final_decision,
        rollback=back,
        rollback_outcome=undone[0] if undone is not None else None,
        links=dict(parts.links),
        at_s=at_s,
        slo_p95_ms=promise.limit_ms,
        timeline=timeline,
        events=_events(incident, attempt.receipts, outcome[0] if outcome is not None else None, back),
        notes=notes,
        emulated=emulated,
    )


def _timeline(
    parts: Parts, plan: Plan, incident: Incident, signal: str, at_s: float
) -> tuple[tuple[tuple[float, float], ...], bool]:
    """The P95 that is judged around the incident, thinned to what a plot can show.

    A source that fails costs the plot, not the mail.
    """
    step_s = parts.settings.prometheus.step_s
    length_s = max(at_s - incident.opened_at_s, 20 * step_s)
    coarse_s = max(step_s, math.ceil(1.5 * length_s / _PLOT_POINTS / step_s) * step_s)
    end_s = at_s // coarse_s * coarse_s
    points = int(1.5 * length_s // coarse_s)
    span = Span(end_s - points * coarse_s, end_s, coarse_s)
    service = parts.service(plan.service)
    try:
        window = parts.source.read([service], [signal, "emulated"], span).get(service.name)
    except SlotuneError as error:
        _log.warning("email_report: the plot is left out: %s", error)
        return (), False
    if window is None or signal not in window.values:
        return (), False
    pairs = zip(window.span.times(), window.values[signal], strict=True)
    timeline = tuple((float(t), float(v)) for t, v in pairs if np.isfinite(v))
    return timeline, bool(window.last("emulated"))


def _events(
    incident: Incident, receipts: Sequence[Receipt], outcome: Outcome | None, undone: Sequence[Receipt]
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
