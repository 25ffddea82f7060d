"""One unproven change per service: a change that is proven and on lease no longer keeps others out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    unproven, unclosed = sa.text("state IN ('intended', 'made')"), sa.text("state <> 'closed'")
    op.drop_index("changes_one_open_per_service", "changes")
    op.create_index(
        "changes_one_unproven_per_service",
        "changes",
        ["service"],
        unique=True,
        sqlite_where=unproven,
        postgresql_where=unproven,
    )
    op.create_index(
        "changes_unclosed", "changes", ["opened_at_s"], sqlite_where=unclosed, postgresql_where=unclosed
    )


def downgrade() -> None:
    raise NotImplementedError("Two changes of one service may be open now; no index can hold them to one again.")
