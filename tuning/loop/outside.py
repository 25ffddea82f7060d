"""Alerts of others as evidence: written down, an incident opened or strengthened at once, and held by every sweep."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detection import incidents as incident_rules
from detection.model import Anomaly, Service
from detection.settings import DetectionSettings
from tuning import alerts as outside
from tuning.alerts import ALERT, FORGOTTEN_S, OutsideAlert
from tuning.loop import records
from tuning.loop.open_incidents import open_incidents_of
from tuning.ports import Ledger
from tuning.query import Query

_log = logging.getLogger(__name__)


def take(
    ledger: Ledger,
    services: Sequence[Service],
    settings: DetectionSettings,
    alerts: Sequence[OutsideAlert],
    at_s: float,
) -> tuple[int, tuple[str, ...]]:
    """(how many of these alerts are news, the ids of the incidents that they opened or strengthened).

    What is not new changes nothing. That an alert is resolved ends its evidence; the next sweep closes what rests on
    nothing else. The sweep after this starts the run that the incident needs.
    """
    fresh = [alert for alert in alerts if ledger.put(outside.record(alert))]
    touched = {alert.service for alert in fresh if alert.status == "firing"}
    if not touched:
        return len(fresh), ()
    about = [service for service in services if service.name in touched]
    evidence = [anomaly for anomaly in anomalies(ledger, at_s) if anomaly.service in touched]
    known = [incident for incident in open_incidents_of(ledger, at_s) if incident.service in touched]
    current, closed = incident_rules.open_incidents(about, evidence, known, at_s, settings)
    before = {incident.id: incident for incident in known}
    for incident in current:
        if ledger.put(records.incident_record(incident, before.get(incident.id))):
            _log.info("alerts: %s %s: %s", incident.service, incident.symptom, incident.reason)
    renamed = {incident.service for incident in current}
    for incident_id in closed:
        if before[incident_id].service in renamed and before[incident_id].tier == "warn":
            reason = "an alert of others made it something to act on"
            ledger.put(records.closing_record(before[incident_id], at_s, reason))
    return len(fresh), tuple(incident.id for incident in current)


def anomalies(ledger: Ledger, at_s: float) -> list[Anomaly]:
    """The evidence of all alerts that fire now."""
    told = ledger.find(Query(kinds=(ALERT,), since_s=at_s - FORGOTTEN_S))
    return outside.anomalies(outside.standing(told, at_s), at_s)
