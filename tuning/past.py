"""The past as values: every incident, and what was tried on each, folded from the ledger's records one by one.

Counters, reviews, effects and the exit criteria are all made of this one fold, so that no two of them can disagree. It
is pure, takes records in any order and twice, and keeps of each only the few fields that count: a million records fit
into a process that is asked again and again. `tuning.attempt` is its sister for one attempt, whole.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from detection.model import make_id
from tuning.line import Line
from tuning.model import LEVER_STEPS, Cost

_log = logging.getLogger(__name__)
Row = Mapping[str, Any]
KINDS = ("open_incidents", "choose_action", "guard", "verify_p95", "keep", "roll_back", "hold", *LEVER_STEPS.values())
_STEPS = frozenset(LEVER_STEPS.values())
_CLOSED = ":closed"


class Predicted(NamedTuple):
    """P95 in ms with the interval that it was expected in."""

    value: float
    low: float
    high: float


@dataclass(slots=True)
class Case:
    """One incident. opened_at_s: its onset. closed_at_s: None while it is open. held: a plan was to do nothing."""

    id: str
    service: str = ""
    symptom: str = ""
    tier: str = ""
    opened_at_s: float = 0.0
    detected_at_s: float | None = None
    closed_at_s: float | None = None
    held: bool = False

    @property
    def counts(self) -> bool:
        """Whether it is one that slotune answers for: of the act tier, and no run that a person asked for."""
        return self.tier == "act" and self.symptom != "by_hand"


@dataclass(slots=True)
class Verdict:
    """A verdict as far as it counts. effect: P95 after over before at equal load. busy: utilisation before, after.
    cost: before, after."""

    at_s: float
    verdict: str
    resolved: bool | None
    before_ms: float | None
    after_ms: float | None
    effect: float | None
    busy: tuple[float, float] | None
    cost: tuple[Cost, Cost] | None = None

    @property
    def solved(self) -> bool:
        return bool(self.resolved) and self.verdict == "improved"


@dataclass(slots=True)
class Try:
    """One plan and its fate. levers: () for a hold. made: (time, lever) of every change that moved something.

    refused: the guards that said no, newest last. quality_loss: share of right answers (0..1) that it costs. over_s:
    when the change was closed, None while it is in force or was never made. back_s: when the last step back of a lease
    moved a lever (None: none did). lease: it was to be handed back. undone: rolled back.
    """

    id: str
    service: str = ""
    incident_id: str = ""
    at_s: float = 0.0
    mode: str = ""
    dry_run: bool = False
    levers: tuple[str, ...] = ()
    text: str = ""
    cause: str = "unknown"
    curable: bool = True
    predicted: Predicted | None = None
    cost_per_hour: float = 0.0
    quality_loss: float = 0.0
    lease: bool = False
    made: tuple[tuple[float, str], ...] = ()
    refused: tuple[str, ...] = ()
    verdict: Verdict | None = None
    undone: bool = False
    over_s: float | None = None
    back_s: float | None = None
    planned: bool = False

    @property
    def made_s(self) -> float | None:
        return min((at_s for at_s, _ in self.made), default=None)


@dataclass(eq=False)
class Past:
    """What all records so far come to. `add` is idempotent; incidents and tries are kept by id. A record whose body is
    not what its kind says is left out and named; the others count."""

    incidents: dict[str, Case] = field(default_factory=dict)
    tries: dict[str, Try] = field(default_factory=dict)
    _plans_back: dict[str, str] = field(default_factory=dict)
    _moved_back_s: dict[str, float] = field(default_factory=dict)

    def add(self, lines: Iterable[Line]) -> Past:
        for line in lines:
            try:
                self._take(line)
            except (AttributeError, TypeError, ValueError, LookupError) as error:
                words = (line.id, line.kind, line.service, error)
                _log.warning("record %s (%s of %s) makes no sense and is left out: %r", *words)
        return self

    def tries_of(self) -> dict[str, list[Try]]:
        """The plans of each incident, oldest first; plans without their record are none."""
        found: dict[str, list[Try]] = defaultdict(list)
        for one in sorted((t for t in self.tries.values() if t.planned), key=lambda t: (t.at_s, t.id)):
            found[one.incident_id].append(one)
        return found

    def _take(self, line: Line) -> None:
        kind, body = line.kind, line.body
        if kind == "open_incidents":
            self._incident(line, body)
        elif kind == "choose_action" and "chosen" in body:
            self._plan(line, body)
        elif kind == "verify_p95" and "verdict" in body:
            self._verdict(line, body)
        elif line.parent_id is not None:
            self._step(line, kind, body, line.parent_id)

    def _try(self, plan_id: str) -> Try:
        found = self.tries.get(plan_id)
        if found is None:
            found = self.tries[plan_id] = Try(plan_id)
        return found

    def _case(self, incident_id: str) -> Case:
        found = self.incidents.get(incident_id)
        if found is None:
            found = self.incidents[incident_id] = Case(incident_id)
        return found

    def _incident(self, line: Line, body: Row) -> None:
        case = self._case(line.incident_id or line.id)
        case.service = line.service
        if body.get("closed"):
            case.closed_at_s = line.at_s
            return
        # What is known of it only grows worse: a record that comes late must not take an act back to a warning.
        if case.tier != "act":
            case.tier = str(body.get("tier") or "")
        case.symptom = str(body.get("symptom") or case.symptom)
        onset, seen = _number(body.get("opened_at_s")), _number(body.get("detected_at_s"))
        case.opened_at_s = onset if onset is not None else line.at_s
        if seen is not None:
            case.detected_at_s = seen if case.detected_at_s is None else min(seen, case.detected_at_s)

    def _plan(self, line: Line, body: Row) -> None:
        one = self._try(line.id)
        chosen, diagnosis = _row(body.get("chosen")), _row(body.get("diagnosis"))
        changes = [_row(change) for change in chosen.get("changes") or ()]
        one.planned, one.service, one.at_s = True, line.service, line.at_s
        one.incident_id = str(body.get("incident_id") or line.incident_id or "")
        one.mode, one.dry_run = str(body.get("mode") or ""), bool(body.get("dry_run"))
        one.levers = tuple(str(change.get("lever")) for change in changes)
        one.text = " and ".join(map(moved, changes)) or "hold"
        one.cause, one.curable = str(diagnosis.get("cause") or "unknown"), diagnosis.get("curable") is not False
        one.predicted = _predicted(_row(chosen.get("predicted_p95_ms")))
        one.cost_per_hour = _number(chosen.get("cost_per_hour")) or 0.0
        one.quality_loss = _number(chosen.get("quality_loss")) or 0.0
        one.lease = body.get("lease_s") is not None

    def _verdict(self, line: Line, body: Row) -> None:
        one = self._try(str(body.get("plan_id") or line.parent_id))
        if one.verdict is not None and one.verdict.at_s > line.at_s:
            return
        resolved = body.get("resolved")
        one.verdict = Verdict(
            at_s=line.at_s,
            verdict=str(body["verdict"]),
            resolved=None if resolved is None else bool(resolved),
            before_ms=_number(body.get("p95_before_ms")),
            after_ms=_number(body.get("p95_after_ms")),
            effect=_number(_row(body.get("effect")).get("value")),
            busy=_busy(body.get("guards") or ()),
            cost=_cost(body),
        )

    def _step(self, line: Line, kind: str, body: Row, parent: str) -> None:
        if body.get("closed") and line.id == parent + _CLOSED:
            self._try(parent).over_s = line.at_s
        elif kind == "guard":
            one = self._try(parent)
            guard = str(body.get("guard") or "")
            one.refused = one.refused if guard in one.refused else (*one.refused, guard)
        elif kind == "hold":
            self._case(line.incident_id or "").held |= line.incident_id is not None
        elif kind == "roll_back":
            self._back(line, body, parent)
        elif kind in _STEPS and line.phase == "result" and body.get("changed"):
            one, made = self._try(parent), (line.at_s, str(body.get("lever")))
            one.made = one.made if made in one.made else (*one.made, made)

    def _back(self, line: Line, body: Row, parent: str) -> None:
        """A plan that undoes another, or a receipt of one: the receipt names the plan, which names what it undoes."""
        if line.phase == "intent":
            if line.id == make_id(parent, "inverse"):
                self._try(parent).undone = True
            self._plans_back[line.id] = parent
            plan = line.id
        elif body.get("changed"):
            plan = parent
            self._moved_back_s[plan] = max(line.at_s, self._moved_back_s.get(plan, line.at_s))
        else:
            return
        if plan in self._plans_back and plan in self._moved_back_s:
            one = self._try(self._plans_back[plan])
            one.back_s = max(self._moved_back_s[plan], one.back_s or 0.0)


def moved(change: Row) -> str:
    """A change's JSON in words, as tuning.model.Change.text says it: "batch_size 1 -> 8"."""
    old, new = _row(change.get("old")), _row(change.get("new"))
    knobs = [knob for knob in new if new[knob] != old.get(knob)] or list(new)
    return ", ".join(f"{knob} {old.get(knob, '?')} -> {new[knob]}" for knob in knobs)


def _row(value: object) -> Row:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _predicted(body: Row) -> Predicted | None:
    value, low, high = (_number(body.get(name)) for name in ("value", "low", "high"))
    return None if not value or low is None or high is None else Predicted(value, low, high)


def _cost(body: Row) -> tuple[Cost, Cost] | None:
    before, after = body.get("cost_before"), body.get("cost_after")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    return Cost.model_validate(before), Cost.model_validate(after)


def _busy(guards: Sequence[object]) -> tuple[float, float] | None:
    """Utilisation before and after, of the GPU where it is exported, else of the service's own computing."""
    told = {str(_row(g).get("signal")): (_number(_row(g).get("before")), _number(_row(g).get("after"))) for g in guards}
    for signal in ("gpu_util", "busy"):
        before, after = told.get(signal, (None, None))
        if before is not None and after is not None:
            return before, after
    return None
