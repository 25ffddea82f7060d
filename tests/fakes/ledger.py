"""A ledger in memory that can be told to be down: passes the same contract suite as the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from tuning.caps import Caps, Standing
from tuning.errors import LedgerUnavailable
from tuning.ledger.memory import MemoryLedger
from tuning.model import OpenChange, Record, UnreadableChange
from tuning.query import Query


class FakeLedger(MemoryLedger):
    down: str | None = None
    """Set to a sentence: from now on every call raises LedgerUnavailable with it."""

    def _up(self) -> None:
        if self.down is not None:
            raise LedgerUnavailable(self.down)

    def put(self, record: Record) -> bool:
        self._up()
        return super().put(record)

    def get(self, record_id: str) -> Record | None:
        self._up()
        return super().get(record_id)

    def find(self, query: Query) -> Sequence[Record]:
        self._up()
        return super().find(query)

    def standing(self, at_s: float, memory_s: float) -> Standing:
        self._up()
        return super().standing(at_s, memory_s)

    def open_change(self, change: OpenChange, intent: Record, caps: Caps | None = None) -> None:
        self._up()
        super().open_change(change, intent, caps)

    def update_change(
        self,
        plan_id: str,
        state: Literal["made", "leased", "closed"],
        record: Record,
        *,
        expires_at_s: float | None = None,
    ) -> None:
        self._up()
        super().update_change(plan_id, state, record, expires_at_s=expires_at_s)

    def open_changes(self, service: str | None = None) -> Sequence[OpenChange]:
        self._up()
        return super().open_changes(service)

    def unreadable_changes(self) -> Sequence[UnreadableChange]:
        self._up()
        return super().unreadable_changes()

    def put_blob(self, key: str, data: bytes, *, at_s: float) -> None:
        self._up()
        super().put_blob(key, data, at_s=at_s)

    def get_blob(self, key: str) -> bytes | None:
        self._up()
        return super().get_blob(key)

    def get_blobs(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        self._up()
        return super().get_blobs(keys)
