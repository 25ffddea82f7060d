"""Stress tests in the ledger: that a service was loaded on purpose, from when to when. Pure.

What such a stretch shows is no normal traffic: what is normal is learned without it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from tuning.model import Record

STRESS = "stress"
"""The kind of these records. It is no step of the flow: a person begins one."""


def stress_record(
    service: str,
    start_s: float,
    until_s: float,
    phase: Literal["intent", "result"],
    told: Mapping[str, object],
) -> Record:
    """intent: written before anything is sent, with the latest end. result: with the end, and what was found."""
    begun = f"{STRESS}:{service}:{start_s:.3f}"
    return Record(
        id=begun if phase == "intent" else f"{begun}:result",
        kind=STRESS,
        phase=phase,
        service=service,
        parent_id=None if phase == "intent" else begun,
        at_s=start_s if phase == "intent" else until_s,
        body={"start_s": start_s, "until_s": until_s, **told},
    )


def stressed(records: Iterable[Record]) -> dict[str, list[tuple[float, float]]]:
    """(start_s, end_s) by service; of a test that never wrote its end, the latest that it can have had."""
    rows = [record for record in records if record.kind == STRESS]
    ended = {record.parent_id for record in rows if record.phase == "result"}
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in rows:
        start_s, until_s = record.body.get("start_s"), record.body.get("until_s")
        if record.id not in ended and isinstance(start_s, float) and isinstance(until_s, float):
            spans[record.service].append((start_s, until_s))
    return dict(spans)


def under_way(records: Iterable[Record], at_s: float) -> Record | None:
    """A test that has begun, has not written its end, and may still run."""
    rows = [record for record in records if record.kind == STRESS]
    ended = {record.parent_id for record in rows if record.phase == "result"}
    for record in rows:
        until_s = record.body.get("until_s")
        if record.phase == "intent" and record.id not in ended and isinstance(until_s, float) and until_s > at_s:
            return record
    return None
