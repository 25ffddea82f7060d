"""Levers whose predictions do not hold as promised: slotune asks before it pulls them, and says so once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from detection.model import Service, make_id
from tuning.loop.parts import Parts
from tuning.loop.tell import tell_all
from tuning.past import Past, Try
from tuning.policies.coverage import HIGH, LOW, Coverage, coverage
from tuning.query import Query
from tuning.report.notice_mail import notice_mail


def asking_first(parts: Parts, service: Service, at_s: float) -> tuple[Service, dict[str, Coverage]]:
    """The service with the mode that its levers' predictions have earned, and the levers that are held back for it.

    All verdicts are asked for: at which of them it turned must not move with the time.
    Only from act to approve: a lever that asks, or does nothing, does so already. People are told when that begins and
    when it ends.
    """
    acting = [name for name, lever in service.levers.items() if (lever.mode or service.mode) == "act"]
    if not acting:
        return service, {}
    verdicts = Query(kinds=("choose_action", "verify_p95"), services=(service.name,))
    known = of_levers(Past().add(parts.ledger.find(verdicts)).tries.values())
    held = {name: found for name in acting if (found := known.get(name)) is not None and found.asks}
    for name in acting:
        found = known.get(name)
        if found is not None and found.turned:
            _tell(parts, service.name, name, found, at_s)
    levers = {
        name: lever.model_copy(update={"mode": "approve"}) if name in held else lever
        for name, lever in service.levers.items()
    }
    return service.model_copy(update={"levers": levers}), held


def of_levers(tries: Iterable[Try]) -> dict[str, Coverage]:
    """By lever, of the verdicts of one service; a change of two levers counts for both."""
    judged = [one for one in tries if one.predicted is not None and one.verdict is not None]
    found: dict[str, list[bool]] = defaultdict(list)
    for one in sorted(judged, key=lambda one: (one.verdict.at_s if one.verdict else 0.0, one.id)):
        seen_ms = one.verdict.after_ms if one.verdict is not None else None
        if one.predicted is not None and seen_ms is not None:
            for lever in one.levers:
                found[lever].append(one.predicted.low <= seen_ms <= one.predicted.high)
    return {lever: coverage(held) for lever, held in found.items()}


def words(lever: str, found: Coverage) -> str:
    """Why a lever is held back, or that it is no more."""
    name = lever.replace("_", " ")
    band = f"{100 * LOW:.0f} to {100 * HIGH:.0f} %"
    if not found.asks:
        return f"{name}: {found.text}: as often as promised ({band}), so slotune acts by itself again"
    off = "too narrow" if found.off == "narrow" else "so wide that they say little"
    return f"{name}: {found.text}: they are {off} ({band} is as promised), so slotune asks before it pulls this lever"


def because(levers: Iterable[str], held: Mapping[str, Coverage]) -> str:
    """What a plan of these levers says of it; "" where none of them is held back."""
    return "; ".join(words(lever, held[lever]) for lever in levers if lever in held)


def _tell(parts: Parts, service: str, lever: str, found: Coverage, at_s: float) -> None:
    """Once for each turn: the message's id is that of the verdict at which it turned."""
    begins = "asks first" if found.asks else "acts by itself again"
    title = f"{service}: slotune {begins} with {lever.replace('_', ' ')}"
    mail = notice_mail(
        make_id("coverage", service, lever, found.turned, found.asks),
        title,
        [f"{words(lever, found)}.", "What it predicts and what came of it: slotune review, or the page's effects."],
        at_s,
        service=service,
        url=parts.page,
    )
    tell_all(parts, replace(mail, about=f"coverage/{service}/{lever}"))
