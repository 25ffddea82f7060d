"""Prometheus as a metrics source: one range query per signal for all services of a preset.

Services of one preset with the same selector keys (and metric names) share a query: their values become one regular
expression per key, the answer is grouped by the keys and mapped back. A service that cannot be read is named with its
reason while all others are answered (see `_asking`); a target that is scraped twice is counted once and named (see
`_twice`). Percentiles come with the histogram's bounds; P95 is held against the service's SLO where it is censored, so
that it is a breach, the mean's, or a gap, and never a number that looks healthy (see detection.windows).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from detection import presets, versions
from detection.errors import QueryRefused, SlotuneError
from detection.http_access import Access
from detection.model import (
    BucketWindow,
    FloatArray,
    MetricWindow,
    PercentileSource,
    Reading,
    Service,
    Span,
    VersionWindow,
)
from detection.outside_text import printable
from detection.presets import PERCENTILE_LABEL
from detection.signals import plausible
from detection.sources import _buckets, _twice
from detection.sources._asking import Answers, Job, ask, reasons
from detection.sources._client import RangeClient, Row
from detection.sources._queries import MAX_POINTS, MAX_SAMPLES, Group, groups, pieces
from detection.windows import PERCENTILES, against

__all__ = ["MAX_POINTS", "MAX_SAMPLES", "PrometheusSource", "Row", "query_of"]

ESSENTIAL = ("p95_ms", "qps", "error_rate")
"""Without one of these that it exports, or of what it promises, a service is not judged at all: it is unreadable."""
_BOUNDS = "bounds"
_REPLICAS_EACH, _BOUNDS_EACH = 8, 32
VERSION_LETTERS = 120
"""A version's name is cut at this length: it stands in mails and in the ledger."""
_T = TypeVar("_T")
_Values = dict[tuple[str, str | None], dict[str, FloatArray]]


class PrometheusSource:
    """detection.ports.MetricsSource over a Prometheus server (or anything that speaks its HTTP API).

    rate_window_s: the window of every rate(), at least four scrape intervals. access: headers and TLS; headers, auth,
    verify: the same as in requests. method: "GET" where POST is known to be refused. timeout_s: for a whole answer.
    query_range: another way to run a query, for tests.
    """

    def __init__(
        self,
        url: str,
        *,
        rate_window_s: float,
        access: Access | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        verify: bool | str = True,
        method: str = "POST",
        timeout_s: float = 10.0,
        retries: int = 2,
        query_range: Callable[[str, Span], list[Row]] | None = None,
    ) -> None:
        self._window_s = rate_window_s
        self._client = RangeClient(
            url,
            access=access,
            headers=headers,
            auth=auth,
            verify=verify,
            method=method,
            timeout_s=timeout_s,
            retries=retries,
        )
        self._query = query_range or self._client.query_range

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Reading[MetricWindow]:
        """Windows by service name; a service without any series is absent. See detection.ports.MetricsSource."""
        found, unreadable, notes = self._signals(services, signals, span, replica=False)
        windows = {name: values[None] for name, values in found.items() if None in values}
        return Reading(windows, unreadable, notes, self._client.clock_skew_s)

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Reading[Mapping[str, MetricWindow]]:
        """Windows by service name and replica, {} for a service whose series carry no replica label."""
        found, unreadable, notes = self._signals(services, signals, span, replica=True)
        replicas = {
            service.name: {r: window for r, window in found.get(service.name, {}).items() if r is not None}
            for service in services
            if service.name not in unreadable
        }
        return Reading(replicas, unreadable, notes, self._client.clock_skew_s)

    def read_buckets(self, services: Sequence[Service], span: Span) -> Reading[BucketWindow]:
        """Requests per bucket and step by service name, from the increase of the histogram over each step."""
        asked, wrong = groups(services, span.points * 16)
        window_s = max(span.step_s, self._window_s)
        jobs = [Job(group, "buckets", group.preset.buckets) for group in asked if group.preset.buckets]
        answers = ask(lambda job: self._rows(job.group.query(job.template, window_s), span), jobs)
        found: dict[str, BucketWindow] = {}
        for job, rows in answers.results:
            found.update(_buckets.windows(job.group, rows, span, span.step_s / window_s))
        return Reading(found, _unreadable(services, found, wrong, answers, ("buckets",)))

    def read_versions(self, services: Sequence[Service], span: Span) -> Reading[VersionWindow]:
        """Which versions answered, by service name. See detection.ports.TellsVersions."""
        asked, _ = groups(services, span.points)
        jobs = [
            Job(group, "version", group.preset.served)
            for group in asked
            # whoever selects a version by its label has one version, whatever is released
            if group.preset.served and group.preset.version_label not in group.keys
        ]
        answers = ask(
            lambda job: self._rows(
                job.group.query(job.template, self._window_s, (job.group.preset.version_label,)), span
            ),
            jobs,
        )
        counted: dict[str, dict[str, FloatArray]] = defaultdict(dict)
        for job, rows in answers.results:
            owners = job.group.owners()
            for row in rows:
                version = printable(row.labels.get(job.group.preset.version_label, ""), VERSION_LETTERS)
                for name in owners.get(tuple(row.labels.get(key, "") for key in job.group.keys), ()) if version else ():
                    counted[name][version] = row.values
        windows = {name: versions.window_of(name, span, found) for name, found in counted.items()}
        return Reading(windows, {name: reasons(failed) for name, failed in answers.failures.items()})

    def clock_skew_s(self) -> float:
        """The clock by which Prometheus evaluates queries minus ours, as far as it is certain (0.0: no difference)."""
        return self._client.server_clock_skew_s()

    def names(self, service: Service, at_s: float) -> Sequence[str]:
        """The names of all metrics that have series with the service's labels: where to look for a renamed one."""
        group = groups([service], 1)[0]
        return self._client.names(group[0].selector(), at_s) if group else ()

    def series(self, query: str, span: Span) -> list[Row]:
        """The series of any query: for what has no service yet. Raises as `read`."""
        return self._rows(query, span)

    def _signals(
        self, services: Sequence[Service], signals: Sequence[str], span: Span, *, replica: bool
    ) -> tuple[dict[str, dict[str | None, MetricWindow]], dict[str, str], dict[str, str]]:
        each = max(span.points * (_REPLICAS_EACH if replica else 1), _BOUNDS_EACH)
        asked, wrong = groups(services, each)
        asked, notes = _twice.once(asked, span, self._rows)
        wanted = tuple(dict.fromkeys(signals))
        jobs = [Job(g, s, g.preset.signals[s]) for g in asked for s in wanted if s in g.preset.signals]
        if any(signal in PERCENTILES for signal in wanted):
            jobs += [Job(group, _BOUNDS, group.preset.buckets) for group in asked if group.preset.buckets]

        def run(job: Job) -> list[Row]:
            more = (job.group.preset.replica_label,) if replica and job.signal != _BOUNDS else ()
            where = _ends(span) if job.signal == _BOUNDS else span
            rows = self._rows(job.group.query(job.template, self._window_s, more), where)
            return rows if replica else _one_each(job, rows)

        answers = ask(run, jobs)
        values, sources, bounds = _sorted(answers, span, replica=replica)
        native = self._native(asked, wanted, values, span, replica=replica)
        for place, series in native.items():
            values.setdefault(place, {}).update(series)
        by_name = {service.name: service for service in services}
        found: dict[str, dict[str | None, MetricWindow]] = defaultdict(dict)
        unreadable = _unreadable(services, {name for name, _ in values}, wrong, answers, (*ESSENTIAL, _BOUNDS))
        for (name, label), series in values.items():
            if name in unreadable:
                continue
            edges = () if any(p in native.get((name, label), ()) for p in PERCENTILES) else bounds.get(name, ())
            unread = {signal: str(error) for signal, error in answers.failures.get(name, {}).items()}
            unread |= presets.signals_off(by_name[name]) if by_name[name].own_signals else {}
            source = sources.get((name, label))
            found[name][label] = _window(by_name[name], label, series, span, source, edges, unread)
        return found, unreadable, notes

    def _native(
        self, asked: Sequence[Group], wanted: Sequence[str], values: _Values, span: Span, *, replica: bool
    ) -> _Values:
        """The signals of services whose histogram is a native one, asked for only where the classic one is missing.

        A server that knows no native histograms refuses these queries, which says no more than that.
        """
        jobs = []
        measured = {name for (name, _), series in values.items() if "p95_ms" in series}
        for group in asked:
            lacking = [service for service in group.services if service.name not in measured]
            if group.preset.native and "p95_ms" in wanted and lacking:
                part = group.of(lacking)
                jobs += [Job(part, s, t) for s, t in group.preset.native.items() if s in wanted]

        def run(job: Job) -> list[Row]:
            more = (job.group.preset.replica_label,) if replica else ()
            return self._rows(job.group.query(job.template, self._window_s, more), span)

        return _sorted(ask(run, jobs), span, replica=replica)[0] if jobs else {}

    def _rows(self, query: str, span: Span) -> list[Row]:
        """The query over the whole span, in pieces that Prometheus accepts."""
        parts = list(pieces(span))
        if len(parts) == 1:
            return self._query(query, span)
        merged: dict[tuple[tuple[str, str], ...], FloatArray] = {}
        at = 0
        for piece in parts:
            for row in self._query(query, piece):
                key = tuple(sorted(row.labels.items()))
                merged.setdefault(key, np.full(span.points, np.nan))[at : at + piece.points] = row.values
            at += piece.points
        return [Row(dict(key), series) for key, series in merged.items()]


def _one_each(job: Job, rows: list[Row]) -> list[Row]:
    """The rows of an answer. QueryRefused: a query of somebody's own gives a service several series of its signal."""
    if any(job.signal not in service.own_signals for service in job.group.services):
        return rows
    counts = Counter(tuple(row.labels.get(key, "") for key in job.group.keys) for row in rows)
    most = max(counts.values(), default=0)
    if most > 1:
        raise QueryRefused(
            f"its query gives {most} series where a signal is one: aggregate them, for example "
            "avg by ($by) (...), or avg(...) in a query without $sel"
        )
    return rows


def query_of(service: Service, template: str, rate_window_s: float) -> str:
    """A template of the service's preset as it is asked for this service alone. ConfigError: it cannot be asked for."""
    found, wrong = groups([service], 1)
    if wrong:
        raise wrong[service.name]
    return found[0].query(template, rate_window_s)


def _ends(span: Span) -> Span:
    """Two points, the first and the last: enough to learn a histogram's bounds."""
    length_s = span.end_s - span.start_s
    return Span(span.start_s, span.end_s, length_s) if length_s > 0 else span


def _sorted(
    answers: Answers[list[Row]], span: Span, *, replica: bool
) -> tuple[_Values, dict[tuple[str, str | None], str], dict[str, tuple[float, ...]]]:
    """Series by (service, replica) and signal, where percentiles came from, and the histograms' bounds by service."""
    values: _Values = defaultdict(dict)
    sources: dict[tuple[str, str | None], str] = {}
    bounds: dict[str, tuple[float, ...]] = {}
    for job, rows in answers.results:
        group, signal = job.group, job.signal
        if signal == _BOUNDS:
            bounds.update(_buckets.bounds_ms(group, rows))
            continue
        owners = group.owners()
        for row in rows:
            label = row.labels.get(group.preset.replica_label) if replica else None
            if replica and not label:
                continue
            for name in owners.get(tuple(row.labels.get(key, "") for key in group.keys), ()):
                known = values[name, label].get(signal)
                series = plausible(signal, row.values)
                values[name, label][signal] = series if known is None else _filled(known, series)
                if source := row.labels.get(PERCENTILE_LABEL):
                    sources[name, label] = source
    return values, sources, bounds


def _unreadable(
    services: Sequence[Service],
    found: Mapping[str, object] | set[str],
    wrong: Mapping[str, SlotuneError],
    answers: Answers[_T],
    essential: Sequence[str],
) -> dict[str, str]:
    """The services that could not be read, with why; raises the first error where nothing could be read at all."""
    errors: dict[str, SlotuneError] = dict(wrong)
    promised = {service.name: [one.signal for one in service.slo.objectives] for service in services}
    sentences = {name: str(error) for name, error in wrong.items()}
    for name, failed in answers.failures.items():
        vital = {signal: e for signal, e in failed.items() if signal in essential or signal in promised.get(name, ())}
        if vital or name not in found:
            errors[name] = next(iter((vital or failed).values()))
            sentences[name] = reasons(vital or failed)
    if errors and all(service.name in errors for service in services):
        raise next(errors[service.name] for service in services)
    return sentences


def _filled(values: FloatArray, others: FloatArray) -> FloatArray:
    """`values` with its gaps filled: a service whose percentiles came from another metric for part of the span."""
    return np.where(np.isnan(values), others, values)


def _window(
    service: Service,
    replica: str | None,
    series: Mapping[str, FloatArray],
    span: Span,
    source: str | None,
    bounds_ms: tuple[float, ...],
    unread: Mapping[str, str],
) -> MetricWindow:
    found: PercentileSource = "summary" if source == "summary" else presets.of(service).percentile_source
    measured = any(name in series for name in PERCENTILES)
    stale_s = {}
    for name, values in series.items():
        finite = np.flatnonzero(np.isfinite(values))
        if finite.size:
            stale_s[name] = float((span.points - 1 - finite[-1]) * span.step_s)
    kind: PercentileSource = found if measured else "none"
    edges = bounds_ms if kind == "histogram" else ()
    window = MetricWindow(service.name, span, dict(series), kind, replica, stale_s, edges, unread)
    if "p95_ms" not in series or service.slo.p95_ms is None:
        return window
    # held against the SLO here, once: nobody behind this border can take "at least 1 s" for 1 s
    return replace(window, values={**series, "p95_ms": against(window, "p95_ms", service.slo.p95_ms)})
