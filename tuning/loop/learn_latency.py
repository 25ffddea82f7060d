"""The latency models between two incidents: learned hourly from calm traffic, kept in the ledger's store.

One model per served version and precision; a new version starts anew. What an incident distorts is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from detection.errors import SlotuneError
from detection.model import MetricWindow, Service
from tuning.loop.observe import latency_model, look_back, model_key
from tuning.loop.parts import Parts
from tuning.loop.watch import open_incidents_of
from tuning.planning import latency_model as models

_SIGNALS = ("batch_ms", "rows_per_batch")


def learn_latency(parts: Parts, at_s: float) -> int:
    """Update the model of every service without an open incident; how many were updated.

    Rates over one window are no independent measurements: one point per rate window counts.
    """
    troubled = {incident.service for incident in open_incidents_of(parts.ledger, at_s)}
    calm = [service for name, service in parts.services.items() if name not in troubled]
    windows = parts.source.read(calm, _SIGNALS, look_back(parts, at_s)) if calm else {}
    updated = 0
    for service in calm:
        points = batch_points(windows.get(service.name), parts.settings.prometheus.rate_window_s)
        key = served(parts, service)
        if not points or key is None:
            continue
        state = models.load(latency_model(parts, service))
        model = models.learn(state.get(key, models.LatencyModel()), points)
        body = json.dumps(models.dump({key: model})).encode()
        parts.ledger.put_blob(model_key(service.name), body, at_s=at_s)
        updated += 1
    return updated


def batch_points(window: MetricWindow | None, stride_s: float) -> Sequence[tuple[float, float, float]]:
    """(time, rows per batch, batch_ms) of a window, oldest first, one per `stride_s`."""
    if window is None or any(signal not in window.values for signal in _SIGNALS):
        return ()
    times, rows, batch_ms = window.span.times(), window.values["rows_per_batch"], window.values["batch_ms"]
    good = np.isfinite(rows) & np.isfinite(batch_ms) & (batch_ms > 0) & (rows >= 1)
    stride = max(1, round(stride_s / window.span.step_s))
    index = np.flatnonzero(good)[::-1][::stride][::-1]
    return [(float(times[i]), float(rows[i]), float(batch_ms[i])) for i in index]


def served(parts: Parts, service: Service) -> str | None:
    """The model's key for what is served now; None where the precision lever cannot be read."""
    if "precision" not in service.levers:
        return models.key("", "")
    try:
        values = parts.actuator(service, "precision").read(service).values
    except SlotuneError:
        return None
    return models.key(str(values.get("version", "")), str(values.get("precision", "")))
