"""Which records of the ledger are meant. A value of the standard library only: a listing imports nothing heavier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """Everything that is named has to hold; what is None is not asked for, and an empty tuple matches nothing.

    kinds, phase, services, incident_ids, parent_ids, ids: the record's own columns. family: these records and those
    that follow from them (id or parent_id is one of these): all that the ledger knows of an attempt is the family of
    its plan and of the plan's inverse. since_s, until_s: epoch seconds, both included.
    without: (column, suffix): only records for which the ledger holds no record with the id `column + suffix`, such
    as reports that were not sent, ("id", ":sent"), or incidents that were not closed, ("incident_id", ":closed").
    holding: a piece of the body as it is written (compact JSON), such as '"guard":"ownership:'. Looked for in the rows
    that the rest of the query finds, so that a few among thousands need not be read whole.
    bodies: False leaves every body empty, where it matters only that something happened.
    order: newest first by the time that a record says, or by when it was written, which no clock that steps back turns
    around: what slotune did last is what it wrote last.
    limit: the newest so many; None: all that is meant. Only a listing for people may cut; a decision never does.
    """

    kinds: Names | None = None
    phase: Literal["intent", "result"] | None = None
    services: Names | None = None
    incident_ids: Names | None = None
    parent_ids: Names | None = None
    ids: Names | None = None
    family: Names | None = None
    since_s: float | None = None
    until_s: float | None = None
    without: tuple[Literal["id", "incident_id"], str] | None = None
    holding: str | None = None
    bodies: bool = True
    order: Literal["time", "written"] = "time"
    limit: int | None = None
