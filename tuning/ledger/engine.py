"""Connecting: one engine per ledger, made so that a crash or a fork can hurt nothing.

SQLite: write-ahead log, every commit flushed (synchronous FULL: an intent must be on the disk before the change is
made), a busy timeout, and write transactions that take the lock at once (BEGIN IMMEDIATE), because a transaction
that first reads and then writes can otherwise not be retried by the busy handler. PostgreSQL: psycopg2 with
timeouts. No pool: task processes are forked, and a connection shared over a fork corrupts both sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from tuning.errors import ConfigError, LedgerUnavailable
from tuning.ledger.words import sentence

WRITE = "slotune_write"


def parse_url(text: str) -> URL:
    """The ledger's URL; ConfigError, without repeating the URL's password, when it is not one of ours."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "The ledger's URL is not a database URL: write sqlite:////path/to/ledger.db or "
            "postgresql://user:password@host/database.",
            where="SLOTUNE_LEDGER_URL",
        ) from None
    if url.get_backend_name() != "sqlite" and text.count("@") > 1:
        # where the password ends cannot be told: a piece of it would be taken for the host, and shown
        raise ConfigError(
            "The ledger's URL has more than one @: in a user, a password or an option write @ as %40.",
            where="SLOTUNE_LEDGER_URL",
        )
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg2")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"The ledger lives in sqlite or postgresql, not in {url.get_backend_name()}.", where="SLOTUNE_LEDGER_URL"
        )
    return url


def shown(url: URL) -> str:
    """The URL for messages: no password, and no query part, which may carry one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def make_engine(url: URL, *, timeout_s: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, timeout_s)
    milliseconds = int(timeout_s * 1000)
    try:
        return sa.create_engine(
            url,
            poolclass=NullPool,
            connect_args={
                "connect_timeout": max(2, int(timeout_s)),
                "options": f"-c lock_timeout={milliseconds} -c statement_timeout={6 * milliseconds} "
                "-c idle_in_transaction_session_timeout=60000",
            },
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigError("The PostgreSQL driver is missing: install slotune[postgresql].") from error


def _sqlite(url: URL, timeout_s: float) -> Engine:
    in_memory = url.database in (None, "", ":memory:")
    engine = sa.create_engine(
        url,
        poolclass=StaticPool if in_memory else NullPool,
        connect_args={"timeout": timeout_s, "check_same_thread": not in_memory},
    )

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA temp_store=MEMORY")
        cursor.close()

    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turns the database's errors into one sentence; whatever was under way is rolled back before it is raised."""
    try:
        yield
    except SQLAlchemyError as error:
        own_words = str(getattr(error, "orig", None) or type(error).__name__)
        raise LedgerUnavailable(f"The ledger at {where} {sentence(own_words)}") from error
