"""Many messages as one: what an outage of the fleet looks like on a telephone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from detection.model import make_id
from tuning.mail import Mail, Tone
from tuning.report.page import page

MOST_LINES, MOST_BRIEF = 20, 8


def group_mail(name: str, told: Sequence[tuple[str, str, str, bool]], at_s: float, *, url: str = "") -> Mail:
    """told: (headline, service, address, urgent) of each, oldest first. url: the page of the whole fleet."""
    ranked = sorted(told, key=lambda one: not one[3])
    lines = [(" ".join(headline.removeprefix("[slotune] ").split()), address) for headline, _, address, _ in ranked]
    services = sorted({service for _, service, _, _ in told if service})
    kinds = Counter(line.partition(":")[0] for line, _ in lines)
    what = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(3))
    where = f" about {len(services)} services" if len(services) > 1 else f" about {services[0]}" if services else ""
    shown, more = lines[:MOST_LINES], len(lines) - MOST_LINES
    rest = [f"... and {more} more."] if more > 0 else []
    plain = [f"- {line}{f' {address}' if address else ''}" for line, address in shown]
    pressing = any(urgent for _, _, _, urgent in told)
    tone: Tone = "bad" if pressing else "quiet"
    title = f"{len(told)} messages{where}: {what}"
    return Mail(
        id=make_id("group", name),
        subject=f"[slotune] {title}"[:160],
        html=page(title, (), tone, {"All of them": url} if url else {}, items=[*shown, *((text, "") for text in rest)]),
        text="\n".join([*plain, *rest, *([f"All of them: {url}"] if url else [])]) + "\n",
        at_s=at_s,
        urgent=pressing,
        tone=tone,
        brief=_brief([line for line, _ in lines]),
        url=url,
    )


def _brief(lines: Sequence[str]) -> str:
    more = len(lines) - MOST_BRIEF
    return "\n".join([*lines[:MOST_BRIEF], *([f"... and {more} more."] if more > 0 else [])])
