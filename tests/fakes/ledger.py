"""A ledger in memory: passes the same contract suite as the database, and can be told to be down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from tuning.caps import Caps, Standing
from tuning.errors import ChangeAlreadyOpen, ClaimRefused, LedgerUnavailable, Permanent
from tuning.guards.caps import capped, claim_of, one_open_change, standing_of, unproven_of
from tuning.ledger.sql import to_json
from tuning.model import OpenChange, Record, UnreadableChange
from tuning.query import Query

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

    def find(self, query: Query) -> Sequence[Record]:
        self._up()
        found = [record for record in reversed(self.records.values()) if self._is_meant(query, record)]
        if query.order == "time":
            found = sorted(found, key=lambda record: -record.at_s)
        found = found[: query.limit]
        return found if query.bodies else [record.model_copy(update={"body": {}}) for record in found]

    def _is_meant(self, query: Query, record: Record) -> bool:
        columns = (
            (query.kinds, record.kind),
            (query.services, record.service),
            (query.incident_ids, record.incident_id),
            (query.parent_ids, record.parent_id),
            (query.ids, record.id),
            (None if query.phase is None else (query.phase,), record.phase),
        )
        if any(wanted is not None and value not in wanted for wanted, value in columns):
            return False
        if query.family is not None and record.id not in query.family and record.parent_id not in query.family:
            return False
        if query.holding is not None and query.holding not in to_json(record.body):
            return False
        if query.without is not None:
            column, suffix = query.without
            base = record.id if column == "id" else record.incident_id
            if base is not None and base + suffix in self.records:
                return False
        since_s, until_s = query.since_s, query.until_s
        return (since_s is None or record.at_s >= since_s) and (until_s is None or record.at_s <= until_s)

    def standing(self, at_s: float, memory_s: float) -> Standing:
        self._up()
        unproven = [unproven_of(change) for change in self.changes.values() if change.state != "leased"]
        since_s, written = at_s - memory_s, list(self.records.values())
        made = [
            record
            for n, record in enumerate(written)
            if since_s <= record.at_s <= at_s
            or (record.at_s > at_s and not any(r.at_s <= since_s for r in written[n:]))
        ]
        return standing_of(unproven, made)

    def open_change(self, change: OpenChange, intent: Record, caps: Caps | None = None) -> None:
        self._up()
        if change.plan_id in self.closed:
            raise ChangeAlreadyOpen(f"Plan {change.plan_id} was carried out and closed already.")
        if change.plan_id not in self.changes:
            standing = self.standing(change.opened_at_s, caps.memory_s if caps is not None else 0.0)
            claim = claim_of(change.plan, change.opened_at_s)
            if (taken := one_open_change(claim, standing)) is not None:
                raise ChangeAlreadyOpen(taken.reason, until_s=taken.until_s)
            if caps is not None and (stop := capped(claim, caps, standing)) is not None:
                raise ClaimRefused(stop.reason, guard=stop.name, until_s=stop.until_s)
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

    def unreadable_changes(self) -> Sequence[UnreadableChange]:
        self._up()
        return []

    def put_blob(self, key: str, data: bytes, *, at_s: float) -> None:
        self._up()
        self.blobs[key] = data

    def get_blob(self, key: str) -> bytes | None:
        self._up()
        return self.blobs.get(key)

    def get_blobs(self, keys: Sequence[str]) -> dict[str, bytes]:
        self._up()
        return {key: self.blobs[key] for key in keys if key in self.blobs}
