"""What `slotune check --live` tries: Prometheus, each channel, each control endpoint, each right in a cluster.

Read-only: queries, EHLO and NOOP, GET, SelfSubjectAccessReview. Every result is a sentence; one failure hides no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from detection.errors import SlotuneError
from detection.model import Service, make_id
from slotune.commands.check_result import Result
from tuning.ports import Connections, Probed
from tuning.settings import Settings

DAGS = {
    "watch_services": "no service is watched",
    "tune_service": "nothing is done about what is found",
    "learn_baselines": "what is normal is not learned",
    "review_week": "the week is not reviewed",
}
"""Airflow's DAGs, and what does not happen while one is switched off."""
TEST_S = 300.0
"""How long a test message is an alert in an Alertmanager."""


def live_check(settings: Settings, connections: Connections, *, clock: Callable[[], float] = time.time) -> list[Result]:
    """Tries everything that services.yaml names; the clock tells "now" to the Prometheus query."""
    results = list(_prometheus(settings, connections, clock()))
    results += _channels(settings, connections)
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


def _channels(settings: Settings, connections: Connections) -> Iterator[Result]:
    """Whether each channel would work, as far as that can be told without telling anybody anything."""
    from slotune.compose import notifiers

    channels = settings.channels()
    if len(channels) == 1:
        yield Result(True, "Mail: no recipients are set; reports go to the ledger and the log")
        return
    for channel, notifier in zip(channels, notifiers(settings, connections), strict=True):
        if channel.by == "log" or not isinstance(notifier, Probed):
            continue
        name = "Mail" if channel.name == "smtp" else f"Channel {channel.name}"
        try:
            yield Result(True, f"{name}: {notifier.probe()} (nothing was sent)")
        except SlotuneError as error:
            yield Result(False, f"{name}: {error}")


def send_test(settings: Settings, connections: Connections, now_s: float) -> Iterator[Result]:
    """Tell every channel that this is a test; what came of each."""
    from slotune.compose import notifiers
    from tuning.report.notice_mail import notice_mail

    lines = ["This is a test of slotune's channels. Nothing has happened, and nothing has to be done."]
    url = (settings.notify.base_url or "").rstrip("/")
    mail = notice_mail(make_id("test", now_s), "a test of this channel", lines, now_s, url=url)
    for channel, notifier in zip(settings.channels(), notifiers(settings, connections), strict=True):
        try:
            notifier.send(replace(mail, ends_s=now_s + TEST_S))
        except SlotuneError as error:
            yield Result(False, f"Channel {channel.name}: {error}")
        else:
            yield Result(True, f"Channel {channel.name}: a test message was sent")


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
    told = [channel.connection for channel in settings.notify.channels if channel.connection]
    names = [settings.prometheus.connection, *told, *(str(lever.options.get("connection")) for lever in levers)]
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
