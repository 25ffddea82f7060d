"""What each lever achieved: how often it worked on which cause, and by how much P95 moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from slotune.views.outcomes import levers_of
from slotune.views.reading import Reading
from tuning.query import Query


@dataclass(frozen=True)
class EffectRow:
    """worked of judged: verdict improved. ratio: median of P95 after over before, None without a number.

    inside of predicted: how many observed P95s lay in the predicted interval.
    """

    lever: str
    cause: str
    judged: int
    worked: int
    rolled_back: int
    ratio: float | None
    predicted: int
    inside: int


def effects(reading: Reading, *, since_s: float | None = None) -> list[EffectRow]:
    """One row per lever and cause, the most used first."""
    reader = reading.reader
    plans = {str(line.body.get("id", line.id)): line.body for line in reader.find(_of("choose_action", since_s))}
    verdicts: dict[str, dict[str, Any]] = {}
    for line in reversed(reader.find(_of("verify_p95", since_s))):
        plan_id = str(line.body.get("plan_id"))
        if plan_id in plans:
            verdicts[plan_id] = dict(line.body)
    undone = {str(line.parent_id) for line in reader.find(_of("roll_back", since_s)) if line.phase == "intent"}
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for plan_id in verdicts:
        plan = plans[plan_id]
        levers = " and ".join(levers_of(plan))
        cause = str((plan.get("diagnosis") or {}).get("cause", "unknown"))
        groups[levers, cause].append(plan_id)
    rows = [_row(lever, cause, ids, plans, verdicts, undone) for (lever, cause), ids in groups.items()]
    return sorted(rows, key=lambda row: (-row.judged, row.lever, row.cause))


def _of(kind: str, since_s: float | None) -> Query:
    return Query(kinds=(kind,), since_s=since_s)


def _row(
    lever: str,
    cause: str,
    ids: Sequence[str],
    plans: dict[str, Any],
    verdicts: dict[str, dict[str, Any]],
    undone: set[str],
) -> EffectRow:
    ratios = [float(e["value"]) for i in ids if (e := verdicts[i].get("effect")) and e.get("value") is not None]
    told = [(plans[i].get("chosen") or {}).get("predicted_p95_ms") for i in ids]
    seen = [verdicts[i].get("p95_after_ms") for i in ids]
    pairs = [(p, s) for p, s in zip(told, seen, strict=True) if p and s is not None]
    return EffectRow(
        lever=lever or "none",
        cause=cause.replace("_", " "),
        judged=len(ids),
        worked=sum(verdicts[i].get("verdict") == "improved" for i in ids),
        rolled_back=sum(i in undone for i in ids),
        ratio=median(ratios) if ratios else None,
        predicted=len(pairs),
        inside=sum(p["low"] <= s <= p["high"] for p, s in pairs),
    )
