"""What the loop is made of: the ports, filled in by the composition root, and the services it looks after."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from detection.errors import ConfigError
from detection.input_files import read as read_inputs
from detection.inputs import Rows
from detection.model import Service
from detection.ports import MetricsSource
from tuning.ports import Actuator, Ledger, Notifier, Planner, Verifier
from tuning.settings import Settings


class Telling(Protocol):
    """What it takes to tell people something, without the loop: `Parts` has it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def services(self) -> Mapping[str, Service]: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def notifiers(self) -> Sequence[Notifier]: ...

    @property
    def page(self) -> str: ...


@dataclass(frozen=True)
class Parts:
    """Every dependency of the loop. No step knows a concrete class, so replay, test and live are one code path.

    actuator: the actuator of a service's lever (raises ConfigError where the lever is not configured).
    links: addresses for the mail by label, made by whoever runs the loop. page: where the page is, without a slash at
    the end; "" where nobody knows. inputs: rows of a sample, from (path, time column, ignored columns).
    """

    settings: Settings
    services: Mapping[str, Service]
    source: MetricsSource
    actuator: Callable[[Service, str], Actuator]
    planner: Planner
    verifier: Verifier
    ledger: Ledger
    notifiers: Sequence[Notifier]
    links: Mapping[str, str] = field(default_factory=dict)
    page: str = ""
    inputs: Callable[[str, str, tuple[str, ...]], Rows] = read_inputs

    def incident_url(self, incident_id: str) -> str:
        """The address of an incident's page; "" where nobody knows where the page is."""
        return f"{self.page}/incidents/{quote(incident_id, safe='')}" if self.page else ""

    def service(self, name: str) -> Service:
        """The service of a name; ConfigError with the nearest name where there is none."""
        if name in self.services:
            return self.services[name]
        close = difflib.get_close_matches(name, self.services, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(self.services))}"
        raise ConfigError(f"there is no service {name!r} in services.yaml; {hint}")
