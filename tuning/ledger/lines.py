"""What a listing reads of the ledger. Of the standard library only: importing more takes longer than the query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuning.ledger.words import body_of
from tuning.line import Line as Line
from tuning.query import Query


@dataclass(frozen=True, slots=True)
class PlainLine:
    id: str
    kind: str
    phase: str
    service: str
    parent_id: str | None
    incident_id: str | None
    at_s: float
    body: Mapping[str, Any]


def line_of(row: Sequence[Any]) -> PlainLine | None:
    """A row of statements.COLUMNS; None, and a line in the log, where its body cannot be read."""
    record_id, kind, phase, service, parent_id, incident_id, at_s, text = row
    body = body_of(text, record_id, service)
    return None if body is None else PlainLine(record_id, kind, phase, service, parent_id, incident_id, at_s, body)


@dataclass(frozen=True, slots=True)
class OpenLine:
    """An open change as a listing needs it; plan: the plan's JSON."""

    plan_id: str
    service: str
    incident_id: str
    state: str
    plan: Mapping[str, Any]
    opened_at_s: float
    expires_at_s: float | None


class Reader(Protocol):
    def get(self, record_id: str) -> Line | None: ...

    def find(self, query: Query) -> Sequence[Line]: ...

    def pages(self, *, since_s: float | None = None, size: int = 10_000) -> Iterator[Sequence[Line]]: ...

    def newest(self) -> int:
        """The number of the record that was written last; 0 before the first. It grows with everything written."""
        ...

    def written(self, after: int, kinds: tuple[str, ...], *, size: int = 5_000) -> Iterator[tuple[int, Sequence[Line]]]:
        """(number of the last record of the page, the page) of what was written after the record number `after`.

        In the order of writing; the intents of levers are left out, they repeat their plan. Each page is a reading of
        its own, so that a long history never holds a transaction open.
        """
        ...

    def open_lines(self) -> Sequence[OpenLine]: ...
