"""The fleet: every configured service in one row, the ones that need somebody first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from detection.model import Incident, Objective, Service
from detection.signals import percentile
from slotune.views import changes as change_views
from slotune.views import incidents as incident_views
from slotune.views.changes import ChangeRow
from slotune.views.latest import Latest, Numbers, latest
from slotune.views.reading import Reading
from tuning import cost

State = Literal["broken", "at_risk", "ok", "asleep", "no_data", "unreadable"]
ORDER: tuple[State, ...] = ("broken", "unreadable", "at_risk", "no_data", "ok", "asleep")
AT_RISK = 0.85
"""Share of the SLO from which a P95 is shown as at risk; shown only, nothing is decided by it."""


@dataclass(frozen=True)
class ServiceRow:
    """One service. p95_ms: as of the last sweep, None where there is no number, of the promise that is furthest over
    its limit; promise: what people call that one. trend: P95 over the look-back.

    why: what the state rests on, in a sentence. next_step: what slotune does about it now. cost: of requests, in words.
    """

    name: str
    serving: str
    mode: str
    state: State
    why: str
    p95_ms: float | None
    slo_p95_ms: float
    qps: float | None
    error_rate: float | None
    trend: tuple[float | None, ...]
    incident_id: str | None
    incident: str
    change: ChangeRow | None
    next_step: str
    promise: str = "P95"
    cost: str = ""


@dataclass(frozen=True)
class Fleet:
    """rows: worst first. counts: services by state. at_s: the time of the last sweep (None: there was none)."""

    rows: tuple[ServiceRow, ...]
    counts: Mapping[State, int]
    at_s: float | None
    incidents: int
    changes: int


def fleet(reading: Reading) -> Fleet:
    """All services of services.yaml, as the last sweep saw them."""
    seen, incidents = latest(reading), incident_views.open_rows(reading)
    changes = change_views.open_by_service(reading)
    rows = [
        service_row(service, seen, incidents.get(service.name), changes.get(service.name), reading.now_s)
        for service in reading.services.values()
    ]
    rows.sort(key=lambda row: (ORDER.index(row.state), row.incident_id is None, row.name))
    counts = {state: sum(row.state == state for row in rows) for state in ORDER}
    return Fleet(tuple(rows), counts, seen.at_s, len(incidents), len(changes))


def chosen(rows: Sequence[ServiceRow], *, words: str = "", state: str = "") -> tuple[ServiceRow, ...]:
    """The rows whose name or serving system has all of the words, in that state; "" asks for nothing."""
    wanted = words.lower().split()
    return tuple(
        row
        for row in rows
        if (not state or row.state == state) and all(word in f"{row.name} {row.serving}".lower() for word in wanted)
    )


def service_row(
    service: Service, seen: Latest, incident: Incident | None, change: ChangeRow | None, now_s: float
) -> ServiceRow:
    numbers = seen.services.get(service.name)
    values = numbers.values if numbers is not None else {}
    state, why = _state(service, numbers, seen)
    return ServiceRow(
        name=service.name,
        serving=service.serving,
        mode=service.mode,
        state=state,
        why=why,
        p95_ms=values.get(_worst(service, values).signal),
        slo_p95_ms=_worst(service, values).limit_ms,
        promise=percentile(_worst(service, values).signal),
        qps=values.get("qps"),
        error_rate=values.get("error_rate"),
        trend=numbers.trend if numbers is not None else (),
        incident_id=incident.id if incident is not None else None,
        incident=incident.symptom.replace("_", " ") if incident is not None else "",
        change=change,
        next_step=_next_step(service, incident, change, state),
        cost=_cost(service, values),
    )


def _state(service: Service, numbers: Numbers | None, seen: Latest) -> tuple[State, str]:
    if service.name in seen.unreadable:
        return "unreadable", seen.unreadable[service.name]
    if service.name in seen.asleep:
        return "asleep", "It is scaled to zero on purpose."
    if numbers is None:
        return "no_data", "The last sweep found no series of this service: check its selectors."
    promise = _worst(service, numbers.values)
    name = percentile(promise.signal)
    p95, errors = numbers.values.get(promise.signal), numbers.values.get("error_rate")
    if errors is not None and errors > service.slo.error_rate:
        return "broken", f"{errors:.1%} of requests fail; the SLO allows {service.slo.error_rate:.1%}."
    if p95 is None:
        return "no_data", f"There is no {name} in the last sweep."
    if p95 > promise.limit_ms:
        return "broken", f"{name} is over its SLO."
    if p95 > AT_RISK * promise.limit_ms:
        return "at_risk", f"{name} is above {AT_RISK:.0%} of its SLO."
    return "ok", f"{name} is under its SLO."


def _worst(service: Service, values: Mapping[str, float]) -> Objective:
    """The promise that is furthest over its limit, or closest to it; the first where nothing is known."""
    known = [one for one in service.slo.objectives if one.signal in values]
    return max(known, key=lambda one: values[one.signal] / one.limit_ms, default=service.slo.main)


def _cost(service: Service, values: Mapping[str, float]) -> str:
    price, replicas = cost.price_of(service), values.get("replicas")
    if price <= 0 or replicas is None:
        return ""
    found = cost.of_numbers(price * replicas, values.get("qps"), values.get("generation_tokens_per_s"))
    return cost.now(found)


def _next_step(service: Service, incident: Incident | None, change: ChangeRow | None, state: State) -> str:
    if change is not None and change.state == "leased":
        return "hands the change back when the load allows it"
    if change is not None:
        return "proves the change, or undoes it"
    if incident is None:
        return ""
    if incident.tier == "warn":
        return "watches"
    if state in ("ok", "at_risk"):
        return "closes the incident when it stays so"
    return {"observe": "plans and mails only", "approve": "asks a person", "act": "changes one lever"}[service.mode]
