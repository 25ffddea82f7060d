"""Records, changes and blobs; records only grow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQLITE_TRIGGERS = (
    "CREATE TRIGGER records_no_update BEFORE UPDATE ON records "
    "BEGIN SELECT RAISE(ABORT, 'records are append-only'); END",
    "CREATE TRIGGER records_no_delete BEFORE DELETE ON records "
    "BEGIN SELECT RAISE(ABORT, 'records are append-only'); END",
)
POSTGRESQL_TRIGGERS = (
    "CREATE FUNCTION slotune_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'records are append-only'; END $$",
    "CREATE TRIGGER records_no_change BEFORE UPDATE OR DELETE ON records "
    "FOR EACH ROW EXECUTE FUNCTION slotune_append_only()",
    "CREATE TRIGGER records_no_truncate BEFORE TRUNCATE ON records "
    "FOR EACH STATEMENT EXECUTE FUNCTION slotune_append_only()",
)


def upgrade() -> None:
    op.create_table(
        "records",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.Column("incident_id", sa.Text),
        sa.Column("at_s", sa.Float(53), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("records_id", "records", ["id"], unique=True)
    op.create_index("records_at", "records", ["at_s", "seq"])
    op.create_index("records_kind_at", "records", ["kind", "at_s", "seq"])
    op.create_index("records_service_at", "records", ["service", "at_s", "seq"])
    op.create_index("records_service_kind_at", "records", ["service", "kind", "at_s", "seq"])
    op.create_index("records_incident_at", "records", ["incident_id", "at_s", "seq"])
    op.create_index("records_parent_at", "records", ["parent_id", "at_s", "seq"])
    op.create_table(
        "changes",
        sa.Column("plan_id", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("incident_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("opened_at_s", sa.Float(53), nullable=False),
        sa.Column("expires_at_s", sa.Float(53)),
        sa.Column("run", sa.Text, nullable=False),
        sa.CheckConstraint("state IN ('intended', 'made', 'leased', 'closed')", name="changes_state"),
    )
    unclosed = sa.text("state <> 'closed'")
    op.create_index(
        "changes_one_open_per_service",
        "changes",
        ["service"],
        unique=True,
        sqlite_where=unclosed,
        postgresql_where=unclosed,
    )
    op.create_table(
        "blobs",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("at_s", sa.Float(53), nullable=False),
    )
    triggers = SQLITE_TRIGGERS if op.get_bind().dialect.name == "sqlite" else POSTGRESQL_TRIGGERS
    for statement in triggers:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("The ledger's first schema has nothing below it; its records are never dropped.")
