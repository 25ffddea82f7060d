"""Runs migrations on the connection, and inside the transaction, that tuning.ledger.migrate hands over."""

from __future__ import annotations

from alembic import context

from tuning.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="slotune_alembic_version",
    transactional_ddl=False,  # the caller holds the transaction and the lock
)
context.run_migrations()
