"""Reading the history, quickly: for a listing, importing SQLAlchemy takes longer than the query.

`open_reader` answers a reader of the ledger at a URL: for SQLite the standard library's driver, for anything else
SqlLedger, which has the same methods. Neither creates or changes anything.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from tuning.errors import LedgerUnavailable
from tuning.ledger.words import sentence

COLUMNS = ("id", "kind", "phase", "service", "parent_id", "incident_id", "at_s", "body")


class Line(Protocol):
    """What a listing needs of a record; tuning.model.Record is one."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def incident_id(self) -> str | None: ...
    @property
    def at_s(self) -> float: ...
    @property
    def body(self) -> Mapping[str, Any]: ...


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

    def find(
        self,
        *,
        kind: str | None = None,
        service: str | None = None,
        incident_id: str | None = None,
        parent_id: str | None = None,
        since_s: float | None = None,
        limit: int = 1000,
    ) -> Sequence[Line]: ...

    def of_incidents(
        self, incident_ids: Sequence[str], *, kinds: Sequence[str] = (), limit: int = 10_000
    ) -> Sequence[Line]: ...

    def pages(self, *, since_s: float | None = None, size: int = 10_000) -> Iterator[Sequence[Line]]: ...

    def open_lines(self) -> Sequence[OpenLine]: ...


def open_reader(url: str) -> Reader:
    """LedgerUnavailable with a sentence when there is no ledger at this URL."""
    if url.startswith("sqlite:///") and "?" not in url and ":memory:" not in url:
        return SqliteReader(url.removeprefix("sqlite:///"))
    from tuning.ledger.sql import SqlLedger

    return SqlLedger(url)


class SqliteReader:
    """Reader on an SQLite file, without SQLAlchemy."""

    def __init__(self, path: str) -> None:
        self.where = f"sqlite:///{path}"
        if not Path(path).exists():
            raise LedgerUnavailable(f"There is no ledger at {self.where} yet: nothing has been recorded.")
        with self._translated():
            # rw without create: a reader of a write-ahead log needs its shared-memory file, and writes nothing else.
            self._connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=10.0)

    def get(self, record_id: str) -> Line | None:
        rows = self._lines("WHERE id = ?", [record_id])
        return rows[0] if rows else None

    def find(
        self,
        *,
        kind: str | None = None,
        service: str | None = None,
        incident_id: str | None = None,
        parent_id: str | None = None,
        since_s: float | None = None,
        limit: int = 1000,
    ) -> Sequence[Line]:
        wanted = {"kind": kind, "service": service, "incident_id": incident_id, "parent_id": parent_id}
        # + keeps an index from being used: a family has a few dozen records, a kind a hundred thousand
        family = incident_id is not None or parent_id is not None
        plus = {"kind": "+", "service": "+"} if family else {}
        named = {f"{plus.get(name, '')}{name} = ?": value for name, value in wanted.items() if value is not None}
        conditions: dict[str, object] = {**named}
        if since_s is not None:
            conditions["at_s >= ?"] = since_s
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        return self._lines(f"{where}ORDER BY at_s DESC, seq DESC LIMIT ?", [*conditions.values(), limit])

    def of_incidents(
        self, incident_ids: Sequence[str], *, kinds: Sequence[str] = (), limit: int = 10_000
    ) -> Sequence[Line]:
        where = f"WHERE incident_id IN ({_marks(incident_ids)})"
        if kinds:
            where += f" AND +kind IN ({_marks(kinds)})"  # + : start from the incidents, not from the kind
        return self._lines(f"{where} ORDER BY at_s, seq LIMIT ?", [*incident_ids, *kinds, limit])

    def pages(self, *, since_s: float | None = None, size: int = 10_000) -> Iterator[Sequence[Line]]:
        last = -1
        while True:
            since = float("-inf") if since_s is None else since_s
            with self._translated():
                sql = f"SELECT seq, {', '.join(COLUMNS)} FROM records WHERE seq > ? AND at_s >= ? ORDER BY seq LIMIT ?"  # noqa: S608 (constant names)
                rows = self._connection.execute(sql, [last, since, size]).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield [_line(row[1:]) for row in rows]

    def open_lines(self) -> Sequence[OpenLine]:
        with self._translated():
            rows = self._connection.execute(
                "SELECT plan_id, service, incident_id, state, plan, opened_at_s, expires_at_s FROM changes "
                "WHERE state <> 'closed' ORDER BY opened_at_s"
            ).fetchall()
        return [OpenLine(p, s, i, state, json.loads(plan), at, until) for p, s, i, state, plan, at, until in rows]

    def _lines(self, rest: str, values: Sequence[object]) -> list[Line]:
        with self._translated():
            # Only constants and question marks are put together here; every value is bound.
            rows = self._connection.execute(f"SELECT {', '.join(COLUMNS)} FROM records {rest}", values)  # noqa: S608
            return [_line(row) for row in rows]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"The ledger at {self.where} {sentence(str(error))}") from error


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" for _ in values)


def _line(row: Sequence[Any]) -> Line:
    record_id, kind, phase, service, parent_id, incident_id, at_s, body = row
    return PlainLine(record_id, kind, phase, service, parent_id, incident_id, at_s, json.loads(body))
