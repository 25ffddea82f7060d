"""A ledger in memory, gone with its process: for rehearsals and simulations, which ask it millions of times."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from tuning.caps import Caps, Standing
from tuning.errors import ChangeAlreadyOpen, ClaimRefused, Permanent
from tuning.guards.caps import capped, claim_of, one_open_change, standing_of, unproven_of
from tuning.ledger.rows import to_json
from tuning.model import LEVER_STEPS, OpenChange, Record, UnreadableChange
from tuning.query import Query

_ORDER = ("intended", "made", "leased", "closed")
_CLOSED = ":closed"
_INDEXED = ("incident_id", "parent_id", "service", "kind")
"""Columns that are looked up by value: of those that a query names, the one with the fewest records is gone through."""


@dataclass
class _Listed:
    """The records with one value in a column, in the order of writing. youngest_s: of each and all before it."""

    ids: list[str] = field(default_factory=list)
    youngest_s: list[float] = field(default_factory=list)

    def add(self, record: Record) -> None:
        self.ids.append(record.id)
        self.youngest_s.append(max(record.at_s, self.youngest_s[-1]) if self.youngest_s else record.at_s)

    def since(self, since_s: float | None) -> list[str]:
        """Those that may be as young as that: what was written before the first that is, is older."""
        return self.ids if since_s is None else self.ids[bisect_left(self.youngest_s, since_s) :]


@dataclass(frozen=True)
class Mark:
    """What a ledger held at a moment. records: how many."""

    records: int
    changes: Mapping[str, OpenChange]
    closed: frozenset[str]
    blobs: Mapping[str, bytes]


class MemoryLedger:
    """records, changes and blobs by their ids and keys, in the order of writing. One thread at a time."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.changes: dict[str, OpenChange] = {}
        self.closed: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self._number: dict[str, int] = {}
        self._having: dict[str, dict[str | None, _Listed]] = {name: defaultdict(_Listed) for name in _INDEXED}
        self._all = _Listed()
        self._unclosed: dict[str | None, None] = {None: None}
        """Incidents of which no end was written, and the records that belong to none."""

    def put(self, record: Record) -> bool:
        if record.id in self.records:
            return False
        self._add(record.model_copy(update={"body": json.loads(to_json(record.body))}))
        return True

    def mark(self) -> Mark:
        """The moment, from which `at` goes on."""
        return Mark(len(self.records), dict(self.changes), frozenset(self.closed), dict(self.blobs))

    def at(self, mark: Mark) -> MemoryLedger:
        """A ledger of its own that holds what this one held then."""
        found = MemoryLedger()
        for record in islice(self.records.values(), mark.records):
            found._add(record)
        found.changes, found.closed, found.blobs = dict(mark.changes), set(mark.closed), dict(mark.blobs)
        return found

    def _add(self, record: Record) -> None:
        self.records[record.id] = record
        self._number[record.id] = len(self._number)
        self._all.add(record)
        for name, having in self._having.items():
            having[getattr(record, name)].add(record)
        if record.id.endswith(_CLOSED):
            self._unclosed.pop(record.id.removesuffix(_CLOSED), None)
        if f"{record.incident_id}{_CLOSED}" not in self.records:
            self._unclosed[record.incident_id] = None

    def get(self, record_id: str) -> Record | None:
        return self.records.get(record_id)

    def find(self, query: Query) -> Sequence[Record]:
        found = self._meant(query)
        if query.order == "time":
            found.sort(key=lambda record: -record.at_s)
        found = found[: query.limit]
        return found if query.bodies else [record.model_copy(update={"body": {}}) for record in found]

    def _meant(self, query: Query) -> list[Record]:
        """Newest written first."""
        ids = sorted(set(self._candidates(query)), key=self._number.__getitem__, reverse=True)
        return [record for i in ids if (record := self.records.get(i)) is not None and self._is_meant(query, record)]

    def _candidates(self, query: Query) -> list[str]:
        """Ids among which everything is that may be meant."""
        if query.ids is not None:
            return [i for i in query.ids if i in self.records]
        if query.family is not None:
            own = [i for i in query.family if i in self.records]
            return [*own, *self._listed("parent_id", query.family, query.since_s)]
        named = {
            "incident_id": query.incident_ids,
            "parent_id": query.parent_ids,
            "service": query.services,
            "kind": query.kinds,
        }
        lists = [self._listed(name, values, query.since_s) for name, values in named.items() if values is not None]
        if query.without == ("incident_id", _CLOSED):
            lists.append(self._listed("incident_id", self._unclosed, query.since_s))
        return min(lists, key=len) if lists else self._all.since(query.since_s)

    def _listed(self, column: str, values: Iterable[str | None], since_s: float | None) -> list[str]:
        having = self._having[column]
        return [i for value in values if value in having for i in having[value].since(since_s)]

    def _is_meant(self, query: Query, record: Record) -> bool:
        since_s, until_s = query.since_s, query.until_s
        if (since_s is not None and record.at_s < since_s) or (until_s is not None and record.at_s > until_s):
            return False
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
        if query.without is not None:
            column, suffix = query.without
            base = record.id if column == "id" else record.incident_id
            if base is not None and base + suffix in self.records:
                return False
        return query.holding is None or query.holding in to_json(record.body)

    def standing(self, at_s: float, memory_s: float) -> Standing:
        return self._standing(at_s, memory_s)

    def _standing(self, at_s: float, memory_s: float) -> Standing:
        unproven = [unproven_of(change) for change in self.changes.values() if change.state != "leased"]
        since_s = at_s - memory_s
        results = Query(kinds=tuple(LEVER_STEPS.values()), phase="result", since_s=since_s)
        return standing_of(unproven, [r for r in self._meant(results) if r.at_s <= at_s or not self._past(r, since_s)])

    def _past(self, record: Record, since_s: float) -> bool:
        """Whether something that was written later is older than the caps remember (see tuning.ledger.claims)."""
        number = self._number[record.id]
        return any(r.at_s <= since_s and self._number[i] > number for i, r in self.records.items())

    def open_change(self, change: OpenChange, intent: Record, caps: Caps | None = None) -> None:
        if change.plan_id in self.closed:
            raise ChangeAlreadyOpen(f"Plan {change.plan_id} was carried out and closed already.")
        if change.plan_id not in self.changes:
            standing = self._standing(change.opened_at_s, caps.memory_s if caps is not None else 0.0)
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
        if plan_id not in self.changes and plan_id not in self.closed:
            raise Permanent(f"The ledger knows no change of plan {plan_id}.")
        if not self.put(record) or plan_id in self.closed:
            return
        change = self.changes[plan_id]
        if _ORDER.index(state) < _ORDER.index(change.state):
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
        found = [change for change in self.changes.values() if service in (None, change.service)]
        return sorted(found, key=lambda change: change.opened_at_s)

    def unreadable_changes(self) -> Sequence[UnreadableChange]:
        return []

    def put_blob(self, key: str, data: bytes, *, at_s: float) -> None:
        self.blobs[key] = data

    def get_blob(self, key: str) -> bytes | None:
        return self.blobs.get(key)

    def get_blobs(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return {key: self.blobs[key] for key in keys if key in self.blobs}
