"""slotune about itself, and every service's signals, in Prometheus' text format.

Names follow Prometheus' conventions (base units in seconds, `_total` for counters). Cardinality is bounded: service,
signal, lever, verdict, state and tier are the only labels, and each comes from the settings or a fixed list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from slotune import history
from slotune.views import approvals, changes, fleet, health, incidents
from slotune.views.latest import latest
from slotune.views.outcomes import History, Outcomes, outcomes
from slotune.views.reading import Reading

RESOLVE_BUCKETS_S = (60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)


class _Once:
    """A collector of metrics that were made already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def exposition(reading: Reading, known: History | None = None) -> str:
    """The whole text of /metrics. known: the history that earlier scrapes have read."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once([*_loop(reading), *_services(reading), *_history(outcomes(reading, history=known))]))
    return generate_latest(registry).decode()


def _gauge(name: str, text: str, labels: Iterable[str] = ()) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"slotune_{name}", text, labels=list(labels))


def _loop(reading: Reading) -> Iterable[Metric]:
    state, seen = health.health(reading), latest(reading)
    swept = _gauge("sweep_timestamp_seconds", "When the last sweep read the metrics; 0 before the first.")
    swept.add_metric([], seen.at_s or 0.0)
    every = _gauge("sweep_interval_seconds", "How often there should be a sweep.")
    every.add_metric([], state.every_s)
    watched = _gauge("services", "Configured services.")
    watched.add_metric([], len(reading.services))
    unreadable = _gauge("unreadable", "1 for what a sweep could not read of a service.", ["service", "part"])
    for name in sorted(state.unreadable):
        unreadable.add_metric([name, "metrics"], 1.0)
    for name in state.silent:
        unreadable.add_metric([name, "series"], 1.0)
    unsent = _gauge("reports_unsent", "Reports that no channel has taken yet.")
    unsent.add_metric([], state.unsent)
    in_force = _gauge("changes_in_force", "Open changes of slotune's by state.", ["state"])
    counted = Counter(change.state for change in changes.open_by_service(reading).values())
    for name in ("intended", "made", "leased"):
        in_force.add_metric([name], counted[name])
    asked = _gauge("approval_asked_timestamp_seconds", "When a plan began to wait for a person's answer.", ["service"])
    for row in approvals.waiting(reading):
        asked.add_metric([row.service], row.asked_s)
    yield from (swept, every, watched, unreadable, unsent, in_force, asked)


def _services(reading: Reading) -> Iterable[Metric]:
    seen = latest(reading)
    slo = _gauge("slo_p95_seconds", "The P95 objective.", ["service"])
    signal = _gauge("signal", "The newest value of a signal, in the signal's unit.", ["service", "signal"])
    broken = _gauge("slo_broken", "1 while the service is over its objective, as of the last sweep.", ["service"])
    anomaly = _gauge("anomaly", "1 while an incident with this signal is open.", ["service", "signal", "tier"])
    opened = _gauge("incidents_open", "Open incidents.", ["service", "tier"])
    since = _gauge("incident_opened_timestamp_seconds", "When the open incident began.", ["service", "tier"])
    change = _gauge("change", "1 for an open change.", ["service", "lever", "from", "to"])
    expires = _gauge("lease_expires_timestamp_seconds", "When a temporary change is handed back.", ["service"])
    for row in fleet.fleet(reading).rows:
        slo.add_metric([row.name], row.slo_p95_ms / 1e3)
        if row.state in ("broken", "at_risk", "ok"):
            broken.add_metric([row.name], float(row.state == "broken"))
        numbers = seen.services.get(row.name)
        for name, value in sorted(numbers.values.items()) if numbers is not None else ():
            signal.add_metric([row.name, name], value)
        if row.change is not None and row.change.expires_at_s is not None:
            expires.add_metric([row.name], row.change.expires_at_s)
    for name, incident in sorted(incidents.open_rows(reading).items()):
        opened.add_metric([name, incident.tier], 1.0)
        since.add_metric([name, incident.tier], incident.opened_at_s)
        for signal_name in incident.signals:
            anomaly.add_metric([name, signal_name, incident.tier], 1.0)
    for line in reading.reader.open_lines():
        for one in history.changes_of(line.plan):
            moved = [str(one.get("lever")), _knobs(one.get("old")), _knobs(one.get("new"))]
            change.add_metric([line.service, *moved], 1.0)
    yield from (slo, signal, broken, anomaly, opened, since, change, expires)


def _knobs(values: object) -> str:
    return ",".join(f"{k}={v}" for k, v in values.items()) if isinstance(values, dict) else ""


def _history(seen: Outcomes) -> Iterable[Metric]:
    attempts = CounterMetricFamily(
        "slotune_attempts", "Attempts by what was tried and what came of it.", labels=["service", "lever", "verdict"]
    )
    for (service, lever, verdict), count in sorted(seen.attempts.items()):
        attempts.add_metric([service, lever, verdict], count)
    found = CounterMetricFamily("slotune_incidents", "Act-tier incidents that were opened.", labels=["service"])
    for service, count in sorted(seen.incidents.items()):
        found.add_metric([service], count)
    false = CounterMetricFamily(
        "slotune_false_alarms", "Incidents that closed by themselves and needed nothing.", labels=["service"]
    )
    for service, count in sorted(seen.false_alarms.items()):
        false.add_metric([service], count)
    violated = CounterMetricFamily(
        "slotune_slo_violation_seconds", "Seconds from onset to end of act-tier incidents.", labels=["service"]
    )
    for service, seconds in sorted(seen.violation_s.items()):
        violated.add_metric([service], seconds)
    resolve = HistogramMetricFamily("slotune_time_to_resolve_seconds", "From the onset to the proof.")
    times = seen.resolve_s
    buckets = [(f"{edge:g}", float(sum(t <= edge for t in times))) for edge in RESOLVE_BUCKETS_S]
    resolve.add_metric([], [*buckets, ("+Inf", float(len(times)))], sum_value=sum(times))
    error = _gauge("prediction_error_ratio", "Median of |observed - predicted| / predicted P95.", ["lever"])
    for lever, value in sorted(seen.prediction_error.items()):
        error.add_metric([lever], value)
    yield from (attempts, found, false, violated, resolve, error)
