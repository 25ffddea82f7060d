"""What a person sees who is asked to approve a plan: Markdown for Airflow's Required Actions page, and a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from detection.model import make_id
from detection.signals import percentile
from tuning import formats
from tuning.mail import Mail
from tuning.model import Option, Plan
from tuning.report import words
from tuning.report.page import page

HEADER = ("option", "predicted", "cost", "why not")
_SMALL = 0.05


def subject(plan: Plan) -> str:
    return " ".join(f"{plan.service}: {words.option_text(plan.chosen)}?".split())[:200]


def rows(plan: Plan, first: str = "", until_s: float | None = None) -> list[tuple[str, str]]:
    """(label, short line): what, how, why, what is expected, cost, risk, how it is undone, until when.

    first: whether one replica is changed before the others, in a sentence. until_s: when no answer becomes a no.
    """
    chosen = plan.chosen
    told = [
        ("What", words.option_text(chosen)),
        ("How", first),
        ("Why", words.spoken(plan.reason or chosen.reason)),
        ("Cause", ": ".join(filter(None, (plan.diagnosis.cause.replace("_", " "), " ".join(plan.diagnosis.evidence))))),
        ("Predicted", f"{_percentile(plan)} {words.interval(chosen.predicted_p95_ms)}"),
        ("Cost", formats.per_hour(chosen.cost_per_hour)),
        ("Quality", f"{formats.points(chosen.quality_loss)} for as long as it lasts" if chosen.quality_loss else ""),
        ("Refused", formats.refused(chosen.refusal.share.value) if chosen.refusal is not None else ""),
        ("Risk", _risk(chosen)),
        ("Undone", _undone(plan)),
        ("Answer by", f"{words.clock(until_s)}; no answer means no change" if until_s is not None else ""),
    ]
    return [(label, " ".join(text.split())) for label, text in told if text]


def options(plan: Plan) -> list[tuple[str, str, str, str]]:
    """The rejected options: (option, predicted percentile, cost, why not)."""
    return [words.rejected(option) for option in plan.rejected]


def body(plan: Plan, first: str = "", until_s: float | None = None) -> str:
    """The plan in short lines, and every rejected option in a table."""
    lines = [f"- **{label}**: {_plain(text)}" for label, text in rows(plan, first, until_s)]
    table = options(plan)
    if table:
        lines += ["", f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
        lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in table]
    else:
        lines += ["", "No other option was within the bounds."]
    lines += ["", f"Plan {plan.id}, incident {plan.incident_id}."]
    return "\n".join(lines)


def request_mail(plan: Plan, first: str, until_s: float, links: Mapping[str, str], at_s: float, how: str = "") -> Mail:
    """The message that asks. links: addresses by what to do there, the answer's first. how: to answer without them."""
    told = rows(plan, first, until_s)
    title = f"{plan.service}: {words.option_text(plan.chosen)}? An answer is needed"
    plain = [f"{label}: {text}" for label, text in told]
    others = [f"- {option}: predicted {p95}, {cost}. {why}" for option, p95, cost, why in options(plan)]
    places = [f"{label}: {url}" for label, url in links.items()]
    asked = [f"To answer: {how}"] if how else []
    text = [*plain, *asked, *(["", "Other options", *others] if others else []), "", *places]
    return Mail(
        id=make_id(plan.id, "approval"),
        subject=f"[slotune] Approval: {title}"[:160],
        html=page(title, asked, "quiet", links, rows=told, header=HEADER, table=options(plan)),
        text="\n".join(text) + "\n",
        at_s=at_s,
        event="approval",
        service=plan.service,
        urgent=True,
        brief="\n".join([*plain, *asked]),
        url=next(iter(links.values()), ""),
        about=plan.id,
        ends_s=until_s,
    )


def reminder_mail(asked: Mail, at_s: float) -> Mail:
    """The same once more, at half time."""
    minutes = max((asked.ends_s or at_s) - at_s, 0.0) / 60
    head = f"Reminder: {minutes:.0f} minutes are left to answer"
    return replace(
        asked,
        id=make_id(asked.id, "reminder"),
        subject=asked.subject.replace("Approval:", f"{head}:", 1)[:160],
        text=f"{head}.\n\n{asked.text}",
        brief=f"{head}.\n{asked.brief}",
        html=asked.html.replace(">slotune</div>", f">slotune &middot; {head}</div>", 1),
        at_s=at_s,
        began_s=asked.at_s,
    )


def _percentile(plan: Plan) -> str:
    return percentile(plan.objective.signal if plan.objective is not None else "p95_ms")


def _risk(option: Option) -> str:
    """The planner's risk, a share from 0 to 1, and how often it has worked where that is known."""
    grade = "low" if option.risk <= _SMALL else f"{option.risk:.0%}"
    worked = option.probability_worked
    return f"{grade}; {worked:.0%} likely to work" if worked is not None else grade


def _undone(plan: Plan) -> str:
    back = " and ".join(
        ", ".join(f"{words.knob_name(k)} {words.knob(change.old.get(k))}" for k in change.new if k in change.old)
        for change in plan.chosen.changes
    )
    what = f"back to {back}, by itself, unless it is proven to help"
    if plan.lease_s is None:
        return what
    return f"{what}; temporary: handed back after {plan.lease_s / 60:.0f} minutes if it is no longer needed"


def _plain(text: str) -> str:
    """Outside text as text: no Markdown, no HTML, no template (the page and Airflow would both interpret them)."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]#|!])", r"\\\1", one_line.replace("&", "&amp;"))
    for mark, entity in (("<", "&lt;"), (">", "&gt;"), ("{", "&#123;"), ("}", "&#125;")):
        escaped = escaped.replace(mark, entity)
    return escaped
