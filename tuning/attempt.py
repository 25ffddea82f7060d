"""One attempt at an incident as a value: its records are read once, folded once, and everybody asks the fold.

Which receipts, which verdict, what was decided, is it undone, was it told: the steps of the loop, the report and the
commands read it here, so that no two of them can disagree. The fold is pure; `read` is the one query behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pydantic

from detection.model import Value, make_id
from tuning.errors import Permanent
from tuning.model import (
    Canary,
    Decision,
    Knob,
    Outcome,
    Plan,
    Receipt,
    Record,
    Refusal,
    Report,
)
from tuning.ports import Ledger
from tuning.query import Query

_log = logging.getLogger(__name__)
_CLOSED = ":closed"
V = TypeVar("V", bound=Value)


@dataclass(frozen=True)
class Stage:
    """Where a change that began on one replica stands. alone: only that replica may have been changed.

    widening: the others were to follow, and their receipt is missing. followed_s: when they were told to.
    """

    first: Canary
    alone: bool
    widening: bool
    followed_s: float | None = None


@dataclass(frozen=True)
class Attempt:
    """What the ledger knows about one plan. Times are epoch seconds; None: it did not happen (yet).

    records: what it was folded from. over_s: when the incident was closed. claimed_s: the intent of the change.
    receipts: of this plan, oldest first. settle_s: the settle time, as planned or as found out since. outcomes: every
    verdict by its id. decided: what the verdicts were found to mean; written by whoever decided, carried out by others.
    undo: the plan that undoes this one. steps_back, renewals: of a lease. closed: why the change was closed.
    last_s: the newest record of this plan.
    """

    plan: Plan
    records: tuple[Record, ...] = ()
    over_s: float | None = None
    claimed_s: float | None = None
    stage: Stage | None = None
    receipts: tuple[Receipt, ...] = ()
    settle_s: float = 0.0
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    decided: tuple[Decision, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    undo: Attempt | None = None
    steps_back: tuple[Plan, ...] = ()
    renewals: int = 0
    report: Report | None = None
    closed: str | None = None
    last_s: float | None = None

    def plus(self, *records: Record) -> Attempt:
        """With records that were just written; what was known already stays as it was."""
        known = {r.id for r in self.records}
        return fold(self.plan, (*self.records, *(r for r in records if r.id not in known)))

    @property
    def tries(self) -> int:
        """How many plans of the incident have changed something, this one included."""
        return self.plan.tries + self.receipts_changed

    @property
    def made_s(self) -> float | None:
        """When the last change of the plan was made; None when none was."""
        return max((r.at_s for r in self.receipts if r.changed), default=None)

    @property
    def first_made_s(self) -> float | None:
        return min((r.at_s for r in self.receipts if r.changed), default=None)

    def begun_s(self, lever: str) -> float | None:
        """When the first call of a lever was about to be made, at the earliest. Of several levers each has its own
        record, since the claim is the first one's; where none has (yet), the claim is all that is known."""
        calls = {change.lever: call_id(self.plan.id, change.lever) for change in self.plan.chosen.changes}
        begun = {r.id: r.at_s for r in self.records if r.id in calls.values()}
        return begun.get(calls[lever]) if begun else self.claimed_s

    @property
    def nothing_changed(self) -> bool:
        """Whether every lever of the plan has its receipt and none of them moved anything."""
        return len(self.receipts) == len(self.plan.chosen.changes) and not any(r.changed for r in self.receipts)

    @property
    def receipts_changed(self) -> bool:
        return any(r.changed for r in self.receipts)

    @property
    def answered(self) -> bool:
        """Whether every call of the plan was answered: none may still be on its way."""
        told = {r.lever for r in self.receipts}
        return all(r.answered for r in self.receipts) and told >= set(self.plan.chosen.levers)

    @property
    def refusal(self) -> Refusal | None:
        return self.refusals[-1] if self.refusals else None

    @property
    def final_decision(self) -> Decision | None:
        """The newest decision that ends the attempt: keep or roll_back."""
        return next((d for d in reversed(self.decided) if d.step in ("keep", "roll_back")), None)

    def receipt(self, lever: str, *, replica: str = "") -> Receipt | None:
        """The receipt of a lever: of all replicas, or of the one that was changed first. A step that undoes has none
        before the old value was really put back."""
        undoes = self.plan.rollback_of is not None
        mine = [r for r in self.receipts if r.lever == lever and r.replica == replica]
        return next((r for r in mine if r.applied or not undoes), None)

    @property
    def is_put_back(self) -> bool:
        """Whether every lever of the plan was put back by slotune."""
        return self.undo is not None and all(self.undo.receipt(lever) for lever in self.plan.chosen.levers)

    def verdict(self, look: int, *, alone: bool = False) -> Outcome | None:
        return self.outcomes.get(outcome_id(self.plan.id, look, alone=alone))

    def last_verdict(self, *, alone: bool = False) -> tuple[Outcome, int] | None:
        """The newest verdict (on the first replica alone, or on the whole service), and of which look it is."""
        found = [(o, look) for look in (2, 1) if (o := self.verdict(look, alone=alone)) is not None]
        return found[0] if found else None

    def left(self, lever: str) -> dict[str, Knob] | None:
        """What the plan's newest receipt of a lever left behind; None before any. An endpoint may have made another
        value of it than was asked for, on the way there or on the way back: that is a change of ours all the same."""
        back = self.undo.receipts if self.undo is not None else ()
        found = [r for r in self.receipts if r.lever == lever and (r.applied or r.changed)]
        found += [r for r in back if r.lever == lever and r.changed and not r.applied]
        return dict(found[-1].after) if found else None


def outcome_id(plan_id: str, look: int, *, alone: bool = False) -> str:
    return make_id(plan_id, "canary outcome" if alone else "outcome", look)


def receipt_id(plan_id: str, lever: str, *, alone: bool = False) -> str:
    return make_id(plan_id, lever, "canary receipt" if alone else "receipt")


def call_id(plan_id: str, lever: str) -> str:
    return make_id(plan_id, lever, "call")


def read(ledger: Ledger, plan_id: str) -> Attempt:
    """The attempt of a plan, in one query; Permanent when the ledger does not hold the plan."""
    records = ledger.find(Query(family=(plan_id, make_id(plan_id, "inverse"))))
    plan = next((value(r, Plan) for r in records if r.id == plan_id), None)
    if plan is None:
        raise Permanent(f"the ledger holds no plan {plan_id!r}; was it moved or emptied?")
    return fold(plan, records)


def of(ledger: Ledger, wanted: Plan | Attempt) -> Attempt:
    """The attempt itself, or what the ledger knows of a plan. An undoing plan is read with the plan that it undoes."""
    if isinstance(wanted, Attempt):
        return wanted
    undone = wanted.rollback_of
    if undone is not None and wanted.id == make_id(undone, "inverse"):
        records = ledger.find(Query(family=(undone, wanted.id)))
        stored = next((value(r, Plan) for r in records if r.id == wanted.id), None)
        return _of_plan(stored or wanted, records)
    family = (wanted.id, make_id(wanted.id, "inverse"), f"{wanted.incident_id}{_CLOSED}")
    return fold(wanted, ledger.find(Query(family=family)))


def fold(plan: Plan, records: Iterable[Record]) -> Attempt:
    """Pure: the attempt of a plan from the records of its family, in any order."""
    rows = tuple(sorted(records, key=lambda r: (r.at_s, r.id)))
    inverse = next((value(r, Plan) for r in rows if r.id == make_id(plan.id, "inverse")), None)
    undo = _of_plan(inverse, rows) if inverse is not None else None
    return replace(_of_plan(plan, rows), undo=undo)


def _of_plan(plan: Plan, rows: Sequence[Record]) -> Attempt:
    rows = sorted(rows, key=lambda r: (r.at_s, r.id))
    mine = [r for r in rows if r.parent_id == plan.id]
    waits = [s for r in mine if r.kind == "settle" and isinstance(s := r.body.get("settle_s"), float)]
    outcomes = _values([r for r in mine if r.kind == "verify_p95" and "verdict" in r.body], Outcome)
    reports = _values([r for r in mine if r.kind == "email_report" and r.phase == "intent"], Report)
    undoing = [r for r in mine if r.kind == "roll_back" and r.phase == "intent" and "chosen" in r.body]
    return Attempt(
        plan=plan,
        records=tuple(rows),
        over_s=next((r.at_s for r in rows if r.id == f"{plan.incident_id}{_CLOSED}"), None),
        claimed_s=next((r.at_s for r in mine if r.id == f"{plan.id}:intent"), None),
        stage=_stage(plan, rows),
        receipts=_values([r for r in mine if _is_receipt(r)], Receipt),
        settle_s=max([plan.settle_s, *waits]),
        outcomes={outcome.id: outcome for outcome in outcomes},
        decided=_values([r for r in mine if "next" in r.body], Decision),
        refusals=_values([r for r in mine if r.kind == "guard"], Refusal),
        steps_back=_values([r for r in undoing if r.id != make_id(plan.id, "inverse")], Plan),
        renewals=sum(bool(r.body.get("renewed")) for r in mine),
        report=reports[-1] if reports else None,
        closed=next((str(r.body.get("reason")) for r in mine if r.id == f"{plan.id}{_CLOSED}"), None),
        last_s=max((r.at_s for r in rows if not r.id.endswith(_CLOSED) or r.parent_id == plan.id), default=None),
    )


def _stage(plan: Plan, rows: Iterable[Record]) -> Stage | None:
    """The stage of a plan, or of the plan that it undoes; None for a change of all replicas at once."""
    plan_id = plan.rollback_of or plan.id
    by_id = {r.id: r for r in rows}
    record = by_id.get(f"{plan_id}:canary")
    first = value(record, Canary) if record is not None else None
    if first is None:
        return None
    followed = by_id.get(f"{plan_id}:all")
    done = receipt_id(plan_id, first.lever) in by_id
    return Stage(
        first,
        alone=followed is None and not done,
        widening=followed is not None and not done,
        followed_s=followed.at_s if followed is not None else None,
    )


def _is_receipt(record: Record) -> bool:
    return record.phase == "result" and "after" in record.body and "lever" in record.body


def _values(records: Iterable[Record], cls: type[V]) -> tuple[V, ...]:
    return tuple(found for record in records if (found := value(record, cls)) is not None)


def value(record: Record, cls: type[V]) -> V | None:
    """The value of a record; None, and a line in the log, where it cannot be read.

    A field that this version does not know (another worker is newer) is passed over: what is known of it still holds.
    """
    try:
        return cls.model_validate(record.body, extra="ignore")
    except pydantic.ValidationError as error:
        _log.warning("record %s (%s of %s) cannot be read and is left out: %s", record.id, record.kind,
                     record.service, _first_line(error))  # fmt: skip
        return None


def _first_line(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
