"""Recorded windows as a metrics source: for backtests, tests and planning from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from detection.model import BucketWindow, FloatArray, MetricWindow, Service, Span


class RecordedSource:
    """Answers from windows held in memory, on any grid asked for; a grid point without a sample nearby is NaN.

    windows: by service name. replicas: by service name and replica. buckets: by service name.
    """

    def __init__(
        self,
        windows: Mapping[str, MetricWindow],
        replicas: Mapping[str, Mapping[str, MetricWindow]] | None = None,
        buckets: Mapping[str, BucketWindow] | None = None,
    ) -> None:
        self._windows = windows
        self._replicas = replicas or {}
        self._buckets = buckets or {}

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        """Windows by service name; a service without any series is absent."""
        found = {}
        for service in services:
            window = self._windows.get(service.name)
            cut = _cut(window, signals, span) if window is not None else None
            if cut is not None:
                found[service.name] = cut
        return found

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        """Windows by service name and replica."""
        found: dict[str, dict[str, MetricWindow]] = {}
        for service in services:
            cuts = {name: _cut(w, signals, span) for name, w in self._replicas.get(service.name, {}).items()}
            found[service.name] = {name: window for name, window in cuts.items() if window is not None}
        return found

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        """Buckets by service name, on the asked grid; NaN where nothing was recorded."""
        found = {}
        for service in services:
            held = self._buckets.get(service.name)
            if held is not None:
                columns = [_onto(held.span, held.counts[:, k], span) for k in range(held.upper_ms.size)]
                found[service.name] = BucketWindow(service.name, span, held.upper_ms, np.stack(columns, axis=1))
        return found


def _cut(window: MetricWindow, signals: Sequence[str], span: Span) -> MetricWindow | None:
    values = {name: _onto(window.span, window.values[name], span) for name in signals if name in window.values}
    values = {name: series for name, series in values.items() if np.isfinite(series).any()}
    if not values:
        return None
    stale_s = {
        name: float((span.points - 1 - np.flatnonzero(np.isfinite(series))[-1]) * span.step_s)
        for name, series in values.items()
    }
    return MetricWindow(window.service, span, values, window.percentile_source, window.replica, stale_s)


def _onto(have: Span, values: FloatArray, want: Span) -> FloatArray:
    """The newest recorded sample at or before each wanted time, no older than one step of either grid."""
    index = np.floor((want.times() - have.start_s) / have.step_s + 1e-6).astype(np.int64)
    reach = max(want.step_s, have.step_s)
    age_s = want.times() - (have.start_s + index * have.step_s)
    ok = (index >= 0) & (index < values.size) & (age_s < reach)
    return np.where(ok, values[np.clip(index, 0, values.size - 1)], np.nan)
