"""A rehearsal in words: one sentence, and tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from slotune.rehearsal.result import Amount, Incident, Rehearsal


def summary(found: Rehearsal) -> str:
    """One sentence for whoever decides whether the switch is thrown."""
    incidents = found.incidents
    if not incidents:
        return f"On the last {days(found.days)}: no incident, {_quiet(found)}."
    counts = [
        _count(found.count("cured"), "would have been cured"),
        _count(found.count("eased"), "eased"),
        _count(found.count("not cured"), "tried without success and undone"),
        _count(found.count("under way"), "under way at the end"),
        _count(found.count("held"), "held with the reason"),
        _count(found.count("passed"), "over before anything was decided"),
        _count(found.count("cannot tell"), "cannot be told"),
    ]
    cost = sum(service.cost_added for service in found.services)
    several = f"{len(incidents)} incident{'s' if len(incidents) > 1 else ''}"
    weekly = sum(service.changes for service in found.services) / max(found.days / 7.0, 1.0)
    one = abs(weekly - 1) < 1e-9
    weeks = ("change" if one else "changes") + (" a week" if found.days >= 7 else "")
    return (
        f"On the last {days(found.days)}: {several}, {', '.join(c for c in counts if c)}; "
        f"{amount(found.saved)} SLO minutes saved; {weekly:.3g} {weeks}; {_quiet(found)}; cost {cost:.2f}."
    )


def _quiet(found: Rehearsal) -> str:
    quiet_days = sum(service.quiet_days for service in found.services)
    changes = sum(service.quiet_changes for service in found.services)
    if not quiet_days:
        return "no quiet day"
    return f"{changes} change{'' if changes == 1 else 's'} on {quiet_days} quiet day{'' if quiet_days == 1 else 's'}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number else ""


def days(number: float) -> str:
    """ "30 days", "90 minutes"."""
    if number >= 1.5:
        return f"{number:.0f} days"
    hours = 24 * number
    return f"{hours:.0f} hours" if hours >= 2 else f"{60 * hours:.0f} minutes"


def untold(levers: Sequence[str]) -> str:
    """What is said of levers that no rehearsal can lend."""
    return f"Cannot tell whether {' or '.join(levers)} would have helped: a rehearsal cannot lend it."


def amount(found: Amount) -> str:
    """ "214 [150 to 260]"; an amount that was measured has no interval."""
    if found.low == found.high:
        return plain(found.value)
    return f"{plain(found.value)} [{plain(found.low)} to {plain(found.high)}]"


def plain(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}"


def how_known(found: Amount) -> str:
    """Which part of a figure is measured."""
    if found.modelled <= 0.0:
        return "measured"
    if found.modelled >= 1.0:
        return "modelled"
    return f"{1 - found.modelled:.0%} measured"


def clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def render(found: Rehearsal) -> str:
    """The sentence, what was left out, every service beside what others would have done, and every incident."""
    lines = [
        summary(found),
        "Recorded P95 is measured; after a change of slotune's it is modelled, with 90 % intervals.",
    ]
    lines += [*found.left_out, ""]
    rows: list[tuple[str, ...]] = [("service", "who", "SLO minutes", "replica-hours", "cost", "changes")]
    for service in found.services:
        for rival in service.rivals:
            mine = rival.name == "slotune"
            minutes = amount(service.minutes) if mine else plain(rival.minutes)
            rows.append((
                service.service, rival.name, minutes, f"{rival.replica_hours:.1f}", f"{rival.cost:.2f}",
                str(service.changes if mine else rival.changes),
            ))  # fmt: skip
    lines += [*table(rows), ""]
    rows = [("when", "service", "incident", "minutes", "with slotune", "known", "off", "changes", "why")]
    rows += [_row(incident) for incident in found.incidents]
    lines += table(rows) if len(rows) > 1 else ["No incident: nothing would have been changed."]
    for service in found.services:
        lines += [f"{service.service}: {note}" for note in service.notes]
    return "\n".join(lines)


def _row(one: Incident) -> tuple[str, ...]:
    return (
        clock(one.start_s),
        one.service,
        f"{one.how}: {one.cause or one.symptom}",
        plain(one.recorded_min),
        amount(one.rehearsed_min),
        how_known(one.rehearsed_min),
        f"{one.off:.0%}" if one.off is not None else "-",
        "; ".join(one.changes) or "none",
        one.reason,
    )


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows with their columns under each other; the last column is as long as it is."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(row[k].ljust(width) for k, width in enumerate(widths)), row[-1]]).rstrip() for row in rows
    ]  # fmt: skip
