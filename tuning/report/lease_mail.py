"""The mail about a temporary change that cannot be handed back. Pure."""

from __future__ import annotations

import html

from detection.model import make_id
from tuning.mail import Mail
from tuning.model import Plan


def lease_mail(plan: Plan, reason: str, at_s: float) -> Mail:
    """Text from outside is text: it is escaped in the HTML part."""
    change = plan.chosen.text()
    cost = f"It costs {plan.chosen.cost_per_hour:g} per hour." if plan.chosen.cost_per_hour else ""
    ask = "Make it permanent (put it back as the owner's own setting), or take it back by hand."
    lines = [f"{plan.service}: {change} was meant to be temporary and is still needed.", reason, cost, ask]
    lines = [line for line in lines if line]
    return Mail(
        id=make_id(plan.id, "lease mail"),
        subject=f"[slotune] {plan.service}: a temporary change is still needed, please decide",
        html="".join(f"<p>{html.escape(line)}</p>" for line in lines),
        text="\n\n".join(lines) + "\n",
        at_s=at_s,
    )
