"""Levers over control endpoints: one per replica, all changed or none, each value read back.

Shared by the levers whose knobs are numbers (`_knob_endpoints`) and by those that choose what serves
(`_choice_endpoints`). An endpoint is a connection, or all ready pods of a workload (pods://NAMESPACE/NAME).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._http import Budget, Http, budget_of, connections_of
from tuning.actuators._swap import Knobs, swap
from tuning.actuators.settings.endpoints import EndpointOptions
from tuning.model import Change, Receipt, Setting
from tuning.ports import Connection, Connections

if TYPE_CHECKING:
    from tuning.actuators._kubernetes_errors import Ref


class ReplicaEndpoints:
    """Reads and changes every endpoint of a service. A value given is absolute; a repeat changes nothing.

    looks: how often a value is read back before it counts as not taken.
    """

    name = ""
    lever = ""
    looks = 3
    options: type[EndpointOptions] = EndpointOptions

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._connections = connections
        self._clock = clock
        self._sleep = sleep

    def read_one(self, service: Service, http: Http) -> Knobs:
        """What one endpoint shows. Raises ControlUnreachable, ControlRefused."""
        raise NotImplementedError

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        """Send the values to one endpoint. Raises also Unanswered, NotApplied."""
        raise NotImplementedError

    def wanted_of(self, change: Change) -> Knobs:
        """What every endpoint is told. Raises ConfigError."""
        return change.new

    def setting(self, shown: Mapping[str, Knobs]) -> Setting:
        """What most endpoints show, with the others beside it. shown: by name."""
        raise NotImplementedError

    def check_owner(self, service: Service, change: Change, shown: Mapping[str, Knobs]) -> None:
        """Raises NotOwner where somebody else is at work."""
        raise NotImplementedError

    def made(self, wanted: Knobs, changed: int, of: int) -> str:
        """What a receipt says of it."""
        return f"{changed} of {of} replicas changed" if changed else "already there"

    def read(self, service: Service) -> Setting:
        """What is in force; where replicas differ, what most of them say, and a note that names the others."""
        return self.setting({name: self.read_one(service, http) for name, http in self._endpoints(service).items()})

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for finding the replicas, as (verb, object): none unless they are pods."""
        found = [_pods().pod_rights(c) for c in self._configured(service).values() if c.url.startswith("pods://")]
        return [right for rights in found for right in rights]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether the credentials of the pods' cluster have one right (asks the API server, changes nothing)."""
        pods = [c for c in self._configured(service).values() if c.url.startswith("pods://")]
        return all(_pods().may(self._connections, connection, verb, ref) for connection in pods)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Change every replica, or none: when one refuses or takes another value, all are put back.

        Raises ConfigError, ControlUnreachable, ControlRefused, NotOwner (nothing changed), NotApplied (its `before` and
        `after` say whether anything stands changed), OutcomeUnknown.
        """
        budget = budget_of(service, self.lever)
        return self._apply(service, change, key, self._endpoints(service, budget), budget)

    def options_of(self, service: Service) -> EndpointOptions:
        """The lever's options. Raises ConfigError."""
        return options.of(service, self.lever, self.options)

    def _endpoints(self, service: Service, budget: Budget | None = None) -> dict[str, Http]:
        found: dict[str, Connection] = {}
        for name, connection in self._configured(service).items():
            if connection.url.startswith("pods://"):
                found |= {pod.name: pod for pod in _pods().pod_connections(self._connections, connection)}
            else:
                found[name] = connection
        timeout_s = self.options_of(service).request_timeout_s
        return {name: Http(connection, timeout_s=timeout_s, budget=budget) for name, connection in found.items()}

    def _configured(self, service: Service) -> dict[str, Connection]:
        """The connections as they are configured, by name."""
        given = self.options_of(service)
        return connections_of(self._connections, given.connection, given.endpoints)

    def _apply(
        self, service: Service, change: Change, key: str, endpoints: Mapping[str, Http], budget: Budget
    ) -> Receipt:
        started_s, wanted = self._clock(), self.wanted_of(change)
        before = {name: self.read_one(service, http) for name, http in endpoints.items()}
        self.check_owner(service, change, before)
        places = {name: _Place(self, service, http) for name, http in endpoints.items()}
        made = swap(
            places, before, wanted, sleep=self._sleep, looks=self.looks, back=budget.renew,
            undoes=change.undoes,
        )  # fmt: skip
        after = before | made
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=self.setting(before).values,
            after=self.setting(after).values,
            changed=bool(made),
            at_s=at_s,
            took_s=at_s - started_s,
            reason=self.made(wanted, len(made), len(endpoints)),
            evidence={"replicas": {name: dict(values) for name, values in after.items()}},
        )


class _Place:
    """One replica of a service, as `swap` needs it."""

    def __init__(self, lever: ReplicaEndpoints, service: Service, http: Http) -> None:
        self.shown = http.shown
        self._lever, self._service, self._http = lever, service, http

    def read(self) -> Knobs:
        return self._lever.read_one(self._service, self._http)

    def send(self, wanted: Knobs) -> None:
        self._lever.send(self._service, self._http, wanted)


def _pods() -> ModuleType:
    """Imported when it is needed, which is seldom: the Kubernetes client takes a second."""
    from tuning.actuators import _kubernetes_endpoints

    return _kubernetes_endpoints
