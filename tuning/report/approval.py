"""What a person sees who is asked to approve a plan: Markdown for Airflow's Required Actions page."""

from __future__ import annotations

import re

from detection.signals import percentile
from tuning.model import Plan
from tuning.report import words


def subject(plan: Plan) -> str:
    return " ".join(f"{plan.service}: {words.option_text(plan.chosen)}?".split())[:200]


def body(plan: Plan, first: str = "") -> str:
    """The plan, how it begins, what it is expected to bring, and every rejected option with its reason.

    first: whether one replica is changed before the others, in a sentence.
    """
    name = percentile(plan.objective.signal if plan.objective is not None else "p95_ms")
    lines = [
        f"**{_plain(plan.service)}**: {_plain(words.option_text(plan.chosen))}",
        "",
        *([f"How: {_plain(first)}"] if first else []),
        f"Why: {_plain(plan.reason or plan.chosen.reason)}",
        f"Cause: {_plain(plan.diagnosis.cause)}. {_plain(' '.join(plan.diagnosis.evidence))}",
        f"Predicted {name}: {_plain(words.interval(plan.chosen.predicted_p95_ms))}",
        f"Cost: {plan.chosen.cost_per_hour:+.2f} per hour",
        "",
        "Rejected options:" if plan.rejected else "No other option was within the bounds.",
    ]
    for option in plan.rejected:
        p95 = words.interval(option.predicted_p95_ms)
        lines.append(f"- {_plain(words.option_text(option))}: predicted {name} {_plain(p95)}. {_plain(option.reason)}")
    lines += ["", f"No answer in time means no change. Plan {plan.id}, incident {plan.incident_id}."]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Outside text as text: no Markdown, no HTML, no template (the page and Airflow would both interpret them)."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]#|!])", r"\\\1", one_line.replace("&", "&amp;"))
    for mark, entity in (("<", "&lt;"), (">", "&gt;"), ("{", "&#123;"), ("}", "&#125;")):
        escaped = escaped.replace(mark, entity)
    return escaped
