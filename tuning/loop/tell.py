"""email_report: from the ledger's records of one attempt to a Report, and the outbox that survives a dead mail server.

The report is in the ledger before anybody tries to send it; what a channel did not take is tried again by every later
sweep until it is sent or too old to be news (tuning.loop.post).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detection.errors import SlotuneError
from detection.model import Incident, Service, Span, make_id
from tuning import attempt as attempts
from tuning.attempt import Attempt, value
from tuning.loop import post, records
from tuning.loop.parts import Parts
from tuning.loop.post import Letter
from tuning.mail import Mail
from tuning.model import ONE_WAY, Change, Outcome, Plan, Receipt, Record, Report
from tuning.policies.delivery import Topic
from tuning.query import Query
from tuning.report import render, words
from tuning.report.notice_mail import notice_mail

_log = logging.getLogger(__name__)
Pairs = tuple[tuple[float, float], ...]
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
    if _did_something(report) or report.plan.attempt < 2:
        return None
    record = parts.ledger.get(make_id(report.incident.id, "report", report.plan.attempt - 1))
    previous = value(record, Report) if record is not None else None
    if previous is None or _did_something(previous) or _why_nothing(previous) != _why_nothing(report):
        return None
    return previous


def _did_something(report: Report) -> bool:
    """Whether a lever was moved, or may have been: what was refused before it was made is tried again in silence."""
    return any(receipt.changed or receipt.applied for receipt in report.receipts)


def _why_nothing(report: Report) -> tuple[str, str, str]:
    guard = report.refusal.guard if report.refusal else ""
    return guard, report.plan.diagnosis.cause, report.plan.chosen.text()


def send(parts: Parts, report: Report, at_s: float, *, tries: Sequence[Record] | None = None) -> bool:
    """Try every channel; True when all are done with the report.

    Whoever sends claims the try in the ledger first, so that a run and a sweep never send one report twice. tries: what
    the ledger holds about earlier tries (None: it is asked).
    """
    known = parts.ledger.find(Query(parent_ids=(report.id,))) if tries is None else tries
    return post.deliver(parts, _letter(parts, report), at_s, known)


def _letter(parts: Parts, report: Report) -> Letter:
    service = parts.services.get(report.incident.service)
    topic = Topic(words.event(report), report.incident.service, service.labels if service else {}, words.urgent(report))
    url = parts.incident_url(report.incident.id)
    return Letter(
        report.id,
        post.REPORT,
        report.at_s,
        topic,
        words.subject(report),
        url,
        lambda: replace(_mail(report), event=topic.event, service=topic.service, urgent=topic.urgent, url=url,
                        about=report.incident.id, labels=topic.labels or {}),
        report.incident.id,
    )  # fmt: skip


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


def tell_all(parts: Parts, mail: Mail, at_s: float | None = None) -> str:
    """Keep a message, and tell everybody who wants it; what came of it in words. Never raises because of a channel or
    of what stands in the mail. What cannot be sent now is tried again by the sweeps. at_s: now (None: the mail's)."""
    return post.post(parts, mail, mail.at_s if at_s is None else at_s)


def tell_change(parts: Parts, plan: Plan, receipt: Receipt, at_s: float) -> None:
    """A change was made: told where somebody asked for that; the verdict follows. A release that was taken back is told
    at once wherever roll-backs are: somebody waits for that version."""
    if not receipt.changed:
        return
    then = "there is nothing to undo." if plan.one_way else "what does not help is taken back."
    lines = [plan.reason or plan.chosen.reason, f"It is proven next; {then}"]
    url = parts.incident_url(plan.incident_id)
    reverted = receipt.lever == "release"
    title = f"{'Release taken back' if reverted else 'Changed'}: {plan.service}: {_moved(receipt)}"
    told = make_id(receipt.id, "told")
    if reverted:
        lines = [*plan.diagnosis.evidence, *lines, "slotune does not release it again; who puts it back is left alone."]
    mail = notice_mail(
        told, title, lines, at_s, event="rollback" if reverted else "change", service=plan.service, url=url
    )
    tell_all(parts, replace(mail, about=plan.id))


def tell_end(parts: Parts, plan: Plan, note: str, at_s: float) -> None:
    """A short mail: an attempt whose report was sent already has ended otherwise than that report could know."""
    lines = [f"{plan.service}: {plan.chosen.text()} (plan {plan.id}).", note, f"slotune show {plan.incident_id}"]
    title = f"{plan.service}: {plan.chosen.text()} has ended: {note}"
    url = parts.incident_url(plan.incident_id)
    tell_all(parts, notice_mail(make_id(plan.id, "ended"), title, lines, at_s, service=plan.service, url=url))


def send_unsent(parts: Parts, at_s: float) -> int:
    """Try what waits in every channel's queue; the number of messages settled now. One that cannot be sent, or that
    cannot be read, holds up no other."""
    letters = []
    for record in post.waiting(parts, at_s):
        if record.kind == post.MESSAGE:
            letter = post.letter_of(parts, record)
        else:
            report = value(record, Report)
            letter = _letter(parts, report) if report is not None else None
        if letter is not None:  # else another version's: it is named in the log, and that version sends it
            letters.append(letter)
    return post.flush(parts, letters, at_s)


def make_report(parts: Parts, plan: Plan | Attempt, at_s: float, *, notes: tuple[str, ...] = ()) -> Report:
    attempt = attempts.of(parts.ledger, plan)
    plan, undo = attempt.plan, attempt.undo
    incident = records.load(parts.ledger, plan.incident_id, Incident)
    service = parts.service(plan.service)
    outcome, beside_peers = attempt.last_verdict(), attempt.last_verdict(alone=True)
    undone = undo.last_verdict() if undo is not None else None
    promise = plan.objective or service.slo.main
    curves = _curves(parts, service, incident, [promise.signal, "qps", "error_rate", "emulated"], at_s)
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
        links=links(parts, incident.id),
        at_s=at_s,
        slo_p95_ms=promise.limit_ms,
        timeline=curves.get(promise.signal, ()),
        events=_events(incident, attempt.receipts, outcome[0] if outcome is not None else None, back),
        load=curves.get("qps", ()),
        failed=curves.get("error_rate", ()) if _about_errors(plan, incident) else (),
        failed_limit=service.slo.error_rate,
        notes=notes,
        emulated=any(value > 0 for _, value in curves.get("emulated", ())),
    )


def links(parts: Parts, incident_id: str) -> dict[str, str]:
    """The addresses under a message about an incident, its own page first."""
    url = parts.incident_url(incident_id)
    return {**({"The incident": url, "Was it real?": f"{url}#label"} if url else {}), **parts.links}


def _curves(parts: Parts, service: Service, incident: Incident, wanted: Sequence[str], at_s: float) -> dict[str, Pairs]:
    """Signals around the incident, thinned to what a plot can show; those without a sample are left out.

    A source that fails costs the plot, not the mail.
    """
    step_s = parts.settings.prometheus.step_s
    length_s = max(at_s - incident.opened_at_s, 20 * step_s)
    coarse_s = max(step_s, math.ceil(1.5 * length_s / _PLOT_POINTS / step_s) * step_s)
    end_s = at_s // coarse_s * coarse_s
    points = int(1.5 * length_s // coarse_s)
    span = Span(end_s - points * coarse_s, end_s, coarse_s)
    try:
        window = parts.source.read([service], wanted, span).get(service.name)
    except SlotuneError as error:
        _log.warning("email_report: the plot is left out: %s", error)
        return {}
    found: dict[str, Pairs] = {}
    for signal, values in window.values.items() if window is not None else ():
        times = span.times()
        pairs = tuple((float(t), float(v)) for t, v in zip(times, values, strict=True) if np.isfinite(v))
        found |= {signal: pairs} if pairs else {}
    return found


def _about_errors(plan: Plan, incident: Incident) -> bool:
    """Whether failed requests are what hurts, and P95 may be flat."""
    return "errors" in (incident.symptom, plan.diagnosis.cause)


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
    if receipt.lever in ONE_WAY:
        return Change(lever=receipt.lever, old=receipt.before, new=receipt.after).text()
    moved = [k for k in receipt.after if receipt.after[k] != receipt.before.get(k)]
    text = ", ".join(f"{k} {receipt.before.get(k, '?')} → {receipt.after[k]}" for k in moved) or receipt.lever
    return f"{text} on {receipt.replica}" if receipt.replica else text
