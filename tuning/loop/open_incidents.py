"""Which incidents are open: the records are the truth, and the store of the last sweep has when each was last seen."""

from __future__ import annotations

import json
import logging
from typing import Any

import pydantic

from detection.model import Incident
from tuning.attempt import value
from tuning.ports import Ledger
from tuning.query import Query

_log = logging.getLogger(__name__)
INCIDENTS = "incidents/open"
_INCIDENT_MEMORY_S = 14 * 86400.0


def open_incidents_of(ledger: Ledger, at_s: float) -> list[Incident]:
    """The incidents that are open, oldest first: the records are the truth, the store has when each was last seen."""
    unclosed = Query(kinds=("open_incidents",), since_s=at_s - _INCIDENT_MEMORY_S, without=("incident_id", ":closed"))
    newest: dict[str, Incident] = {}
    for record in reversed(ledger.find(unclosed)):
        if (incident := value(record, Incident)) is not None:
            newest[incident.id] = incident
    for incident in seen_last(ledger):
        if incident.id in newest:
            newest[incident.id] = incident
    return sorted(newest.values(), key=lambda incident: (incident.opened_at_s, incident.id))


def seen_last(ledger: Ledger) -> list[Incident]:
    """The open incidents as the last sweep saw them; what cannot be read is left to the records."""
    found = []
    for body in stored_json(ledger, INCIDENTS, []):
        try:
            found.append(Incident.model_validate(body, extra="ignore"))
        except pydantic.ValidationError as error:
            _log.warning("open_incidents: an incident in the store cannot be read and is passed over: %s", error)
    return found


def stored_json(ledger: Ledger, key: str, default: Any) -> Any:
    """What is stored under a key; the default where there is nothing, or nothing that can be read."""
    data = ledger.get_blob(key)
    try:
        found = json.loads(data) if data else default
    except ValueError as error:
        _log.warning("what is stored under %s cannot be read and is begun anew: %s", key, error)
        return default
    return found if isinstance(found, type(default)) else default
