"""Reading the history, quickly: for a listing, importing SQLAlchemy takes longer than the query.

`open_reader` answers a reader of the ledger at a URL: for SQLite the standard library's driver, for anything else
SqlLedger, which has the same methods. Neither creates or changes anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tuning.errors import LedgerUnavailable
from tuning.ledger.lines import Line, OpenLine, Reader, line_of
from tuning.ledger.statements import COLUMNS, select, written
from tuning.ledger.words import body_of, sentence
from tuning.query import Query


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
        rows = self.find(Query(ids=(record_id,)))
        return rows[0] if rows else None

    def find(self, query: Query) -> Sequence[Line]:
        text, values = select(query, "sqlite")
        with self._translated():
            return [line for row in self._connection.execute(text, values) if (line := line_of(row)) is not None]

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
            yield [line for row in rows if (line := line_of(row[1:])) is not None]

    def newest(self) -> int:
        with self._translated():
            (number,) = self._connection.execute("SELECT max(seq) FROM records").fetchone()
        return int(number or 0)

    def written(self, after: int, kinds: tuple[str, ...], *, size: int = 5_000) -> Iterator[tuple[int, Sequence[Line]]]:
        while True:
            text, values = written(after, kinds, size, "sqlite")
            with self._translated():
                rows = self._connection.execute(text, values).fetchall()
            if not rows:
                return
            after = int(rows[-1][0])
            yield after, [line for row in rows if (line := line_of(row[1:])) is not None]
            if len(rows) < size:
                return

    def open_lines(self) -> Sequence[OpenLine]:
        with self._translated():
            rows = self._connection.execute(
                "SELECT plan_id, service, incident_id, state, plan, opened_at_s, expires_at_s FROM changes "
                "WHERE state <> 'closed' ORDER BY opened_at_s"
            ).fetchall()
        return [
            OpenLine(p, s, i, state, body_of(plan, p, s) or {"id": p, "service": s, "incident_id": i}, at, until)
            for p, s, i, state, plan, at, until in rows
        ]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"The ledger at {self.where} {sentence(str(error))}") from error
