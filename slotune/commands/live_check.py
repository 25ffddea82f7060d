"""What `slotune check --live` tries: Prometheus, the mail server, each control endpoint, each right in a cluster.

Read-only: queries, EHLO and NOOP, GET, SelfSubjectAccessReview. Every result is a sentence; one failure hides no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from detection.errors import SlotuneError
from detection.model import Service
from slotune.commands.check_result import Result
from tuning.ports import Connections
from tuning.settings import Settings

DAGS = {
    "watch_services": "no service is watched",
    "tune_service": "nothing is done about what is found",
    "learn_baselines": "what is normal is not learned",
    "review_week": "the week is not reviewed",
}
"""Airflow's DAGs, and what does not happen while one is switched off."""


def live_check(settings: Settings, connections: Connections, *, clock: Callable[[], float] = time.time) -> list[Result]:
    """Tries everything that services.yaml names; the clock tells "now" to the Prometheus query."""
    results = list(_prometheus(settings, connections, clock()))
    results += _mail(settings, connections)
    results += _extras(settings, connections)
    results += dags_results()
    for service in settings.service_values():
        for lever in service.levers:
            results += _lever(service, lever, connections, clock)
    return results


def _prometheus(settings: Settings, connections: Connections, now_s: float) -> Iterator[Result]:
    from slotune.commands.prometheus_check import prometheus_results
    from slotune.compose import metrics_source

    try:
        source = metrics_source(settings, connections)
    except SlotuneError as error:
        yield Result(False, f"Prometheus ({settings.prometheus.connection}): {error}")
        return
    yield from prometheus_results(settings, source, now_s)


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


def dags_results() -> Iterator[Result]:
    """Where this machine has an Airflow: whether it knows the DAGs, and has them switched on."""
    from slotune.connections import airflow_dags

    try:
        paused = airflow_dags()
    except SlotuneError as error:
        yield Result(False, f"Airflow: {error}")
        return
    if paused is None:
        return
    for dag, without in DAGS.items():
        if dag not in paused:
            how = "`slotune airflow install`, then wait for its next scan"
            yield Result(True, f"Airflow does not know {dag} yet: {how}", warning=True)
        elif paused[dag]:
            yield Result(True, f"{dag} is paused: {without}. `airflow dags unpause {dag}`", warning=True)
        else:
            yield Result(True, f"Airflow has {dag} switched on")


def _extras(settings: Settings, connections: Connections) -> Iterator[Result]:
    """The extras of the named connections that nothing reads."""
    from slotune.connections import unknown_extras

    levers = [lever for service in settings.service_values() for lever in service.levers.values()]
    names = [settings.prometheus.connection, *(str(lever.options.get("connection")) for lever in levers)]
    for name in dict.fromkeys(names):
        try:
            unknown = unknown_extras(connections.get(name).extra)
        except SlotuneError:
            continue  # said where the connection is used
        for extra in unknown:
            yield Result(True, f"the connection {name!r} has the extra {extra}, which nothing reads", warning=True)


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
