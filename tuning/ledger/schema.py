"""The ledger's tables, as SQLAlchemy Core sees them.

`records` only grows (triggers refuse UPDATE and DELETE). `changes` holds one row per change, whose `state` moves
intended -> made -> leased -> closed; a partial unique index lets at most one unproven change of a service exist.
`blobs` are big values under a key, which may be replaced.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0003"
"""The newest migration: a ledger at another revision is migrated, or refused when it is newer than this program."""

USABLE_FROM = "0003"
"""The oldest program, by its newest migration, that may work on a ledger of this revision: during a rolling upgrade
one worker has migrated it and another still runs the older program. A migration that only adds leaves this as it is."""

metadata = sa.MetaData()

records = sa.Table(
    "records",
    metadata,
    # 64 bits on PostgreSQL; on SQLite only INTEGER is an alias of the row id
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("parent_id", sa.Text),
    sa.Column("incident_id", sa.Text),
    sa.Column("at_s", sa.Float(53), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("records_id", "id", unique=True),
    sa.Index("records_at", "at_s", "seq"),
    sa.Index("records_kind_at", "kind", "at_s", "seq"),
    sa.Index("records_kind_phase_at", "kind", "phase", "at_s", "seq"),
    sa.Index("records_service_at", "service", "at_s", "seq"),
    sa.Index("records_service_kind_at", "service", "kind", "at_s", "seq"),
    sa.Index("records_incident_at", "incident_id", "at_s", "seq"),
    sa.Index("records_parent_at", "parent_id", "at_s", "seq"),
)

changes = sa.Table(
    "changes",
    metadata,
    sa.Column("plan_id", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, nullable=False),
    sa.Column("incident_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("opened_at_s", sa.Float(53), nullable=False),
    sa.Column("expires_at_s", sa.Float(53)),
    sa.Column("run", sa.Text, nullable=False),
    sa.CheckConstraint("state IN ('intended', 'made', 'leased', 'closed')", name="changes_state"),
    sa.Index(
        "changes_one_unproven_per_service",
        "service",
        unique=True,
        sqlite_where=sa.text("state IN ('intended', 'made')"),
        postgresql_where=sa.text("state IN ('intended', 'made')"),
    ),
    sa.Index(
        "changes_unclosed",
        "opened_at_s",
        sqlite_where=sa.text("state <> 'closed'"),
        postgresql_where=sa.text("state <> 'closed'"),
    ),
)

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("at_s", sa.Float(53), nullable=False),
)

ORDER = ("intended", "made", "leased", "closed")
"""A change's states, in the only direction in which they move."""
