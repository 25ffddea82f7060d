"""The latency models between two incidents: learned hourly from calm traffic, kept in the ledger's store.

One model per served version and precision; a new version starts anew. What an incident distorts is left out.
"""

from __future__ import annotations

import json

from detection.errors import SlotuneError
from detection.model import Service
from tuning.loop.observe import latency_model, look_back, model_key
from tuning.loop.open_incidents import open_incidents_of
from tuning.loop.parts import Parts
from tuning.planning import engines


def learn_latency(parts: Parts, at_s: float) -> int:
    """Update the model of every service without an open incident; how many were updated.

    Rates over one window are no independent measurements: one point per rate window counts.
    """
    troubled = {incident.service for incident in open_incidents_of(parts.ledger, at_s)}
    calm = [service for name, service in parts.services.items() if name not in troubled]
    signals = tuple(sorted({name for service in calm for name in engines.get(service.engine).signals}))
    windows = parts.source.read(calm, signals, look_back(parts, at_s)) if calm else {}
    updated = 0
    for service in calm:
        window, key = windows.get(service.name), served(parts, service)
        if window is None or key is None:
            continue
        state = latency_model(parts, service)
        learned = engines.get(service.engine).learn(state, window, key, parts.settings.prometheus.rate_window_s)
        if learned is None:
            continue
        parts.ledger.put_blob(model_key(service.name), json.dumps(learned).encode(), at_s=at_s)
        updated += 1
    return updated


def served(parts: Parts, service: Service) -> tuple[str, str] | None:
    """(version, precision) of what is served now; None where the precision lever cannot be read."""
    if "precision" not in service.levers:
        return "", ""
    try:
        values = parts.actuator(service, "precision").read(service).values
    except SlotuneError:
        return None
    return str(values.get("version", "")), str(values.get("precision", ""))
