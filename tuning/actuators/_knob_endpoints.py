"""Levers whose knobs are numbers, over control endpoints: one per replica, all changed or none, each value read back.

Shared by the implementations, which say how one endpoint is read and set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from detection.model import Service, make_id
from tuning.actuators import _options as options
from tuning.actuators._http import Budget, Http, budget_of, connections_of
from tuning.actuators._swap import Knobs, show, swap
from tuning.actuators.settings.endpoints import EndpointOptions
from tuning.errors import NotOwner
from tuning.model import Change, Receipt, Setting
from tuning.ports import Connection, Connections

if TYPE_CHECKING:
    from tuning.actuators._kubernetes_errors import Ref

READ_BACKS = 3
_TITLES = {"batch_size": "batch setting", "admission": "admission limit"}


class KnobEndpoints:
    """Reads and changes every endpoint of a service. A value given is absolute; a repeat changes nothing."""

    name = ""
    lever = ""
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

    def read(self, service: Service) -> Setting:
        """What is in force; where replicas differ, what most of them say, and a note that names the others."""
        shown = {name: self.read_one(service, http) for name, http in self._endpoints(service).items()}
        return setting_of(shown, self.lever)

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for finding the replicas, as (verb, object): none unless they are pods."""
        found = [_pods().pod_rights(c) for c in self._given(service).values() if c.url.startswith("pods://")]
        return [right for rights in found for right in rights]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether the credentials of the pods' cluster have one right (asks the API server, changes nothing)."""
        pods = [c for c in self._given(service).values() if c.url.startswith("pods://")]
        return all(_pods().may(self._connections, connection, verb, ref) for connection in pods)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Change every replica, or none: when one refuses or takes another value, all are put back.

        Raises ControlUnreachable, ControlRefused, NotOwner (nothing changed), NotApplied (its `before` and `after` say
        whether anything stands changed), OutcomeUnknown.
        """
        budget = budget_of(service, self.lever)
        return self._apply(service, change, key, self._endpoints(service, budget), budget)

    def options_of(self, service: Service) -> EndpointOptions:
        """The lever's options. Raises ConfigError."""
        return options.of(service, self.lever, self.options)

    def _endpoints(self, service: Service, budget: Budget | None = None) -> dict[str, Http]:
        found: dict[str, Connection] = {}
        for name, connection in self._given(service).items():
            if connection.url.startswith("pods://"):
                found |= {pod.name: pod for pod in _pods().pod_connections(self._connections, connection)}
            else:
                found[name] = connection
        timeout_s = self.options_of(service).request_timeout_s
        return {name: Http(connection, timeout_s=timeout_s, budget=budget) for name, connection in found.items()}

    def _given(self, service: Service) -> dict[str, Connection]:
        """The connections as they are configured, by name."""
        given = self.options_of(service)
        return connections_of(self._connections, given.connection, given.endpoints)

    def _apply(
        self, service: Service, change: Change, key: str, endpoints: Mapping[str, Http], budget: Budget
    ) -> Receipt:
        started_s = self._clock()
        before = {name: self.read_one(service, http) for name, http in endpoints.items()}
        check_owner(service, change, before)
        places = {name: _Place(self, service, http) for name, http in endpoints.items()}
        made = swap(
            places, before, change.new, sleep=self._sleep, looks=READ_BACKS, back=budget.renew,
            undoes=change.undoes,
        )  # fmt: skip
        after = before | made
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=setting_of(before, self.lever).values,
            after=setting_of(after, self.lever).values,
            changed=bool(made),
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"{len(made)} of {len(endpoints)} replicas changed" if made else "already there",
            evidence={"replicas": {name: dict(values) for name, values in after.items()}},
        )


class _Place:
    """One replica of a service, as `swap` needs it."""

    def __init__(self, lever: KnobEndpoints, service: Service, http: Http) -> None:
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


def setting_of(shown: Mapping[str, Knobs], lever: str) -> Setting:
    """The setting that most places show, with the others beside it."""
    common = Counter(tuple(sorted(values.items())) for values in shown.values()).most_common(1)[0][0]
    others = {name: dict(v) for name, v in shown.items() if tuple(sorted(v.items())) != common}
    return Setting(
        lever=lever,
        values=dict(common),
        others=others,
        version=make_id(*sorted((name, tuple(sorted(v.items()))) for name, v in shown.items())),
        note=f"replicas differ: {'; '.join(f'{name} has {show(v)}' for name, v in others.items())}" if others else "",
    )


def check_owner(service: Service, change: Change, shown: Mapping[str, Knobs]) -> None:
    """A replica that restarted shows neither value and is set; when none shows either, somebody else was here."""
    if not any(options.agrees(v, change.old) or options.agrees(v, change.new) for v in shown.values()):
        raise NotOwner(
            f"{service.name}: the {_TITLES.get(change.lever, change.lever)} is "
            f"{show(setting_of(shown, change.lever).values)}, neither {show(change.old)} nor "
            f"{show(change.new)}: somebody else changed it; slotune stands down"
        )
