"""A review of some days, and how far each service is from being trusted with more."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping

from slotune.views.latest import Latest, latest
from slotune.views.reading import Reading
from slotune.views.spoken import spoken
from tuning.loop.learn import DRIFT
from tuning.past import Case, Past, Try
from tuning.report.readiness import Readiness, readiness
from tuning.report.review import Out, Review, review


def reviewed(reading: Reading, start_s: float, end_s: float) -> Review:
    """The figures of [start_s, end_s) against their targets."""
    past, labels = reading.memory.past(reading.reader, reading.now_s), spoken(reading).labels
    key, drift = (past, labels, start_s, end_s, reading.now_s // 15.0), _drift(reading)
    return reading.memory.of("review", key, lambda: review(past, labels, out_now(reading), start_s, end_s, drift))


def out_now(reading: Reading) -> list[Out]:
    """Every open change: what is not handed back, and what is not proven yet."""
    return [Out.of(line.service, line.plan, line.state, line.expires_at_s) for line in reading.reader.open_lines()]


def _drift(reading: Reading) -> list[str]:
    try:
        found = json.loads(reading.blob(DRIFT) or b"[]")
    except ValueError:
        return []
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return [f"{row.get('service')}: {row.get('reason')}" for row in rows]


def ready(reading: Reading) -> dict[str, Readiness]:
    """By service: whether it may be moved to the next mode, and what is missing."""
    past, labels, seen = reading.memory.past(reading.reader, reading.now_s), spoken(reading).labels, latest(reading)
    key = (past, labels, seen, reading.settings, reading.now_s // 15.0)
    return reading.memory.of("ready", key, lambda: _ready(reading, past, labels, seen))


def _ready(reading: Reading, past: Past, labels: Mapping[str, str], seen: Latest) -> dict[str, Readiness]:
    cases: dict[str, list[Case]] = defaultdict(list)
    tries: dict[str, list[Try]] = defaultdict(list)
    of = past.tries_of()
    for case in past.incidents.values():
        if case.counts:
            cases[case.service].append(case)
            tries[case.service] += of.get(case.id, [])
    return {
        name: readiness(service, cases[name], tries[name], labels, name in seen.services, reading.now_s)
        for name, service in reading.services.items()
    }
