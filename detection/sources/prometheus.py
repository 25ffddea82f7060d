"""Prometheus as a metrics source: one range query per signal for all services of a preset.

Services of one preset with the same selector keys (and metric names) share a query: their values become one regular
expression per key, the answer is grouped by the keys and mapped back. Queries are split where the answer would exceed
`MAX_SAMPLES` or Prometheus' own limit of 11,000 points a series, and run on a few threads.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from detection import presets
from detection.errors import ConfigError
from detection.model import BucketWindow, FloatArray, MetricWindow, PercentileSource, Service, Span
from detection.presets import PERCENTILE_LABEL, Preset
from detection.sources._client import RangeClient, Row

MAX_SAMPLES = 1_000_000
MAX_POINTS = 10_000
_THREADS = 4
_J = TypeVar("_J")
_R = TypeVar("_R")


@dataclass(frozen=True)
class _Group:
    """Services that one query can ask for."""

    preset: Preset
    names: Mapping[str, str]
    keys: tuple[str, ...]
    services: tuple[Service, ...]

    def selector(self) -> str:
        parts = []
        for key in self.keys:
            values = sorted({service.selectors[key] for service in self.services})
            pattern = "|".join(re.escape(value).replace("\\-", "-") for value in values)
            parts.append(f'{key}=~"{_quoted(pattern)}",' if len(values) > 1 else f'{key}="{_quoted(values[0])}",')
        return "".join(parts)

    def owners(self) -> Mapping[tuple[str, ...], list[str]]:
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for service in self.services:
            found[tuple(service.selectors[key] for key in self.keys)].append(service.name)
        return found


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class PrometheusSource:
    """detection.ports.MetricsSource over a Prometheus server (or anything that speaks its HTTP API).

    rate_window_s: the window of every rate(), at least four scrape intervals. headers, auth, verify: as in requests
    (a bearer token goes into headers; verify is False or the path of a CA bundle). timeout_s: for a whole answer.
    client: another way to run a query, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        rate_window_s: float,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        verify: bool | str = True,
        timeout_s: float = 10.0,
        retries: int = 2,
        query_range: Callable[[str, Span], list[Row]] | None = None,
    ) -> None:
        self._window_s = rate_window_s
        self._query = (
            query_range
            or RangeClient(
                url, headers=headers, auth=auth, verify=verify, timeout_s=timeout_s, retries=retries
            ).query_range
        )

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        """Windows by service name; a service without any series is absent. See detection.ports.MetricsSource."""
        found = self._signals(services, signals, span, replica=False)
        return {name: values[None] for name, values in found.items() if None in values}

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        """Windows by service name and replica, {} for a service whose series carry no replica label."""
        found = self._signals(services, signals, span, replica=True)
        return {
            service.name: {
                replica: window for replica, window in found.get(service.name, {}).items() if replica is not None
            }
            for service in services
        }

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        """Requests per bucket and step by service name, from the increase of the histogram over each step."""
        jobs = [group for group in _groups(services, span.points * 16) if group.preset.buckets]
        window = f"{max(span.step_s, self._window_s):g}s"
        factor = span.step_s / max(span.step_s, self._window_s)

        def run(group: _Group) -> dict[str, BucketWindow]:
            query = group.preset.query(
                group.preset.buckets, selector=group.selector(), by=_by(group.keys), window=window, names=group.names
            )
            return _buckets(group, self._rows(query, span), span, factor)

        found: dict[str, BucketWindow] = {}
        for part in _concurrently(run, jobs):
            found.update(part)
        return found

    def _signals(
        self, services: Sequence[Service], signals: Sequence[str], span: Span, *, replica: bool
    ) -> dict[str, dict[str | None, MetricWindow]]:
        factor = 8 if replica else 1
        jobs = [
            (group, signal)
            for group in _groups(services, span.points * factor)
            for signal in dict.fromkeys(signals)
            if signal in group.preset.signals
        ]
        values: dict[tuple[str, str | None], dict[str, FloatArray]] = defaultdict(dict)
        sources: dict[tuple[str, str | None], str] = {}

        def run(job: tuple[_Group, str]) -> tuple[_Group, str, list[Row]]:
            group, signal = job
            keys = (*group.keys, group.preset.replica_label) if replica else group.keys
            query = group.preset.query(
                group.preset.signals[signal],
                selector=group.selector(),
                by=_by(keys),
                window=f"{self._window_s:g}s",
                names=group.names,
            )
            return group, signal, self._rows(query, span)

        for group, signal, rows in _concurrently(run, jobs):
            owners = group.owners()
            for row in rows:
                label = row.labels.get(group.preset.replica_label) if replica else None
                if replica and not label:
                    continue
                for name in owners.get(tuple(row.labels.get(key, "") for key in group.keys), ()):
                    known = values[name, label].get(signal)
                    values[name, label][signal] = row.values if known is None else _filled(known, row.values)
                    if source := row.labels.get(PERCENTILE_LABEL):
                        sources[name, label] = source
        by_name = {service.name: service for service in services}
        found: dict[str, dict[str | None, MetricWindow]] = defaultdict(dict)
        for (name, label), series in values.items():
            found[name][label] = _window(by_name[name], label, series, span, sources.get((name, label)))
        return found

    def _rows(self, query: str, span: Span) -> list[Row]:
        """The query over the whole span, in pieces that Prometheus accepts."""
        pieces = list(_pieces(span))
        if len(pieces) == 1:
            return self._query(query, span)
        merged: dict[tuple[tuple[str, str], ...], FloatArray] = {}
        at = 0
        for piece in pieces:
            for row in self._query(query, piece):
                key = tuple(sorted(row.labels.items()))
                merged.setdefault(key, np.full(span.points, np.nan))[at : at + piece.points] = row.values
            at += piece.points
        return [Row(dict(key), series) for key, series in merged.items()]


def _pieces(span: Span) -> Iterator[Span]:
    for first in range(0, span.points, MAX_POINTS):
        last = min(first + MAX_POINTS, span.points) - 1
        yield Span(span.start_s + first * span.step_s, span.start_s + last * span.step_s, span.step_s)


def _by(keys: Sequence[str]) -> str:
    return "".join(f"{key}," for key in keys)


def _groups(services: Sequence[Service], samples_each: int) -> list[_Group]:
    """Services that share a query, split so that one answer stays under MAX_SAMPLES."""
    shared: dict[tuple[str, tuple[tuple[str, str], ...], tuple[str, ...]], list[Service]] = defaultdict(list)
    for service in services:
        preset = presets.get(service.serving)
        if not service.selectors:
            raise ConfigError(f"the service {service.name!r} has no selectors, so its series cannot be found")
        shared[preset.name, preset.resolved(service.labels), tuple(sorted(service.selectors))].append(service)
    size = max(1, MAX_SAMPLES // max(1, min(samples_each, MAX_POINTS)))
    return [
        _Group(presets.get(name), dict(names), keys, tuple(members[first : first + size]))
        for (name, names, keys), members in shared.items()
        for first in range(0, len(members), size)
    ]


def _concurrently(run: Callable[[_J], _R], jobs: Sequence[_J]) -> Iterator[_R]:
    """Results in order; the first error cancels what has not started and is raised."""
    if len(jobs) <= 1:
        yield from map(run, jobs)
        return
    pool = ThreadPoolExecutor(max_workers=_THREADS)
    try:
        yield from pool.map(run, jobs)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _filled(values: FloatArray, others: FloatArray) -> FloatArray:
    """`values` with its gaps filled: a service whose percentiles came from another metric for part of the span."""
    return np.where(np.isnan(values), others, values)


def _window(
    service: Service, replica: str | None, series: Mapping[str, FloatArray], span: Span, source: str | None
) -> MetricWindow:
    found: PercentileSource = "summary" if source == "summary" else presets.get(service.serving).percentile_source
    measured = any(name in series for name in ("p50_ms", "p95_ms", "p99_ms"))
    stale_s = {}
    for name, values in series.items():
        finite = np.flatnonzero(np.isfinite(values))
        if finite.size:
            stale_s[name] = float((span.points - 1 - finite[-1]) * span.step_s)
    return MetricWindow(service.name, span, dict(series), found if measured else "none", replica, stale_s)


def _buckets(group: _Group, rows: Sequence[Row], span: Span, factor: float) -> dict[str, BucketWindow]:
    owners = group.owners()
    edges: dict[tuple[str, ...], list[tuple[float, FloatArray]]] = defaultdict(list)
    for row in rows:
        key = tuple(row.labels.get(label, "") for label in group.keys)
        if key in owners and "le" in row.labels:
            edges[key].append((float(row.labels["le"]) * group.preset.bucket_scale_ms, row.values))
    found = {}
    for key, columns in edges.items():
        columns.sort(key=lambda column: column[0])
        cumulative = np.stack([values for _, values in columns], axis=1) * factor
        counts = np.diff(cumulative, axis=1, prepend=0.0)
        upper = np.array([edge for edge, _ in columns])
        for name in owners[key]:
            # extrapolation of increase() can leave tiny negative differences between buckets
            found[name] = BucketWindow(name, span, upper, np.where(counts < 0, 0.0, counts))
    return found
