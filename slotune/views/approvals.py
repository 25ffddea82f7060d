"""Plans that wait for a person's yes."""

from __future__ import annotations

from dataclasses import dataclass

from slotune import history
from slotune.views.reading import Reading
from tuning.loop.alive import is_ours
from tuning.loop.records import BEGUN
from tuning.query import Query


@dataclass(frozen=True)
class Waiting:
    """asked_s: when the question was put; until_s: when it is taken as a no. here: it is `slotune run` that asks, so
    the answer is an order in the ledger; else Airflow asks, and is answered there."""

    plan_id: str
    incident_id: str
    service: str
    change: str
    asked_s: float
    until_s: float
    here: bool = False


def waiting(reading: Reading) -> list[Waiting]:
    """Plans in mode approve that nobody has answered and whose time to answer is not over; oldest first."""
    timeout_s = reading.settings.safety.approval_timeout_s
    since_s = reading.now_s - timeout_s
    plans = [
        line
        for line in reading.reader.find(Query(kinds=("choose_action",), since_s=since_s, without=("id", ":intent")))
        if line.body.get("mode") == "approve" and not line.body.get("dry_run") and history.changes_of(line.body)
    ]
    ids = tuple(line.id for line in plans)
    begun = reading.reader.find(Query(kinds=(BEGUN,), incident_ids=tuple({p.incident_id or "" for p in plans})))
    loops = {(line.incident_id, line.body.get("attempt")) for line in begun if is_ours(str(line.body.get("run", "")))}
    answered = {line.parent_id for line in reading.reader.find(Query(parent_ids=ids, bodies=False))}
    found = [
        Waiting(
            line.id,
            line.incident_id or "",
            line.service,
            history.option_text(line.body.get("chosen")),
            line.at_s,
            line.at_s + timeout_s,
            (line.incident_id, line.body.get("attempt")) in loops,
        )
        for line in plans
        if line.id not in answered
    ]
    return sorted(found, key=lambda row: row.asked_s)
