"""The latency models between two incidents: learned hourly from calm traffic, kept in the ledger's store.

One model per served version, variant and precision; a new version starts anew. What an incident distorts is left out.
"""

from __future__ import annotations

import json

from detection.errors import SlotuneError
from detection.model import MetricWindow, Service, Span
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
    return sum(_take(parts, service, windows.get(service.name), served(parts, service), at_s) for service in calm)


def learn_from(parts: Parts, service: Service, span: Span, before: tuple[str, str] | None) -> str | None:
    """Update one service's model from a stretch whose cause is known, such as a stress test; None, or why nothing was
    learned.

    before: what was served when the stretch began (`served`): one model learns from one version alone.
    """
    now = served(parts, service)
    if now is None or before is None:
        return "what is served could not be read"
    if now != before:
        return "another version or precision was served at its end than at its beginning"
    windows = parts.source.read([service], engines.get(service.engine).signals, span)
    if _take(parts, service, windows.get(service.name), now, span.end_s):
        return None
    wanted = ", ".join(engines.get(service.engine).signals)
    return f"the signals that the latency model learns from were not there ({wanted})"


def _take(
    parts: Parts, service: Service, window: MetricWindow | None, key: tuple[str, str] | None, at_s: float
) -> bool:
    """Whether the model of what is served (`key`) learned from the window."""
    if window is None or key is None:
        return False
    state, window = latency_model(parts, service), _since(parts, service, window)
    learned = engines.get(service.engine).learn(state, window, key, parts.settings.prometheus.rate_window_s)
    if learned is None:
        return False
    parts.ledger.put_blob(model_key(service.name), json.dumps(learned).encode(), at_s=at_s)
    return True


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
