"""What came of all attempts, as counts: what counters, reviews and exit criteria are made of."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from slotune import history
from slotune.views.reading import Reading
from tuning.ledger.lines import Line, PlainLine
from tuning.model import LEVER_STEPS
from tuning.query import Query


@dataclass(frozen=True)
class Outcomes:
    """attempts: by (service, lever, verdict); "hold" where nothing was changed; verdict "" before there is one.

    incidents, false_alarms, violation_s: of act-tier incidents by service. A false alarm closed without a change.
    resolve_s: from onset to proof, one number per resolved incident. prediction_error: median relative error by lever.
    """

    attempts: Mapping[tuple[str, str, str], int]
    incidents: Mapping[str, int]
    false_alarms: Mapping[str, int]
    violation_s: Mapping[str, float]
    resolve_s: tuple[float, ...]
    prediction_error: Mapping[str, float]


KINDS = ("open_incidents", "choose_action", "verify_p95", *LEVER_STEPS.values())


KEPT = {
    "open_incidents": ("closed", "tier", "symptom", "opened_at_s"),
    "choose_action": ("id", "service", "incident_id", "dry_run", "chosen"),
    "verify_p95": ("plan_id", "verdict", "resolved", "p95_after_ms", "effect"),
}
OVERLAP_S = 3_600.0
"""How far back a record may be written late: a clock that stepped back, a task that was run again."""


class History:
    """What outcomes are made of, kept by a process that is asked again and again: only what is new is read.

    Of a record only the few fields that count are kept, so a million records are some hundred MB less.
    """

    def __init__(self) -> None:
        self._lines: dict[str, PlainLine] = {}
        self._read_until_s: float | None = None
        self._lock = threading.Lock()

    def lines(self, reading: Reading) -> list[PlainLine]:
        """All records that count, oldest first."""
        with self._lock:
            since_s = None if self._read_until_s is None else self._read_until_s - OVERLAP_S
            for line in reading.reader.find(Query(kinds=KINDS, since_s=since_s)):
                if line.id not in self._lines:
                    self._lines[line.id] = _kept(line)
            self._read_until_s = reading.now_s
            return sorted(self._lines.values(), key=lambda line: line.at_s)


def _kept(line: Line) -> PlainLine:
    names = KEPT.get(line.kind, ("changed",))
    body = {name: line.body[name] for name in names if name in line.body}
    return PlainLine(
        line.id, line.kind, line.phase, line.service, line.parent_id, line.incident_id, line.at_s, body
    )


def outcomes(
    reading: Reading, *, since_s: float | None = None, until_s: float | None = None, history: History | None = None
) -> Outcomes:
    """Of everything between since_s and until_s (None: all that the ledger holds). history: what is known already."""
    if history is not None:
        return _outcomes(history.lines(reading), reading.now_s)
    return _outcomes(reading.reader.find(Query(kinds=KINDS, since_s=since_s, until_s=until_s))[::-1], reading.now_s)


def _outcomes(lines: Sequence[Line], now_s: float) -> Outcomes:
    by_kind: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_kind[line.kind].append(line)
    plans = {str(ln.body.get("id", ln.id)): ln.body for ln in by_kind["choose_action"] if "chosen" in ln.body}
    verdicts = {str(ln.body["plan_id"]): ln for ln in by_kind["verify_p95"] if ln.body.get("plan_id") in plans}
    touched = {
        str(ln.incident_id)
        for step in LEVER_STEPS.values()
        for ln in by_kind[step]
        if ln.phase == "result" and ln.body.get("changed")
    }
    opened, closed = _incidents(by_kind["open_incidents"])
    solved = {
        str(plans[plan_id].get("incident_id")): ln.at_s
        for plan_id, ln in verdicts.items()
        if ln.body.get("resolved") and ln.body.get("verdict") == "improved"
    }
    ended = {i: min(t for t in (closed.get(i), solved.get(i), now_s) if t is not None) for i in opened}
    false = [i for i in opened if i in closed and i not in touched and i not in solved]
    return Outcomes(
        attempts=_attempts(plans, verdicts),
        incidents=Counter(service for service, _ in opened.values()),
        false_alarms=Counter(opened[i][0] for i in false),
        violation_s=_seconds(opened, ended),
        resolve_s=tuple(solved[i] - opened[i][1] for i in opened if i in solved),
        prediction_error=_errors(plans, verdicts),
    )


def _incidents(lines: Sequence[Line]) -> tuple[dict[str, tuple[str, float]], dict[str, float]]:
    """(service and onset of each act-tier incident, when each was closed)."""
    opened: dict[str, tuple[str, float]] = {}
    closed: dict[str, float] = {}
    for line in lines:
        if line.body.get("closed"):
            closed[str(line.incident_id)] = line.at_s
        elif line.body.get("tier") == "act" and line.body.get("symptom") != "by_hand":
            onset = line.body.get("opened_at_s")
            opened[str(line.incident_id)] = (line.service, float(onset) if onset is not None else line.at_s)
    return opened, closed


def _attempts(plans: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, Line]) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for plan_id, plan in plans.items():
        if plan.get("dry_run"):
            continue
        verdict = str(verdicts[plan_id].body.get("verdict", "")) if plan_id in verdicts else ""
        for lever in levers_of(plan) or ("hold",):
            found[str(plan.get("service")), lever, verdict] += 1
    return found


def levers_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The levers of a plan's chosen option, from its JSON."""
    return tuple(str(change.get("lever")) for change in history.changes_of(plan))


def _seconds(opened: Mapping[str, tuple[str, float]], ended: Mapping[str, float]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for incident_id, (service, onset_s) in opened.items():
        total[service] += max(0.0, ended[incident_id] - onset_s)
    return dict(total)


def _errors(plans: Mapping[str, Mapping[str, Any]], verdicts: Mapping[str, Line]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for plan_id, line in verdicts.items():
        predicted = (plans[plan_id].get("chosen") or {}).get("predicted_p95_ms") or {}
        value, seen = predicted.get("value"), line.body.get("p95_after_ms")
        if value and seen is not None:
            found[" and ".join(levers_of(plans[plan_id]))].append(abs(seen - value) / value)
    return {lever: median(errors) for lever, errors in found.items()}
