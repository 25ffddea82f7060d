"""An index by kind and phase: intents that wait for their result, and results of a time, are found without a scan."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("records_kind_phase_at", "records", ["kind", "phase", "at_s", "seq"])


def downgrade() -> None:
    op.drop_index("records_kind_phase_at", "records")
