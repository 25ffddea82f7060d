"""What is learned from labels: the evidence of every anomaly that an incident rests on, and the re-ranker made of it.

Evidence is kept after 1, 2, 4, 8, ... judgements, so that an incident that stands for days is a dozen lines. It follows
from the incident (its parent), and is no step of the flow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from detection.errors import SlotuneError
from detection.model import Anomaly, Incident, make_id
from detection.ranker import Judge, Ranker, RankerUnusable
from detection.ranker_fitting import Example, learn, missing
from detection.settings import DetectionSettings
from tuning.labels import Label, labelled
from tuning.loop.adapt import adapt
from tuning.loop.parts import Parts
from tuning.model import Record
from tuning.orders import ORDER, orders_of
from tuning.past import KINDS, Past
from tuning.ports import Ledger
from tuning.query import Query

_log = logging.getLogger(__name__)
EVIDENCE, RANKER = "evidence", "ranker"
STATE = "ranker/state"
"""Where it stands with learning, a sentence for people."""
WEIGHTS = {"strong": 1.0, "weak": 0.5}
"""What an incident's own end says is half a person's word."""
OFF = "Learning from labels is off (detection.learning.rerank)."
MEMORY_S = 365 * 86_400.0


def keep(ledger: Ledger, anomalies: Sequence[Anomaly], incidents: Iterable[Incident], at_s: float) -> None:
    """Write down what was known of the anomalies of these incidents, where it is time to."""
    of = {(incident.service, one.signal): incident for incident in incidents for one in incident.anomalies}
    for anomaly in anomalies:
        incident = of.get((anomaly.service, anomaly.signal))
        if incident is not None and anomaly.evidence and anomaly.at_s == at_s and not anomaly.seen & (anomaly.seen - 1):
            ledger.put(_record(anomaly, incident, at_s))


def _record(anomaly: Anomaly, incident: Incident, at_s: float) -> Record:
    return Record(
        id=make_id(EVIDENCE, incident.id, anomaly.signal, anomaly.symptom, anomaly.since_s, anomaly.seen),
        kind=EVIDENCE,
        service=incident.service,
        parent_id=incident.id,
        at_s=at_s,
        body={"signal": anomaly.signal, "evidence": anomaly.evidence},
    )


def examples(ledger: Ledger, at_s: float) -> list[Example]:
    """The evidence of the labelled incidents of the last year; one that nobody knows anything of teaches nothing."""
    lines = ledger.find(Query(kinds=(EVIDENCE,), since_s=at_s - MEMORY_S))
    known = {one.incident_id: one for one in _labels(ledger, {str(line.parent_id) for line in lines}) if one.label}
    found = []
    for line in lines:
        label, evidence = known.get(str(line.parent_id)), line.body.get("evidence")
        if label is not None and isinstance(evidence, dict):
            numbers = {str(k): float(v) for k, v in evidence.items() if isinstance(v, int | float)}
            weight = WEIGHTS[label.strength or "weak"]
            real = label.label == "real"
            found.append(Example(label.incident_id, line.service, line.at_s, numbers, real, weight))
    return sorted(found, key=lambda one: (one.at_s, one.incident_id, sorted(one.evidence.items())))


def _labels(ledger: Ledger, incident_ids: set[str]) -> list[Label]:
    ids = tuple(sorted(incident_ids))
    past = Past().add(ledger.find(Query(kinds=KINDS, incident_ids=ids)))
    said = orders_of(ledger.find(Query(kinds=(ORDER,), parent_ids=ids, order="written")))
    return labelled(past, said)


def learn_ranker(parts: Parts, at_s: float) -> str:
    """Learn again where the labels are other ones than the last time; how it stands, in a sentence. Never raises for
    what can be lived without."""
    settings, ledger = parts.settings.detection.learning, parts.ledger
    known = examples(ledger, at_s) if settings.rerank or settings.adapt else []
    adapt(parts, known, at_s)
    if not settings.rerank:
        return OFF
    try:
        said = _learned(ledger, known, at_s, parts)
    except RankerUnusable as error:
        said = f"Nothing is learned from labels: {error}."
    ledger.put_blob(STATE, said.encode(), at_s=at_s)
    return said


def _learned(ledger: Ledger, known: Sequence[Example], at_s: float, parts: Parts) -> str:
    if short := missing(known, parts.settings.detection.learning):
        # labels may be taken back: what was learned from them must not go on
        ledger.put_blob(RANKER, b"", at_s=at_s)
        return f"Nothing is learned from labels yet: {short}."
    made_of = make_id(RANKER, *((e.incident_id, e.real, e.weight, sorted(e.evidence.items())) for e in known))
    stored = _stored(ledger)
    if stored is None or ledger.get(f"{RANKER}:{made_of}:{stored.id}") is None:
        stored = learn(known, at_s)
        ledger.put_blob(RANKER, stored.to_bytes(), at_s=at_s)
        ledger.put(_version(stored, made_of, at_s))
    return sentence(stored)


def _version(ranker: Ranker, made_of: str, at_s: float) -> Record:
    """That this model was learned, and from which labels; the same labels make the same model again."""
    body = {"model": ranker.id, "labels": made_of, "keep_at": ranker.keep_at, "raise_at": ranker.raise_at}
    body |= {"used": ranker.used, **asdict(ranker.held), "reason": sentence(ranker)}
    return Record(id=f"{RANKER}:{made_of}:{ranker.id}", kind=RANKER, service="", at_s=at_s, body=body)


def sentence(ranker: Ranker) -> str:
    """What a re-ranker rests on and whether it is used."""
    held = ranker.held
    before = f"{held.found_before} of {held.real} real problems at {held.alarms_before} false alarms"
    after = f"{held.found} at {held.alarms}"
    rests = f"model {ranker.id}, of {held.real + held.false} labelled incidents"
    if ranker.used:
        told = "with detection.learning.move_tiers it moves anomalies between warn and act"
        return f"What {rests}, says holds on services that it had not seen: {after} instead of {before}; {told}."
    return f"The labels teach nothing that holds elsewhere ({rests}): the detectors alone call {before} act."


def _stored(ledger: Ledger) -> Ranker | None:
    data = ledger.get_blob(RANKER)
    try:
        return Ranker.from_bytes(data) if data else None
    except RankerUnusable as error:
        _log.warning("learn_ranker: %s", error)
        return None


def judge(parts: Parts) -> Judge | None:
    """What a sweep asks; None where nothing was learned, learning is off, or what was learned cannot be used."""
    if not parts.settings.detection.learning.rerank or (ranker := _stored(parts.ledger)) is None:
        return None
    try:
        return Judge(ranker)
    except SlotuneError as error:
        _log.warning("detect_anomalies: %s", error)
        return None


def stands(blob: bytes | None, settings: DetectionSettings) -> str:
    """The sentence of the last learning; what is true before the first, and where it is off."""
    if not settings.learning.rerank:
        return OFF
    return blob.decode(errors="replace") if blob else "Nothing is learned from labels yet."
