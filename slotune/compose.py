"""The composition root: reads the registries and the environment, and builds the loop from settings and connections.

Environment: SLOTUNE_CONFIG (path of services.yaml), SLOTUNE_HOME (folder of the default ledger), SLOTUNE_LEDGER_URL
(a database address such as postgresql+psycopg2://user:password@host/name), SLOTUNE_CONN_<NAME> (see
slotune.connections).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from detection.errors import ConfigError
from detection.model import Incident, Service
from slotune.connections import EnvironmentConnections, airflow_connection
from slotune.places import config_path, ledger_url
from tuning.ports import Actuator, Connections
from tuning.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detection.sources.prometheus import PrometheusSource
    from tuning.ledger import SqlLedger
    from tuning.loop.parts import Parts
    from tuning.model import Observation, Record
    from tuning.ports import Ledger, Notifier


def load_settings(path: str | Path | None = None) -> Settings:
    from tuning.services_yaml import load

    return load(path or config_path())


def build(
    settings: Settings,
    connections: Connections,
    *,
    links: Mapping[str, str] | None = None,
    page: str = "",
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Parts:
    """The whole loop on its real parts."""
    from tuning import planning, verification
    from tuning.loop.parts import Parts

    return Parts(
        settings=settings,
        services={service.name: service for service in settings.service_values()},
        source=metrics_source(settings, connections),
        actuator=actuators(connections, clock, sleep),
        planner=planning.chosen(settings.planning),
        verifier=verification.get(settings.verification.method)(settings.verification),
        ledger=open_ledger(ledger_url()),
        notifiers=notifiers(settings, connections),
        links=links or {},
        page=(settings.notify.base_url or page).rstrip("/"),
    )


@dataclass(frozen=True)
class Tellers:
    """What it takes to tell people something where the rest of the loop cannot be built (tuning.loop.parts.Telling).

    ledger: raises LedgerUnavailable when it is asked for, and not before.
    """

    settings: Settings
    notifiers: Sequence[Notifier]
    page: str

    @property
    def services(self) -> Mapping[str, Service]:
        return {service.name: service for service in self.settings.service_values()}

    @property
    def ledger(self) -> Ledger:
        return open_ledger(ledger_url())


def telling(settings: Settings, connections: Connections, *, page: str = "") -> Tellers:
    """The channels alone, with the address of the page."""
    return Tellers(settings, notifiers(settings, connections), (settings.notify.base_url or page).rstrip("/"))


@lru_cache(maxsize=4)
def open_ledger(url: str) -> SqlLedger:
    """One ledger per address and process; its schema is created or migrated on first use."""
    from tuning.ledger import SqlLedger

    return SqlLedger.open(url)


def metrics_source(settings: Settings, connections: Connections) -> PrometheusSource:
    from detection.http_access import Access
    from detection.sources.prometheus import PrometheusSource

    connection = connections.get(settings.prometheus.connection)
    try:
        access = Access.of(connection.extra, connection.login, connection.password)
        access.tls.context()
    except ConfigError as error:
        raise ConfigError(f"the connection {connection.name!r}: {error}") from error
    method = str(connection.extra.get("method") or "POST").upper()
    if method not in ("GET", "POST"):
        raise ConfigError(f"the connection {connection.name!r}: the extra `method` must be GET or POST")
    return PrometheusSource(
        connection.url,
        rate_window_s=settings.prometheus.rate_window_s,
        access=access,
        method=method,
        timeout_s=settings.prometheus.timeout_s,
    )


def actuators(
    connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Callable[[Service, str], Actuator]:
    """The actuator of a service's lever; one instance per actuator name."""
    from tuning import actuators as registry

    made: dict[str, Actuator] = {}

    def actuator(service: Service, lever: str) -> Actuator:
        if lever not in service.levers:
            raise ConfigError(f"service {service.name!r} has no lever {lever!r} in services.yaml")
        name = service.levers[lever].actuator
        if name not in made:
            made[name] = registry.get(name)(connections, clock, sleep)
        return made[name]

    return actuator


def notifiers(settings: Settings, connections: Connections) -> Sequence[Notifier]:
    from tuning import notifiers as registry

    return [registry.get(channel.by)(channel, settings.mail, connections) for channel in settings.channels()]


def environment_connections() -> Connections:
    return EnvironmentConnections(os.environ, airflow_connection)


def observe(
    config: str | Path | None, service_name: str
) -> tuple[Incident | None, Observation, Sequence[Record]]:
    """What `slotune plan --service` needs: the open incident (None), the observation now, and the past."""
    from tuning.loop.observe import observe as look
    from tuning.loop.observe import past
    from tuning.loop.open_incidents import open_incidents_of
    from tuning.releases import releases_of

    parts = build(load_settings(config), environment_connections())
    service = parts.service(service_name)
    at_s = time.time()
    incidents = [i for i in open_incidents_of(parts.ledger, at_s) if i.service == service.name]
    known = past(parts, service.name, incidents[0].id if incidents else None, at_s)
    seen = replace(look(parts, service, at_s), releases=releases_of(known))
    return (incidents[0] if incidents else None), seen, known
