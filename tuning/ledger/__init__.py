"""The memory of slotune: every step's record, every change's fate, and the blobs that are too big to travel."""

from __future__ import annotations

from tuning.ledger.sql import SqlLedger

__all__ = ["SqlLedger"]
