"""The alarm thresholds of each service, adapted to its labels: every step a record with the backtest behind it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from detection.model import make_id
from detection.ranker_fitting import Example
from tuning.line import Line
from tuning.loop.parts import Parts
from tuning.model import Record
from tuning.policies.strictness import Seen, Step, Tally, next_step
from tuning.ports import Ledger
from tuning.query import Query

STRICTNESS = "strictness"
"""The kind of the records, and the key in the store under which the factors in force are: service -> factor."""


def adapt(parts: Parts, known: Sequence[Example], at_s: float) -> list[Step]:
    """Make the steps that the labels justify. known: the evidence of the labelled incidents."""
    ledger, made = parts.ledger, []
    if not parts.settings.detection.learning.adapt:
        ledger.put_blob(STRICTNESS, b"{}", at_s=at_s)
        return []
    seen, steps = incidents_of(known), steps_of(ledger.find(Query(kinds=(STRICTNESS,), order="written")))
    for service in sorted(seen):
        step = next_step(seen[service], steps.get(service, []), at_s)
        if step is not None:
            ledger.put(_record(service, step))
            steps.setdefault(service, []).append(step)
            made.append(step)
    factors = {service: mine[-1].now for service, mine in steps.items() if mine[-1].now != 1.0}
    ledger.put_blob(STRICTNESS, json.dumps(factors).encode(), at_s=at_s)
    return made


def incidents_of(known: Sequence[Example]) -> dict[str, list[Seen]]:
    """The labelled incidents of each service, each with its highest score in units of the act threshold."""
    best: dict[tuple[str, str], Example] = {}
    for one in known:
        key = (one.service, one.incident_id)
        if "act_reach" in one.evidence and (key not in best or _reach(one) > _reach(best[key])):
            best[key] = one
    found: dict[str, list[Seen]] = defaultdict(list)
    for (service, _), one in best.items():
        found[service].append(Seen(one.at_s, _reach(one), one.real, one.weight))
    return dict(found)


def _reach(one: Example) -> float:
    """As calibrated: what was in force when it was seen is taken out again."""
    return one.evidence["act_reach"] * one.evidence.get("strictness", 1.0)


def factors(ledger: Ledger, on: bool) -> Mapping[str, float]:
    """What a sweep holds against the services' scores; {} where nothing is adapted or what is stored makes no sense."""
    data = ledger.get_blob(STRICTNESS) if on else None
    try:
        found = json.loads(data) if data else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float) and value > 0}


def steps_of(lines: Sequence[Line]) -> dict[str, list[Step]]:
    """By service, oldest first. lines: newest written first; one that cannot be read is none."""
    found: dict[str, list[Step]] = defaultdict(list)
    for line in reversed(lines):
        try:
            body = line.body
            before, after = (Tally(**body[name]) for name in ("before", "after"))
            at_s, was, now = (float(body[name]) for name in ("at_s", "was", "now"))
            found[line.service].append(Step(body["kind"], at_s, was, now, before, after, str(body["reason"])))
        except (KeyError, TypeError, ValueError):
            continue
    return dict(found)


def _record(service: str, step: Step) -> Record:
    name = make_id(STRICTNESS, service, step.kind, step.was, step.now, step.at_s)
    return Record(id=name, kind=STRICTNESS, service=service, at_s=step.at_s, body=asdict(step))
