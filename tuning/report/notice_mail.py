"""Plain mails about what needs a person: a lease that cannot end, a change that cannot be undone. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from detection.model import make_id
from tuning.formats import points, refused
from tuning.mail import Event, Mail, Tone
from tuning.model import Plan
from tuning.report.page import page


def notice_mail(
    mail_id: str,
    title: str,
    lines: Sequence[str],
    at_s: float,
    *,
    event: Event = "verdict",
    service: str = "",
    urgent: bool = False,
    tone: Tone = "quiet",
    url: str = "",
) -> Mail:
    """Text from outside is text: it is escaped in the HTML part, and the subject is one line of bounded length."""
    told = [" ".join(line.split()) for line in lines if line.strip()]
    subject = " ".join(f"[slotune] {title}".split())
    link = [f"Read on: {url}"] if url else []
    return Mail(
        id=mail_id,
        subject=subject if len(subject) <= 160 else subject[:157] + "...",
        html=page(subject.removeprefix("[slotune] "), told, tone, {"Read on": url} if url else {}),
        text="\n\n".join([*told, *link]) + "\n",
        at_s=at_s,
        event=event,
        service=service,
        urgent=urgent,
        tone=tone,
        brief="\n".join(told),
        url=url,
    )


def lease_mail(plan: Plan, reason: str, at_s: float, url: str = "") -> Mail:
    """The mail about a temporary change that is still needed after all its renewals."""
    cost = f"It costs {plan.chosen.cost_per_hour:g} per hour." if plan.chosen.cost_per_hour else ""
    if plan.chosen.quality_loss:
        cost = f"It costs {points(plan.chosen.quality_loss)} of quality for as long as it lasts."
    if plan.chosen.refusal is not None:
        cost = f"As planned it has {refused(plan.chosen.refusal.share.value)} for as long as it lasts."
    lines = [
        f"{plan.service}: {plan.chosen.text()} was meant to be temporary and is still needed.",
        reason,
        cost,
        "Make it permanent (put it back as the owner's own setting), or take it back by hand.",
    ]
    title = f"{plan.service}: a temporary change is still needed, please decide"
    mail_id = make_id(plan.id, "lease mail", at_s)
    return notice_mail(mail_id, title, lines, at_s, event="approval", service=plan.service, url=url)
