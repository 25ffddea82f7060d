"""What came of all attempts, as counts: what counters are made of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from slotune.views.reading import Reading
from slotune.views.spoken import spoken
from tuning.labels import judged_alarm
from tuning.past import Past, Try


@dataclass(frozen=True)
class Outcomes:
    """attempts: by (service, lever, verdict); "hold" where nothing was changed; verdict "" before there is one.

    incidents, false_alarms, violation_s: of act-tier incidents by service. resolve_s: from onset to proof, one number
    per resolved incident. prediction_error: median relative error by lever.
    """

    attempts: Mapping[tuple[str, str, str], int]
    incidents: Mapping[str, int]
    false_alarms: Mapping[str, int]
    violation_s: Mapping[str, float]
    resolve_s: tuple[float, ...]
    prediction_error: Mapping[str, float]


def outcomes(reading: Reading) -> Outcomes:
    """Of all that the ledger holds."""
    return outcomes_of(reading, reading.memory.past(reading.reader, reading.now_s))


def outcomes_of(reading: Reading, past: Past) -> Outcomes:
    """Of a past that is at hand already."""
    labels = spoken(reading).labels
    key = (past, labels, reading.now_s // 15.0)
    return reading.memory.of("outcomes", key, lambda: _outcomes(past, labels, reading.now_s))


def _outcomes(past: Past, labels: Mapping[str, str], now_s: float) -> Outcomes:
    tries, cases = past.tries_of(), [case for case in past.incidents.values() if case.counts]
    violation_s: dict[str, float] = defaultdict(float)
    resolve_s, false = [], Counter[str]()
    for case in cases:
        mine = tries.get(case.id, [])
        solved_s = min((t.verdict.at_s for t in mine if t.verdict is not None and t.verdict.solved), default=None)
        ended_s = min(at_s for at_s in (case.closed_at_s, solved_s, now_s) if at_s is not None)
        violation_s[case.service] += max(0.0, ended_s - case.opened_at_s)
        if solved_s is not None:
            resolve_s.append(solved_s - case.opened_at_s)
        false[case.service] += judged_alarm(case, mine, labels.get(case.id, "")).false
    known = [one for mine in tries.values() for one in mine if not one.dry_run]
    return Outcomes(
        attempts=_attempts(known),
        incidents=Counter(case.service for case in cases),
        false_alarms=+false,
        violation_s=dict(violation_s),
        resolve_s=tuple(resolve_s),
        prediction_error=_errors(known),
    )


def _attempts(tries: Iterable[Try]) -> Counter[tuple[str, str, str]]:
    found: Counter[tuple[str, str, str]] = Counter()
    for one in tries:
        for lever in one.levers or ("hold",):
            found[one.service, lever, one.verdict.verdict if one.verdict is not None else ""] += 1
    return found


def _errors(tries: Iterable[Try]) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for one in tries:
        if one.predicted is not None and one.verdict is not None and one.verdict.after_ms is not None:
            error = abs(one.verdict.after_ms - one.predicted.value) / one.predicted.value
            found[" and ".join(one.levers)].append(error)
    return {lever: median(errors) for lever, errors in found.items()}
