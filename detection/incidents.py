"""Anomalies to incidents: what belongs together, what it is called, when it is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from detection.model import Anomaly, Incident, Service, Severity, Tier, make_id
from detection.settings import DetectionSettings

# what hurts first; the incident is called after the first of its anomalies in this order
SYMPTOMS = (
    "absent_data",
    "errors",
    "load_failures",
    "slow_replica",
    "leaking_replica",
    "latency",
    "unanswered",
    "saturation",
    "gpu_memory",
    "training",
    "quality",
    "data",
    "fluctuation",
    "traffic",
    "idle",
)

_BY_SIGNAL: Mapping[str, str] = {
    "absent_data": "absent_data",
    "error_rate": "errors",
    "load_failures": "load_failures",
    "p50_ms": "latency",
    "p95_ms": "latency",
    "p99_ms": "latency",
    "mean_ms": "latency",
    **{f"{one}_{which}": "latency" for one in ("ttft", "itl", "e2e") for which in ("ms", "p50_ms", "p95_ms", "p99_ms")},
    "batch_ms": "latency",
    "iteration_ms": "training",
    "queue_ms": "saturation",
    "queue_depth": "saturation",
    "preemptions_per_s": "saturation",
    "rejected_per_s": "errors",
    "abort_rate": "unanswered",
    "unanswered_rate": "unanswered",
    "gpu_memory": "gpu_memory",
    "accuracy": "quality",
    "agreement": "quality",
    **{f"data_{name}": "data" for name in ("schema", "missing", "outside", "drift", "age")},
    "qps": "traffic",
    "replicas": "saturation",
}


def symptom_of(anomaly: Anomaly) -> str:
    """What an anomaly is a symptom of. Signals that the table does not know are "traffic": seen, not understood."""
    if anomaly.symptom:
        return anomaly.symptom
    if anomaly.replica is not None:
        return "slow_replica"
    if anomaly.signal in ("busy", "gpu_util"):
        low = anomaly.expected_low is not None and anomaly.observed is not None
        return "idle" if low and (anomaly.observed or 0.0) < (anomaly.expected_low or 0.0) else "saturation"
    return _BY_SIGNAL.get(anomaly.signal, "traffic")


def open_incidents(
    services: Sequence[Service],
    anomalies: Sequence[Anomaly],
    open: Sequence[Incident],
    at_s: float,
    settings: DetectionSettings,
) -> tuple[list[Incident], list[str]]:
    """Incidents that are new or have news, and the ids of those that are over.

    All anomalies of a service at one time belong together; spare capacity ("idle") stands alone and gives way to
    anything that hurts. An open incident keeps its id while it grows. Where something to act on joins what was only
    a warning of another kind, the warning is closed and an incident is opened under the new name.
    An incident is over when none of its anomalies has been seen for settings.close_after_s.
    """
    known = {service.name for service in services}
    by_service: dict[str, list[Anomaly]] = defaultdict(list)
    for anomaly in anomalies:
        # what a detector only keeps standing, without a new vote, does not keep an incident open
        if anomaly.service in known and at_s - anomaly.at_s < max(settings.close_after_s, 1.0):
            by_service[anomaly.service].append(anomaly)
    held: dict[str, list[Incident]] = defaultdict(list)
    for incident in open:
        held[incident.service].append(incident)
    changed: list[Incident] = []
    closed: list[str] = []
    for service in sorted({*by_service, *held}):
        news, over = _one_service(service, by_service.get(service, []), held.get(service, []), at_s, settings)
        changed += news
        closed += over
    return changed, closed


def _one_service(
    service: str, anomalies: Sequence[Anomaly], held: Sequence[Incident], at_s: float, settings: DetectionSettings
) -> tuple[list[Incident], list[str]]:
    hurting = [anomaly for anomaly in anomalies if symptom_of(anomaly) != "idle"]
    current = hurting or list(anomalies)
    changed: list[Incident] = []
    closed: list[str] = []
    target: Incident | None = None
    for incident in sorted(held, key=lambda item: (item.opened_at_s, item.id)):
        if current and target is None and _continues(incident, current):
            target = incident
        elif _gives_way(incident, current) or at_s - last_seen_s(incident) >= settings.close_after_s:
            closed.append(incident.id)
    if current:
        changed.append(_grown(target, current) if target is not None else _new(service, current, at_s))
    return changed, closed


def _gives_way(incident: Incident, current: Sequence[Anomaly]) -> bool:
    return bool(current) and (incident.symptom == "idle" or incident.tier == "warn")


def last_seen_s(incident: Incident) -> float:
    """When the newest of its anomalies was last seen."""
    return max((anomaly.at_s for anomaly in incident.anomalies), default=incident.detected_at_s)


def _continues(incident: Incident, current: Sequence[Anomaly]) -> bool:
    symptom, tier = _headline(current)
    if (incident.symptom == "idle") != (symptom == "idle"):
        return False
    # a warning of another kind gives way to something to act on
    return not (tier == "act" and incident.tier == "warn" and incident.symptom != symptom)


def _headline(anomalies: Sequence[Anomaly]) -> tuple[str, Tier]:
    tier: Tier = "act" if any(anomaly.tier == "act" for anomaly in anomalies) else "warn"
    return min((symptom_of(a) for a in anomalies if a.tier == tier), key=_rank), tier


def _rank(symptom: str) -> int:
    """What hurts first; a symptom that only its detector knows comes with the traffic."""
    return SYMPTOMS.index(symptom if symptom in SYMPTOMS else "traffic")


def _ranked(anomalies: Sequence[Anomaly]) -> tuple[Anomaly, ...]:
    return tuple(sorted(anomalies, key=lambda a: (a.tier != "act", _rank(symptom_of(a)), -a.score, a.signal, a.id)))


def _severity(symptom: str, tier: Tier) -> Severity:
    if tier == "act":
        # nobody waits for the answer of a training job
        return "warning" if symptom == "training" else "critical"
    return "info" if symptom in ("idle", "traffic") else "warning"


def _new(service: str, anomalies: Sequence[Anomaly], at_s: float) -> Incident:
    symptom, tier = _headline(anomalies)
    onset_s = min(anomaly.since_s for anomaly in anomalies)
    return _incident(make_id("incident", service, symptom, onset_s), service, symptom, tier, onset_s, at_s, anomalies)


def _incident(
    id_: str, service: str, symptom: str, tier: Tier, onset_s: float, at_s: float, anomalies: Sequence[Anomaly]
) -> Incident:
    ranked = _ranked(anomalies)
    return Incident(
        id=id_,
        service=service,
        symptom=symptom,
        tier=tier,
        severity=_severity(symptom, tier),
        opened_at_s=onset_s,
        detected_at_s=at_s,
        signals=tuple(dict.fromkeys(anomaly.signal for anomaly in ranked)),
        anomalies=ranked,
        reason="; ".join(dict.fromkeys(anomaly.reason for anomaly in ranked[:3])),
    )


def _grown(incident: Incident, anomalies: Sequence[Anomaly]) -> Incident:
    merged = {(a.signal, a.replica): a for a in incident.anomalies}
    for anomaly in anomalies:
        before = merged.get((anomaly.signal, anomaly.replica))
        since_s = min(anomaly.since_s, before.since_s) if before is not None else anomaly.since_s
        merged[anomaly.signal, anomaly.replica] = anomaly.model_copy(update={"since_s": since_s})
    tier: Tier = "act" if incident.tier == "act" or any(a.tier == "act" for a in anomalies) else "warn"
    grown = _incident(
        incident.id,
        incident.service,
        incident.symptom,
        tier,
        incident.opened_at_s,
        incident.detected_at_s,
        tuple(merged.values()),
    )
    return grown.model_copy(update={"attempt": incident.attempt})
