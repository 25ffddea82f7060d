"""The ledger in a database: SQLite by default, PostgreSQL by URL. Same statements, same constraints on both."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import IntegrityError

from tuning.errors import ChangeAlreadyOpen, LedgerUnavailable, Permanent
from tuning.ledger import engine as engines
from tuning.ledger.lines import OpenLine
from tuning.ledger.schema import ORDER, blobs, changes, records
from tuning.ledger.statements import select
from tuning.model import OpenChange, Plan, Record
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
        return None if row is None else _record(row)

    def find(self, query: Query) -> Sequence[Record]:
        text, values = select(query, "sqlite" if self._engine.dialect.name == "sqlite" else "postgresql")
        with self._read() as connection:
            return [_record(row) for row in connection.execute(sa.text(text), values)]

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
            yield [_record(row) for row in rows]

    def open_change(self, change: OpenChange, intent: Record) -> None:
        with self._write() as connection:
            known = connection.execute(sa.select(changes).where(changes.c.plan_id == change.plan_id)).first()
            if known is not None:
                if known.state == "closed":
                    raise ChangeAlreadyOpen(
                        f"Plan {change.plan_id} of {change.service} was carried out and closed already; a plan is "
                        "carried out once."
                    )
                _append(connection, intent)
                return
            values = change.model_dump(mode="json", exclude={"plan"}) | {"plan": change.plan.model_dump_json()}
            try:
                # A savepoint, so that the claim alone fails and the reason can still be read.
                with connection.begin_nested():
                    connection.execute(changes.insert().values(**values))
            except IntegrityError as error:
                raise ChangeAlreadyOpen(_taken(connection, change)) from error
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
        query = sa.select(changes).where(sa.text("state <> 'closed'")).order_by(changes.c.opened_at_s)
        if service is not None:
            query = query.where(changes.c.service == service)
        with self._read() as connection:
            return [_open_change(row) for row in connection.execute(query)]

    def open_lines(self) -> Sequence[OpenLine]:
        """The open changes for a listing."""
        return [
            OpenLine(
                change.plan_id,
                change.service,
                change.incident_id,
                change.state,
                change.plan.model_dump(mode="json"),
                change.opened_at_s,
                change.expires_at_s,
            )
            for change in self.open_changes()
        ]

    def put_blob(self, key: str, data: bytes, *, at_s: float) -> None:
        with self._write() as connection:
            connection.execute(_UPSERT_BLOB, {"key": key, "data": data, "at_s": at_s})

    def get_blob(self, key: str) -> bytes | None:
        with self._read() as connection:
            data = connection.execute(sa.select(blobs.c.data).where(blobs.c.key == key)).scalar()
        return None if data is None else bytes(data)

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
    values = record.model_dump(exclude={"body"}) | {"body": to_json(record.body)}
    return connection.execute(_INSERT_RECORD, values).rowcount == 1


def _taken(connection: Connection, change: OpenChange) -> str:
    holder = connection.execute(
        sa.select(changes.c.plan_id, changes.c.state)
        .where(changes.c.service == change.service)
        .where(sa.text("state <> 'closed'"))
    ).first()
    by = f"plan {holder.plan_id} is {holder.state}" if holder is not None else "another plan has just claimed it"
    return f"Service {change.service} has an open change ({by}): one change at a time, and each is proven first."


def _record(row: Row[Any]) -> Record:
    # The row was validated when it was written: model_construct keeps a listing of thousands fast.
    return Record.model_construct(
        id=row.id,
        kind=row.kind,
        phase=row.phase,
        service=row.service,
        parent_id=row.parent_id,
        incident_id=row.incident_id,
        at_s=row.at_s,
        body=json.loads(row.body),
    )


def _open_change(row: Row[Any]) -> OpenChange:
    return OpenChange(
        plan_id=row.plan_id,
        service=row.service,
        incident_id=row.incident_id,
        state=row.state,
        plan=Plan.model_validate_json(row.plan),
        opened_at_s=row.opened_at_s,
        expires_at_s=row.expires_at_s,
        run=row.run,
    )


def to_json(body: object) -> str:
    """JSON without NaN: a number that is none becomes null, so that every reader can read it."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(body), allow_nan=False, separators=(",", ":"))


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
