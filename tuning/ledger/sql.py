"""The ledger in a database: SQLite by default, PostgreSQL by URL. Same statements, same constraints on both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from tuning.caps import Caps, Standing
from tuning.errors import ChangeAlreadyOpen, LedgerUnavailable, Permanent
from tuning.ledger import claims
from tuning.ledger import engine as engines
from tuning.ledger.lines import OpenLine, PlainLine, line_of
from tuning.ledger.rows import change_of, clean, json_object, open_change_of, record_of, to_json
from tuning.ledger.schema import ORDER, blobs, changes, records
from tuning.ledger.statements import select, written
from tuning.model import OpenChange, Record, UnreadableChange
from tuning.query import Query

_INSERT_RECORD = sa.text(
    "INSERT INTO records (id, kind, phase, service, parent_id, incident_id, at_s, body) "
    "VALUES (:id, :kind, :phase, :service, :parent_id, :incident_id, :at_s, :body) ON CONFLICT (id) DO NOTHING"
)
_UPSERT_BLOB = sa.text(
    "INSERT INTO blobs (key, data, at_s) VALUES (:key, :data, :at_s) "
    "ON CONFLICT (key) DO UPDATE SET data = excluded.data, at_s = excluded.at_s"
)


class SqlLedger:
    """Ledger on SQLAlchemy. Every method is one transaction; every failure is a LedgerUnavailable with a sentence."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        """Connect lazily to a ledger whose schema is there already; `SqlLedger.open` also creates it."""
        self._url = engines.parse_url(url)
        self.where = engines.shown(self._url)
        self._engine = engines.make_engine(self._url, timeout_s=timeout_s)

    @classmethod
    def open(cls, url: str, *, timeout_s: float = 10.0) -> SqlLedger:
        """Connect, and create or migrate the schema; concurrent first starts do not clash."""
        ledger = cls(url, timeout_s=timeout_s)
        database = ledger._url.database
        if ledger._engine.dialect.name == "sqlite" and database and database != ":memory:":
            try:
                Path(database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LedgerUnavailable(
                    f"The ledger at {ledger.where} cannot be created: its folder cannot be made ({error.strerror})."
                ) from error
        from tuning.ledger.migrate import migrate

        with engines.translated(ledger.where):
            migrate(ledger._engine, ledger.where)
        return ledger

    def close(self) -> None:
        self._engine.dispose()

    def put(self, record: Record) -> bool:
        with self._write() as connection:
            return _append(connection, record)

    def get(self, record_id: str) -> Record | None:
        with self._read() as connection:
            row = connection.execute(sa.select(records).where(records.c.id == record_id)).first()
        return None if row is None else record_of(row)

    def find(self, query: Query) -> Sequence[Record]:
        text, values = select(query, "sqlite" if self._engine.dialect.name == "sqlite" else "postgresql")
        with self._read() as connection:
            return [r for row in connection.execute(sa.text(text), values) if (r := record_of(row)) is not None]

    def pages(self, *, since_s: float | None = None, size: int = 10_000) -> Iterator[Sequence[Record]]:
        """Every record, in the order of writing, page by page: an export needs no more memory than one page."""
        last = -1
        while True:
            query = sa.select(records).where(records.c.seq > last).order_by(records.c.seq).limit(size)
            if since_s is not None:
                query = query.where(records.c.at_s >= since_s)
            with self._read() as connection:
                rows = connection.execute(query).all()
            if not rows:
                return
            last = rows[-1].seq
            yield [r for row in rows if (r := record_of(row)) is not None]

    def newest(self) -> int:
        with self._read() as connection:
            return int(connection.execute(sa.select(sa.func.max(records.c.seq))).scalar() or 0)

    def written(
        self, after: int, kinds: tuple[str, ...], *, size: int = 5_000
    ) -> Iterator[tuple[int, Sequence[PlainLine]]]:
        """What was written after the record number `after`, page by page (tuning.ledger.lines.Reader)."""
        dialect: Literal["sqlite", "postgresql"] = "sqlite" if self._engine.dialect.name == "sqlite" else "postgresql"
        while True:
            text, values = written(after, kinds, size, dialect)
            with self._read() as connection:
                rows = connection.execute(sa.text(text), values).all()
            if not rows:
                return
            after = int(rows[-1][0])
            yield after, [line for row in rows if (line := line_of(row[1:])) is not None]
            if len(rows) < size:
                return

    def standing(self, at_s: float, memory_s: float) -> Standing:
        with self._read() as connection:
            return claims.standing(connection, at_s, memory_s)

    def open_change(self, change: OpenChange, intent: Record, caps: Caps | None = None) -> None:
        with self._write() as connection:
            claims.one_after_the_other(connection)
            known = connection.execute(sa.select(changes.c.state).where(changes.c.plan_id == change.plan_id)).scalar()
            if known == "closed":
                raise ChangeAlreadyOpen(
                    f"Plan {change.plan_id} of {change.service} was carried out and closed already; a plan is "
                    "carried out once."
                )
            if known is None:
                claims.refuse(connection, change, caps)
                values = change.model_dump(mode="json", exclude={"plan"}) | {"plan": change.plan.model_dump_json()}
                connection.execute(changes.insert().values(**values))
            _append(connection, intent)

    def update_change(
        self,
        plan_id: str,
        state: Literal["made", "leased", "closed"],
        record: Record,
        *,
        expires_at_s: float | None = None,
    ) -> None:
        with self._write() as connection:
            row = connection.execute(
                sa.select(changes.c.state).where(changes.c.plan_id == plan_id).with_for_update()
            ).first()
            if row is None:
                raise Permanent(f"The ledger at {self.where} knows no change of plan {plan_id}: it was never opened.")
            new = _append(connection, record)
            if not new or ORDER.index(state) < ORDER.index(row.state):
                return  # said before, or said late: a state never moves back
            values: dict[str, object] = {"state": state}
            if expires_at_s is not None:
                values["expires_at_s"] = expires_at_s
            connection.execute(changes.update().where(changes.c.plan_id == plan_id).values(**values))

    def open_changes(self, service: str | None = None) -> Sequence[OpenChange]:
        return [c for row in self._unclosed(service) if (c := open_change_of(row)) is not None]

    def unreadable_changes(self) -> Sequence[UnreadableChange]:
        return [found for row in self._unclosed(None) if isinstance(found := change_of(row), UnreadableChange)]

    def open_lines(self) -> Sequence[OpenLine]:
        """The open changes for a listing, also those whose plan this program cannot read whole."""
        return [
            OpenLine(
                row.plan_id,
                row.service,
                row.incident_id,
                row.state,
                json_object(row.plan) or {"id": row.plan_id, "service": row.service, "incident_id": row.incident_id},
                row.opened_at_s,
                row.expires_at_s,
            )
            for row in self._unclosed(None)
        ]

    def _unclosed(self, service: str | None) -> Sequence[Row[Any]]:
        query = sa.select(changes).where(sa.text("state <> 'closed'")).order_by(changes.c.opened_at_s)
        if service is not None:
            query = query.where(changes.c.service == service)
        with self._read() as connection:
            return connection.execute(query).all()

    def put_blob(self, key: str, data: bytes, *, at_s: float) -> None:
        with self._write() as connection:
            connection.execute(_UPSERT_BLOB, {"key": key, "data": data, "at_s": at_s})

    def get_blob(self, key: str) -> bytes | None:
        with self._read() as connection:
            data = connection.execute(sa.select(blobs.c.data).where(blobs.c.key == key)).scalar()
        return None if data is None else bytes(data)

    def get_blobs(self, keys: Sequence[str]) -> dict[str, bytes]:
        wanted = sa.select(blobs.c.key, blobs.c.data).where(blobs.c.key.in_(keys))
        with self._read() as connection:
            return {row.key: bytes(row.data) for row in connection.execute(wanted)}

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with engines.translated(self.where):
            connection = self._engine.connect().execution_options(**{engines.WRITE: True})
            with connection, connection.begin():
                yield connection

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with engines.translated(self.where), self._engine.connect() as connection:
            yield connection


def _append(connection: Connection, record: Record) -> bool:
    told = record.model_dump(exclude={"body"})
    values = {name: clean(text) if isinstance(text, str) else text for name, text in told.items()}
    values["body"] = to_json(record.body)
    return connection.execute(_INSERT_RECORD, values).rowcount == 1
