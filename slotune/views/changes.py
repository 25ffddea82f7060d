"""Changes in force: what slotune changed and has not taken back, what it costs, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass

from slotune import history
from slotune.views.reading import Reading

DAY_S = 86_400.0


@dataclass(frozen=True)
class ChangeRow:
    """state: intended, made (unproven), leased (proven, for a while) or kept. Costs in the unit of the prices; quality:
    what it has cost in points so far, in words ("" for what costs none)."""

    plan_id: str
    incident_id: str
    service: str
    change: str
    state: str
    since_s: float
    expires_at_s: float | None
    cost_per_hour: float
    cost_so_far: float
    quality: str = ""


def in_force(reading: Reading, *, days: float = 30.0) -> list[ChangeRow]:
    """Every open change, and those that were kept in the last `days`; newest first."""
    found = reading.memory.of_ledger(
        f"in force {days:g}",
        reading.reader,
        reading.now_s,
        lambda: history.in_force(reading.reader, now_s=reading.now_s, since_s=reading.now_s - days * DAY_S),
    )
    return [ChangeRow(**{name: row[name] for name in ChangeRow.__dataclass_fields__}) for row in found]


def open_by_service(reading: Reading) -> dict[str, ChangeRow]:
    """The newest open change of each service."""
    found: dict[str, ChangeRow] = {}
    for line in reading.reader.open_lines():
        row = history.change_row(
            line.plan, line.state, line.opened_at_s, reading.now_s, expires_at_s=line.expires_at_s
        )
        found[line.service] = ChangeRow(**{name: row[name] for name in ChangeRow.__dataclass_fields__})
    return found
