"""A ledger in memory: passes the same contract suite as the database, and can be told to be down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from tuning.errors import ChangeAlreadyOpen, LedgerUnavailable, Permanent
from tuning.ledger.sql import to_json
from tuning.model import OpenChange, Record

ORDER = ("intended", "made", "leased", "closed")


class FakeLedger:
    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.changes: dict[str, OpenChange] = {}
        self.closed: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.down: str | None = None
        """Set to a sentence: from now on every call raises LedgerUnavailable with it."""

    def _up(self) -> None:
        if self.down is not None:
            raise LedgerUnavailable(self.down)

    def put(self, record: Record) -> bool:
        self._up()
        if record.id in self.records:
            return False
        self.records[record.id] = record.model_copy(update={"body": json.loads(to_json(record.body))})
        return True

    def get(self, record_id: str) -> Record | None:
        self._up()
        return self.records.get(record_id)

    def find(
        self,
        *,
        kind: str | None = None,
        service: str | None = None,
        incident_id: str | None = None,
        parent_id: str | None = None,
        since_s: float | None = None,
        limit: int = 1000,
    ) -> Sequence[Record]:
        self._up()
        wanted = {"kind": kind, "service": service, "incident_id": incident_id, "parent_id": parent_id}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        found = [
            record
            for record in reversed(self.records.values())
            if all(getattr(record, name) == value for name, value in wanted.items())
            and (since_s is None or record.at_s >= since_s)
        ]
        return sorted(found, key=lambda record: -record.at_s)[:limit]

    def of_incidents(
        self, incident_ids: Sequence[str], *, kinds: Sequence[str] = (), limit: int = 10_000
    ) -> Sequence[Record]:
        self._up()
        found = [r for r in self.records.values() if r.incident_id in incident_ids and (not kinds or r.kind in kinds)]
        return sorted(found, key=lambda record: record.at_s)[:limit]

    def open_change(self, change: OpenChange, intent: Record) -> None:
        self._up()
        if change.plan_id in self.closed:
            raise ChangeAlreadyOpen(f"Plan {change.plan_id} was carried out and closed already.")
        if change.plan_id not in self.changes:
            if any(other.service == change.service for other in self.changes.values()):
                raise ChangeAlreadyOpen(f"Service {change.service} has an open change.")
            self.changes[change.plan_id] = change
        self.put(intent)

    def update_change(
        self,
        plan_id: str,
        state: Literal["made", "leased", "closed"],
        record: Record,
        *,
        expires_at_s: float | None = None,
    ) -> None:
        self._up()
        if plan_id not in self.changes and plan_id not in self.closed:
            raise Permanent(f"The ledger knows no change of plan {plan_id}.")
        if not self.put(record) or plan_id in self.closed:
            return
        change = self.changes[plan_id]
        if ORDER.index(state) < ORDER.index(change.state):
            return
        if state == "closed":
            del self.changes[plan_id]
            self.closed.add(plan_id)
            return
        update: dict[str, object] = {"state": state}
        if expires_at_s is not None:
            update["expires_at_s"] = expires_at_s
        self.changes[plan_id] = change.model_copy(update=update)

    def open_changes(self, service: str | None = None) -> Sequence[OpenChange]:
        self._up()
        found = [change for change in self.changes.values() if service in (None, change.service)]
        return sorted(found, key=lambda change: change.opened_at_s)

    def put_blob(self, key: str, data: bytes, *, at_s: float) -> None:
        self._up()
        self.blobs[key] = data

    def get_blob(self, key: str) -> bytes | None:
        self._up()
        return self.blobs.get(key)
