"""slotune about itself, and every service's signals, in Prometheus' text format.

Names follow Prometheus' conventions (base units in seconds, `_total` for counters). Cardinality is bounded: service,
signal, lever, verdict, state and tier are the only labels, and each comes from the settings or a fixed list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from slotune import history
from slotune.views import approvals, changes, fleet, health, incidents
from slotune.views.latest import latest
from slotune.views.outcomes import Outcomes, outcomes_of
from slotune.views.reading import Reading
from slotune.web.exposition import Family

RESOLVE_BUCKETS_S = (60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)


def exposition(reading: Reading, *, within_s: float = 0.2) -> str:
    """The whole text of /metrics. Where the history cannot be read in `within_s`, its counters are absent and not 0: it
    is read on meanwhile, and the next scrape has them."""
    past = reading.memory.past_within(reading.reader, reading.now_s, within_s)
    complete = _gauge("history_read", "1 when the counters of the past are there; 0 while the ledger is being read.")
    complete.add([], float(past is not None))
    counted = _history(outcomes_of(reading, past), set(reading.services)) if past is not None else ()
    return "".join(family.text() for family in (*_loop(reading), *_services(reading), complete, *counted))


def _gauge(name: str, text: str, labels: Sequence[str] = ()) -> Family:
    return Family("gauge", name, text, labels)


def _loop(reading: Reading) -> Iterable[Family]:
    state, seen = health.health(reading), latest(reading)
    swept = _gauge("sweep_timestamp_seconds", "When the last sweep read the metrics; 0 before the first.")
    swept.add([], seen.at_s or 0.0)
    every = _gauge("sweep_interval_seconds", "How often there should be a sweep.")
    every.add([], state.every_s)
    watched = _gauge("services", "Configured services.")
    watched.add([], len(reading.services))
    unreadable = _gauge("unreadable", "1 for what a sweep could not read of a service.", ["service", "part"])
    for name in sorted(state.unreadable):
        unreadable.add([name, "metrics"], 1.0)
    for name in state.silent:
        unreadable.add([name, "series"], 1.0)
    unsent = _gauge("reports_unsent", "Messages that a channel was tried with and has not taken yet, on the worst one.")
    unsent.add([], state.unsent)
    waiting = _gauge("channel_messages_waiting", "Messages that a channel has not taken, also held back.", ["channel"])
    failing = _gauge("channel_messages_failing", "Messages that were tried and not taken.", ["channel"])
    given_up = _gauge("channel_messages_given_up", "Messages given up or refused in seven days.", ["channel"])
    for channel in state.channels:
        waiting.add([channel.name], channel.waiting)
        failing.add([channel.name], channel.failing)
        given_up.add([channel.name], channel.given_up)
    in_force = _gauge("changes_in_force", "Open changes of slotune's by state.", ["state"])
    counted = Counter(change.state for change in changes.open_by_service(reading).values())
    for name in ("intended", "made", "leased"):
        in_force.add([name], counted[name])
    asked = _gauge("approval_asked_timestamp_seconds", "When a plan began to wait for a person's answer.", ["service"])
    for row in approvals.waiting(reading):
        asked.add([row.service], row.asked_s)
    yield from (swept, every, watched, unreadable, unsent, waiting, failing, given_up, in_force, asked)


def _services(reading: Reading) -> Iterable[Family]:
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
        slo.add([row.name], row.slo_p95_ms / 1e3)
        if row.state in ("broken", "at_risk", "ok"):
            broken.add([row.name], float(row.state == "broken"))
        numbers = seen.services.get(row.name)
        for name, value in sorted(numbers.values.items()) if numbers is not None else ():
            signal.add([row.name, name], value)
        if row.change is not None and row.change.expires_at_s is not None:
            expires.add([row.name], row.change.expires_at_s)
    for name, incident in sorted(incidents.open_rows(reading).items()):
        opened.add([name, incident.tier], 1.0)
        since.add([name, incident.tier], incident.opened_at_s)
        for signal_name in incident.signals:
            anomaly.add([name, signal_name, incident.tier], 1.0)
    for line in reading.reader.open_lines():
        for one in history.changes_of(line.plan):
            moved = [str(one.get("lever")), _knobs(one.get("old")), _knobs(one.get("new"))]
            change.add([line.service, *moved], 1.0)
    yield from (slo, signal, broken, anomaly, opened, since, change, expires)


def _knobs(values: object) -> str:
    return ",".join(f"{k}={v}" for k, v in values.items()) if isinstance(values, dict) else ""


def _history(seen: Outcomes, services: Container[str]) -> Iterable[Family]:
    """services: the configured ones; what the ledger knows of others would only ever grow."""
    attempts = Family(
        "counter", "attempts_total", "Attempts by what was tried and what came of it.", ["service", "lever", "verdict"]
    )
    for key, count in sorted(seen.attempts.items()):
        if key[0] in services:
            attempts.add(key, count)
    found = Family("counter", "incidents_total", "Act-tier incidents that were opened.", ["service"])
    false = Family(
        "counter", "false_alarms_total", "Incidents that people called none, or that needed nothing.", ["service"]
    )
    violated = Family(
        "counter", "slo_violation_seconds_total", "Seconds from onset to end of act-tier incidents.", ["service"]
    )
    for family, by_service in ((found, seen.incidents), (false, seen.false_alarms), (violated, seen.violation_s)):
        for service, value in sorted(by_service.items()):
            if service in services:
                family.add([service], value)
    resolve = Family("histogram", "time_to_resolve_seconds", "From the onset to the proof.")
    resolve.add_histogram(seen.resolve_s, RESOLVE_BUCKETS_S)
    error = _gauge("prediction_error_ratio", "Median of |observed - predicted| / predicted P95.", ["lever"])
    for lever, value in sorted(seen.prediction_error.items()):
        error.add([lever], value)
    yield from (attempts, found, false, violated, resolve, error)
