"""The sentences of a report: headline, summary, rows. Pure functions of a Report; the templates only lay them out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from detection.signals import percentile, title
from tuning import cost, formats
from tuning.formats import ms
from tuning.mail import Event, Tone
from tuning.model import ONE_WAY, Advice, Change, Interval, Knob, Option, Outcome, Report

_KNOBS = {
    "batch_size": "batch size",
    "batch_timeout_ms": "batch timeout (ms)",
    "max_num_seqs": "max-num-seqs",
    "max_num_batched_tokens": "max-num-batched-tokens",
    "min_replicas": "minReplicas",
    "max_replicas": "maxReplicas",
    "replicas": "replicas",
    "precision": "precision",
    "version": "model version",
    "variant": "variant",
    "queue_limit": "queue limit",
    "concurrency_limit": "concurrency limit",
    "rate_limit": "rate limit (1/s)",
}

_BY_NAME = ONE_WAY | {"breaker"}
"""Levers whose knobs are named after what they move: a process, a route."""

_IDENTIFIER = re.compile(rf"\b({'|'.join(name for name in _KNOBS if '_' in name)})\b(?![/=])")
_ECHO = re.compile(r"(?i)\b(hold)[.:]\s+hold:")

_ONLY_TOLD = ("mode", "dry_run")
"""Guards that do not object to a plan: it is only to be told."""


@dataclass(frozen=True)
class Headline:
    """status: one or two words for the subject and the coloured band; text: the rest of the line."""

    status: str
    text: str
    tone: Tone


def headline(report: Report) -> Headline:
    """What came of it, for the subject and the top of the mail."""
    head = _headline(report)
    return replace(head, text=spoken(head.text))


def _headline(report: Report) -> Headline:
    service = report.incident.service
    what = changes_text(report)
    if report.decision is not None and report.decision.theirs:
        return Headline("Left alone", f"{service}: {what}, and somebody else changed it meanwhile", "quiet")
    if undone(report):
        return Headline("Rolled back", f"{service}: {what} did not help and was undone", "bad")
    if report.rollback or (report.decision is not None and report.decision.step == "roll_back"):
        return Headline("NOT undone", f"{service}: {what} is to be undone and may still be in force", "bad")
    if report.refusal is not None or not report.plan.chosen.changes:
        reason = report.refusal.reason if report.refusal else report.plan.reason or report.plan.chosen.reason
        status = "Hold"
        if report.refusal is not None and report.plan.chosen.changes:
            status = "Proposed" if report.refusal.guard in _ONLY_TOLD else "Not done"
        return Headline(status, f"{service}: {reason.removeprefix('hold: ').rstrip('.')}", "quiet")
    if report.outcome is None and any(receipt.applied and receipt.changed for receipt in report.receipts):
        return Headline("Not proven", f"{service}: {what} was made, and ended before it could be judged", "bad")
    if report.outcome is None:
        refused = next((r.reason for r in report.receipts if not r.applied and r.reason), "")
        why = f": {refused.split(';')[0].rstrip('.')}" if refused else ""
        return Headline("Not changed", f"{service}: {what} could not be made{why}", "bad")
    p95 = p95_text(report)
    if report.outcome.resolved:
        return Headline("Resolved", f"{service}: {what}{p95}", "good")
    if report.outcome.verdict == "improved":
        still = "still over the SLO" if report.outcome.resolved is False else "too early to call it resolved"
        return Headline("Improved", f"{service}: {what}{p95}, {still}", "quiet")
    return Headline(report.outcome.verdict.capitalize(), f"{service}: {what}{p95}", "bad")


def event(report: Report) -> Event:
    """What a report tells of: that nothing was done, that a change was taken back, or what came of it."""
    if report.refusal is not None or not report.plan.chosen.changes:
        return "hold"
    if report.rollback or (report.decision is not None and report.decision.step == "roll_back"):
        return "rollback"
    return "verdict"


def urgent(report: Report) -> bool:
    """Whether a person should hear of it in quiet hours: a change that is to be undone and may still be in force."""
    return event(report) == "rollback" and not undone(report) and not (report.decision and report.decision.theirs)


def undone(report: Report) -> bool:
    """Whether the old values are back, by what was read back; a decision to undo is no proof of it."""
    last = {receipt.lever: receipt for receipt in sorted(report.rollback, key=lambda receipt: receipt.at_s)}
    return bool(last) and all(receipt.applied for receipt in last.values())


def subject(report: Report) -> str:
    """One line, bounded, without line breaks (a header must not be split by outside text)."""
    head = headline(report)
    line = " ".join(f"[slotune] {head.status}: {head.text}".split())
    return line if len(line) <= 160 else line[:157] + "..."


def changes_text(report: Report) -> str:
    """"batch size 1 -> 8" from what was really changed, else from the plan."""
    pairs = [(r.lever, r.before, r.after) for r in report.receipts if r.changed] or [
        (c.lever, c.old, c.new) for c in report.plan.chosen.changes
    ]
    parts = []
    for lever, old, new in pairs:
        if lever in _BY_NAME:
            parts.append(Change(lever=lever, old=old, new=new).text())
            continue
        moved = [k for k in new if old.get(k) != new[k] and k in _KNOBS] or [k for k in new if k in _KNOBS]
        parts += [f"{_KNOBS[k]} {knob(old.get(k))} → {knob(new[k])}" for k in moved]
    return ", ".join(dict.fromkeys(parts)) or "no change"


def option_text(option: Option) -> str:
    parts = []
    for change in option.changes:
        if change.lever in _BY_NAME:
            parts.append(change.text())
            continue
        moved = [k for k in change.new if change.old.get(k) != change.new[k]] or list(change.new)
        parts += [f"{_KNOBS.get(k, k)} {knob(change.old.get(k))} → {knob(change.new[k])}" for k in moved]
    return " and ".join(parts) or "no change"


def rejected(option: Option) -> tuple[str, str, str, str]:
    """(option, predicted P95, cost, why not). A lever that had no option at all ("lever: why") has no figures."""
    lever, _, why = option.reason.partition(": ")
    if not option.changes and why:
        return lever.replace("_", " "), "-", "-", spoken(why)
    p95, cost = interval(option.predicted_p95_ms), formats.per_hour(option.cost_per_hour)
    if option.quality_loss:
        cost = formats.points(option.quality_loss)
    if option.refusal is not None:
        cost = formats.refused(option.refusal.share.value)
    return option_text(option), p95, cost, spoken(option.reason)


def spoken(text: str) -> str:
    """A sentence with the knobs in words that it names by their identifiers, and without an echo ("hold. hold:")."""
    words = _ECHO.sub(r"\1:", _IDENTIFIER.sub(lambda found: _KNOBS[found[0]], text))
    return words.replace(" -> ", " → ")


def lease(report: Report) -> str:
    """Until when a change is borrowed, and what hands it back earlier; "" for one that is not, or is not kept."""
    plan, made = report.plan, [receipt.at_s for receipt in report.receipts if receipt.changed]
    if plan.lease_s is None or not made or report.decision is None or report.decision.step != "keep":
        return ""
    until = f"borrowed until {clock(max(made) + plan.lease_s)}, then tested for removal"
    if plan.revert_below_qps is None:
        return until
    return f"{until}; handed back earlier once fewer than {plan.revert_below_qps:.3g} requests/s come"


def knob_name(name: str) -> str:
    return _KNOBS.get(name, name.replace("_", " "))


def knob(value: Knob | None) -> str:
    if value is None:
        return "?"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def p95_text(report: Report) -> str:
    outcome = report.outcome
    if outcome is None or outcome.p95_before_ms is None or outcome.p95_after_ms is None:
        return ""
    return f", {judged(report)} {ms(outcome.p95_before_ms)} → {ms(outcome.p95_after_ms)}"


def judged(report: Report) -> str:
    """The P95 that the plan is about: "P95", "TTFT P95"."""
    objective = report.plan.objective
    return percentile(objective.signal if objective is not None else "p95_ms")


def interval(value: Interval | None, unit: str = "ms") -> str:
    if value is None:
        return "cannot be told"
    if unit == "ms":
        return f"{ms(value.value)} ({ms(value.low)} to {ms(value.high)})"
    return f"{value.value:.3g} ({value.low:.3g} to {value.high:.3g})"


def effect(report: Report) -> str:
    outcome = report.outcome
    if outcome is None or outcome.effect is None:
        return "cannot be told"
    e = outcome.effect
    return f"{formats.change(e.value)} ({formats.change(e.low)} to {formats.change(e.high)}, {e.level:.0%} interval)"


def cause(report: Report) -> str:
    """The cause's name in words, and what speaks for it."""
    d = report.plan.diagnosis
    return ": ".join(part for part in (d.cause.replace("_", " "), "; ".join(d.evidence)) if part)


def clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def shares(report: Report) -> str:
    """Where the time goes, as far as it can be told."""
    d = report.plan.diagnosis
    if d.stages:
        total = sum(value for _, value in d.stages) or 1.0
        told = ", ".join(f"{name} {ms(value)} ({value / total:.0%})" for name, value in d.stages)
        return f"A request takes {ms(total)} on average: {told}."
    known = [
        f"{name} {ms(value)}"
        for name, value in (("queue", d.queue_ms), ("batch wait", d.batch_wait_ms), ("compute", d.service_ms))
        if value is not None
    ]
    split = "Mean latency splits into " + ", ".join(known) + "." if known else "The split of latency is unknown."
    return f"{split} Queueing is {d.queue_share:.0%}." if d.queue_share is not None else split


def brief(report: Report) -> str:
    """A few lines for a chat: what was seen, why this was done, and what speaks for it."""
    outcome = report.outcome
    lines = [
        f"Seen: {report.incident.reason}",
        f"Cause: {cause(report)}",
        f"Effect on P95: {effect(report)} (SLO {ms(report.slo_p95_ms)})" if outcome is not None else "",
        f"Verdict: {outcome.verdict}, {resolved_text(report)}. {outcome.reason}" if outcome is not None else "",
        f"Cost: {_cost(outcome)}" if outcome is not None and _cost(outcome) else "",
        f"Not done: {report.refusal.reason}" if report.refusal is not None else "",
        f"Decision: {report.decision.reason}" if report.decision is not None else "",
    ]
    return "\n".join(" ".join(line.split())[:400] for line in lines if line)


def _cost(outcome: Outcome) -> str:
    return cost.moved(outcome.cost_before, outcome.cost_after)


def rows(report: Report) -> list[tuple[str, str]]:
    """(label, text) pairs: the body of the mail, in reading order."""
    incident, plan, outcome = report.incident, report.plan, report.outcome
    table = [
        ("What was seen", incident.reason),
        ("Since", f"{clock(incident.opened_at_s)}, detected {clock(incident.detected_at_s)}"),
        ("Cause", cause(report)),
        ("Where the time goes", shares(report)),
        ("Went together", plan.diagnosis.chain),
        ("Lever", changes_text(report) if plan.chosen.changes else "none: hold"),
        ("Why", plan.reason or plan.chosen.reason),
        ("Only watching", plan.beside),
    ]
    if plan.chosen.predicted_p95_ms is not None:
        table.append((f"Predicted {judged(report)}", interval(plan.chosen.predicted_p95_ms)))
    if report.refusal is not None:
        table.append(("Not done", f"{report.refusal.reason} (guard: {report.refusal.guard.replace('_', ' ')})"))
    table += [("Change", r.reason or ("made and read back" if r.applied else "not applied")) for r in report.receipts]
    if report.canary is not None:
        table.append(("One replica first", canary_text(report)))
    if outcome is not None:
        table += [
            (judged(report), f"{ms(outcome.p95_before_ms)} before, {ms(outcome.p95_after_ms)} after"
                    f" (SLO {ms(report.slo_p95_ms)})"),
            (f"Effect on {judged(report)}", effect(report)),
            ("Cost", _cost(outcome)),
            ("Verdict", f"{outcome.verdict}; {resolved_text(report)}. {outcome.reason}"),
        ]
    table += [
        (f"Guard: {title(g.signal)}", f"{'ok' if g.ok else 'NOT OK'}. {g.reason}")
        for g in (outcome.guards if outcome else ())
    ]
    if plan.chosen.quality_loss:
        table.append(("Price", f"{formats.points(plan.chosen.quality_loss)} of quality for as long as it lasts"))
    if (refusal := plan.chosen.refusal) is not None:
        table.append(("Price", f"{formats.refused(refusal.share.value)} for as long as it lasts"))
    table.append(("Lease", lease(report)))
    table += [("Advice", one.sentence) for one in advice(report)]
    if plan.one_way and any(receipt.changed for receipt in report.receipts):
        table.append(("To undo", "Nothing: a process that has ended is not brought back, and the next one serves."))
    if report.decision is not None:
        table.append(("Decision", f"{report.decision.step.replace('_', ' ')}: {report.decision.reason}"))
    if not undone(report) and report.decision is not None and report.decision.step == "roll_back":
        table.append(("NOT undone", "The old values are not back yet. Sweeps go on trying, and say so if they cannot."))
    table += [("Rolled back", r.reason or f"{r.lever} back to {r.after}") for r in report.rollback]
    if report.rollback_outcome is not None:
        table.append(("After the roll-back", report.rollback_outcome.reason))
    return [(label, spoken(text)) for label, text in table if text]


def advice(report: Report) -> tuple[Advice, ...]:
    """What a person could do: told where nothing was changed, or what was changed proved nothing."""
    held = not report.plan.chosen.changes or report.refusal is not None
    open_end = report.outcome is not None and report.outcome.verdict == "inconclusive"
    return report.plan.diagnosis.advice if held or open_end else ()


def canary_text(report: Report) -> str:
    """Which replica was changed first, and how it did beside the others."""
    first, outcome = report.canary, report.canary_outcome
    if first is None:
        return ""
    others = f"{len(first.peers)} unchanged {'replica' if len(first.peers) == 1 else 'replicas'}"
    if outcome is None:
        return f"{first.replica}, beside {others}; it was not judged"
    return f"{first.replica}, beside {others}: {outcome.verdict}. {outcome.reason}"


@dataclass(frozen=True)
class EvidenceTable:
    """A table that a lever brought along: what the gates found, what was measured."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: Report) -> list[EvidenceTable]:
    """The gates and the speed of INT8 against FP32, from the receipts; what cannot be read is left out."""
    found = []
    for receipt in report.receipts:
        gates = _dicts(receipt.evidence.get("gates"))
        if gates:
            marks = {True: "passed", False: "FAILED", None: "not measured"}
            rows: tuple[tuple[str, ...], ...] = tuple(
                (str(g.get("gate")), str(g.get("found")), str(g.get("asked")), marks.get(_bool(g.get("passed")), "?"))
                for g in gates
            )
            found.append(EvidenceTable("Gates before any traffic", ("gate", "found", "asked for", ""), rows))
        speed = _dicts(receipt.evidence.get("latency"))
        if speed:
            rows = tuple(
                (
                    str(s.get("batch")),
                    *(_ms_of(s.get(key)) for key in ("fp32_p50_ms", "fp32_p95_ms", "int8_p50_ms", "int8_p95_ms")),
                    _speedup(s.get("speedup")),
                )
                for s in speed
            )
            header = ("batch", "FP32 median", "FP32 P95", "INT8 median", "INT8 P95", "times faster")
            found.append(EvidenceTable("Speed, measured here in one interleaved run", header, rows))
    return found


def _dicts(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, (list, tuple)) else []


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _ms_of(value: object) -> str:
    return ms(float(value)) if isinstance(value, (int, float)) else "-"


def _speedup(value: object) -> str:
    if not isinstance(value, dict) or not all(isinstance(value.get(k), (int, float)) for k in ("value", "low", "high")):
        return "-"
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def resolved_text(report: Report) -> str:
    resolved = report.outcome.resolved if report.outcome else None
    return {True: "resolved", False: "not resolved", None: "cannot tell whether it is resolved"}[resolved]
