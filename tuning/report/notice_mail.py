"""Plain mails about what needs a person: a lease that cannot end, a change that cannot be undone. Pure."""

from __future__ import annotations

import html
from collections.abc import Sequence

from detection.model import make_id
from tuning.mail import Mail
from tuning.model import Plan


def notice_mail(mail_id: str, title: str, lines: Sequence[str], at_s: float) -> Mail:
    """Text from outside is text: it is escaped in the HTML part, and the subject is one line of bounded length."""
    told = [" ".join(line.split()) for line in lines if line.strip()]
    subject = " ".join(f"[slotune] {title}".split())
    return Mail(
        id=mail_id,
        subject=subject if len(subject) <= 160 else subject[:157] + "...",
        html="".join(f"<p>{html.escape(line)}</p>" for line in told),
        text="\n\n".join(told) + "\n",
        at_s=at_s,
    )


def lease_mail(plan: Plan, reason: str, at_s: float) -> Mail:
    """The mail about a temporary change that is still needed after all its renewals."""
    cost = f"It costs {plan.chosen.cost_per_hour:g} per hour." if plan.chosen.cost_per_hour else ""
    lines = [
        f"{plan.service}: {plan.chosen.text()} was meant to be temporary and is still needed.",
        reason,
        cost,
        "Make it permanent (put it back as the owner's own setting), or take it back by hand.",
    ]
    title = f"{plan.service}: a temporary change is still needed, please decide"
    return notice_mail(make_id(plan.id, "lease mail", at_s), title, lines, at_s)
