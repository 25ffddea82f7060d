"""Brings a ledger's schema to this program's revision; safe when several processes start at once.

The whole migration runs in one transaction behind a lock (SQLite: the write lock; PostgreSQL: an advisory lock), and
looks again at the revision once it holds the lock: the second starter finds nothing left to do. Alembic is imported
only when there is something to migrate, because reading the history must not pay for it.

A ledger says which programs may work on it. One that a newer slotune has migrated is used as it is when it names this
program, so that an upgrade can go worker by worker, and refused otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from tuning.errors import LedgerUnavailable
from tuning.ledger.engine import WRITE
from tuning.ledger.schema import HEAD, USABLE_FROM

VERSION_TABLE = "slotune_alembic_version"
ADVISORY_LOCK = 0x510_70E
USABLE_KEY = "schema/usable-from"


def revision(connection: Connection) -> str | None:
    """The ledger's revision, None for an empty database."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 (constant)


def migrate(engine: Engine, where: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Create or upgrade the schema. Raises LedgerUnavailable when the ledger was written by a newer slotune."""
    with engine.connect() as connection:
        found = revision(connection)
        usable = found is not None and (found == HEAD or _names_us(connection, found))
    if usable:
        return
    if engine.dialect.name == "sqlite":
        _write_ahead_log(engine, sleep)
    with engine.connect().execution_options(**{WRITE: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        found = revision(connection)
        if found != HEAD:
            _upgrade(connection, found, where)
            connection.execute(
                sa.text(
                    "INSERT INTO blobs (key, data, at_s) VALUES (:key, :data, 0) "
                    "ON CONFLICT (key) DO UPDATE SET data = excluded.data"
                ),
                {"key": USABLE_KEY, "data": USABLE_FROM.encode()},
            )


def _names_us(connection: Connection, found: str) -> bool:
    """Whether a ledger of a newer revision says that this program may work on it."""
    if found <= HEAD:
        return False
    said = connection.execute(sa.text("SELECT data FROM blobs WHERE key = :key"), {"key": USABLE_KEY}).scalar()
    return said is not None and bytes(said).decode(errors="replace") <= HEAD


def _write_ahead_log(engine: Engine, sleep: Callable[[float], None]) -> None:
    # Switching the journal mode ignores the busy timeout, so that concurrent first starts retry here.
    for attempt in range(50):
        raw = engine.raw_connection()
        try:
            raw.driver_connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr]
            return
        except Exception as error:
            if "locked" not in str(error) or attempt == 49:
                raise OperationalError("PRAGMA journal_mode", None, error) from error
        finally:
            raw.close()
        sleep(0.1)


def _upgrade(connection: Connection, found: str | None, where: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerUnavailable(
            f"The ledger at {where} was written by a newer slotune (revision {found}, this program knows {HEAD}): "
            "upgrade slotune."
        )
    command.upgrade(config, "head")
