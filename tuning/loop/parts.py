"""What the loop is made of: the ports, filled in by the composition root, and the services it looks after."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from detection.errors import ConfigError
from detection.model import Service
from detection.ports import MetricsSource
from tuning.ports import Actuator, Ledger, Notifier, Planner, Verifier
from tuning.settings import Settings


@dataclass(frozen=True)
class Parts:
    """Every dependency of the loop. No step knows a concrete class, so replay, test and live are one code path.

    actuator: the actuator of a service's lever (raises ConfigError where the lever is not configured).
    links: addresses for the mail by label, made from (service, incident id) by whoever runs the loop.
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

    def service(self, name: str) -> Service:
        """The service of a name; ConfigError with the nearest name where there is none."""
        if name in self.services:
            return self.services[name]
        close = difflib.get_close_matches(name, self.services, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(self.services))}"
        raise ConfigError(f"there is no service {name!r} in services.yaml; {hint}")
