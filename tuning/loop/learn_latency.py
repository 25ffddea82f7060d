"""The latency models between two incidents: learned hourly from calm traffic, kept in the ledger's store.

One model per served version, variant and precision; a new version starts anew. What an incident distorts is left out.
"""

from __future__ import annotations

import json

from detection.errors import SlotuneError
from detection.model import MetricWindow, Service
from tuning.loop.observe import latency_model, look_back, model_key
from tuning.loop.open_incidents import open_incidents_of
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Knob
from tuning.planning import engines, variants
from tuning.query import Query


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
        state, window = latency_model(parts, service), _since(parts, service, window)
        learned = engines.get(service.engine).learn(state, window, key, parts.settings.prometheus.rate_window_s)
        if learned is None:
            continue
        parts.ledger.put_blob(model_key(service.name), json.dumps(learned).encode(), at_s=at_s)
        updated += 1
    return updated


def served(parts: Parts, service: Service) -> tuple[str, str] | None:
    """(version, precision) of what is served now, the version with its variant; None where that cannot be read."""
    values: dict[str, Knob] = {}
    try:
        for lever in ("precision", "variant"):
            if lever in service.levers:
                values |= parts.actuator(service, lever).read(service).values
    except SlotuneError:
        return None
    version = variants.keyed(str(values.get("version", "")), str(values.get("variant", "")))
    return version, str(values.get("precision", ""))


def _since(parts: Parts, service: Service, window: MetricWindow) -> MetricWindow:
    """The part of a window in which one variant served: what came before the last switch was another one's."""
    if "variant" not in service.levers:
        return window
    kinds = (LEVER_STEPS["variant"], "roll_back")
    made = parts.ledger.find(Query(kinds=kinds, services=(service.name,), phase="result", since_s=window.span.start_s))
    moved = [r.at_s for r in made if r.body.get("lever") == "variant" and r.body.get("changed")]
    if not moved:
        return window
    return window.between(max(moved) + parts.settings.prometheus.rate_window_s, window.span.end_s)
