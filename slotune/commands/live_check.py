"""What `slotune check --live` tries: Prometheus, the mail server, each control endpoint, each right in a cluster.

Read-only: queries, EHLO and NOOP, GET, SelfSubjectAccessReview. Every result is a sentence; one failure hides no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from detection.errors import SlotuneError
from detection.model import Service, Span
from tuning.ports import Connections
from tuning.settings import Settings


@dataclass(frozen=True)
class Result:
    """One thing that was tried. text: what was tried and what came of it, in a sentence."""

    ok: bool
    text: str


def live_check(settings: Settings, connections: Connections, *, clock: Callable[[], float] = time.time) -> list[Result]:
    """Tries everything that services.yaml names; the clock tells "now" to the Prometheus query."""
    results = list(_prometheus(settings, connections, clock()))
    results += _mail(settings, connections)
    for service in settings.service_values():
        for lever in service.levers:
            results += _lever(service, lever, connections, clock)
    return results


def _prometheus(settings: Settings, connections: Connections, now_s: float) -> Iterator[Result]:
    from slotune.compose import metrics_source

    services = settings.service_values()
    step_s = settings.prometheus.step_s
    name = f"Prometheus ({settings.prometheus.connection})"
    try:
        source = metrics_source(settings, connections)
        windows = source.read(services, ("p95_ms", "qps"), Span(now_s - 20 * step_s, now_s, step_s))
    except SlotuneError as error:
        yield Result(False, f"{name}: {error}")
        return
    for service in services:
        window = windows.get(service.name)
        selectors = ", ".join(f"{key}={value}" for key, value in sorted(service.selectors.items()))
        if window is None or not window.values:
            yield Result(False, f"{name} answers, but has no series for {service.name} ({selectors})")
            continue
        p95_ms = window.last("p95_ms")
        if p95_ms is None:
            yield Result(True, f"{name} has series for {service.name}, but no P95 in the last {20 * step_s:g} s")
        else:
            yield Result(True, f"{name} has series for {service.name}: P95 {p95_ms:.1f} ms")


def _mail(settings: Settings, connections: Connections) -> Iterator[Result]:
    from tuning.notifiers import probe

    if not settings.mail.to:
        yield Result(True, "Mail: no recipients are set; reports go to the ledger and the log")
        return
    try:
        probe(connections.get(settings.mail.connection))
    except SlotuneError as error:
        yield Result(False, f"Mail: {error}")
        return
    yield Result(True, f"Mail: the server of {settings.mail.connection} answers (nothing was sent)")


def _lever(service: Service, lever: str, connections: Connections, clock: Callable[[], float]) -> Iterator[Result]:
    from tuning import actuators

    name = f"{service.name}, {lever}"
    try:
        actuator: Any = actuators.get(service.levers[lever].actuator)(connections, clock, time.sleep)
        if hasattr(actuator, "rights"):
            rights = list(_rights(name, service, actuator))
            yield from rights
            if not all(result.ok for result in rights):
                return
        setting = actuator.read(service)
    except SlotuneError as error:
        yield Result(False, f"{name}: {error}")
        return
    values = ", ".join(f"{knob} {value}" for knob, value in setting.values.items())
    ok = "stands down" not in setting.note and not setting.useless
    said = "; ".join(filter(None, (setting.useless, setting.note)))
    yield Result(ok, f"{name}: reads {values}" + (f" ({said})" if said else ""))


def _rights(name: str, service: Service, actuator: Any) -> Iterator[Result]:
    for verb, ref in actuator.rights(service):
        if actuator.may(service, verb, ref):
            yield Result(True, f"{name}: may {verb} {ref}")
        else:
            yield Result(False, f"{name}: may not {verb} {ref}; the Role needs {ref.rule(verb)}")
