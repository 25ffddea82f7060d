"""The memory of slotune: every step's record, every change's fate, and the blobs that are too big to travel.

`SqlLedger` is imported on first use: a listing (`tuning.ledger.reader`) does without SQLAlchemy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuning.ledger.sql import SqlLedger

__all__ = ["SqlLedger"]


def __getattr__(name: str) -> object:
    if name == "SqlLedger":
        from tuning.ledger.sql import SqlLedger

        return SqlLedger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
