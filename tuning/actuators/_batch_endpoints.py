"""The batch lever over control endpoints: one per replica, all changed or none, each value read back.

Shared by the implementations, which say how one endpoint is read and set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from detection.model import Service, make_id
from tuning.actuators import _options as options
from tuning.actuators._http import Http, Unanswered, elsewhere
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotApplied, NotOwner, OutcomeUnknown
from tuning.model import Change, Knob, Receipt, Setting
from tuning.ports import Connection, Connections

if TYPE_CHECKING:
    from tuning.actuators._kubernetes_errors import Ref

READ_BACKS = 3
Knobs = dict[str, Knob]


class BatchEndpoints:
    """Reads and changes every endpoint of a service. A value given is absolute; a repeat changes nothing."""

    name = ""
    lever = "batch_size"

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
        return _setting({name: self.read_one(service, http) for name, http in self._endpoints(service).items()})

    def replicas(self, service: Service) -> dict[str, str]:
        """host:port by the name by which `apply_to` knows the replica."""
        return {name: http.place for name, http in self._endpoints(service).items()}

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for finding the replicas, as (verb, object): none unless they are pods."""
        found = [_pods().pod_rights(c) for c in self._given(service).values() if c.url.startswith("pods://")]
        return [right for rights in found for right in rights]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether the credentials of the pods' cluster have one right (asks the API server, changes nothing)."""
        pods = [c for c in self._given(service).values() if c.url.startswith("pods://")]
        return all(_pods().may(self._connections, connection, verb, ref) for connection in pods)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Change every replica, or none: when one refuses, those already changed are put back.

        Raises ControlUnreachable (nothing changed), ControlRefused, NotApplied, NotOwner, OutcomeUnknown.
        """
        return self._apply(service, change, key, self._endpoints(service))

    def apply_to(self, service: Service, change: Change, replica: str, *, key: str) -> Receipt:
        """Change one replica only, so that the others can serve as its control. Errors as for `apply`."""
        endpoints = self._endpoints(service)
        if replica not in endpoints:
            raise ConfigError(f"{service.name} has no replica {replica}; known: {', '.join(endpoints)}")
        receipt = self._apply(service, change, key, {replica: endpoints[replica]})
        return receipt.model_copy(update={"replica": replica, "reason": f"{receipt.reason}: {replica}"})

    def _endpoints(self, service: Service) -> dict[str, Http]:
        timeout_s = options.number(service, self.lever, "request_timeout_s", 5.0)
        found: dict[str, Connection] = {}
        for name, connection in self._given(service).items():
            if connection.url.startswith("pods://"):
                found |= {pod.name: pod for pod in _pods().pod_connections(self._connections, connection)}
            else:
                found[name] = connection
        return {name: Http(connection, timeout_s=timeout_s) for name, connection in found.items()}

    def _given(self, service: Service) -> dict[str, Connection]:
        """The connections as they are configured, by name."""
        first = options.text(service, self.lever, "connection")
        return {
            name: self._connection(first, name)
            for name in (first, *options.texts(service, self.lever, "endpoints"))
        }

    def _connection(self, first: str, name: str) -> Connection:
        """A plain address shares the first connection's credentials."""
        if not name.startswith(("http://", "https://")):
            return self._connections.get(name)
        return elsewhere(self._connections.get(first), name, name)

    def _apply(self, service: Service, change: Change, key: str, endpoints: Mapping[str, Http]) -> Receipt:
        started_s = self._clock()
        before = {name: self.read_one(service, http) for name, http in endpoints.items()}
        _check_owner(service, change, before)
        made: list[str] = []
        for name, http in endpoints.items():
            if options.agrees(before[name], change.new):
                continue
            try:
                self._set(service, http, change.new)
            except (ControlRefused, ControlUnreachable, NotApplied) as error:
                self._put_back(service, endpoints, before, made, error)
                raise
            made.append(name)
        after = {name: self.read_one(service, http) for name, http in endpoints.items()}
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=_setting(before).values,
            after=_setting(after).values,
            changed=bool(made),
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"{len(made)} of {len(endpoints)} replicas changed" if made else "already there",
            evidence={"replicas": {name: dict(values) for name, values in after.items()}},
        )

    def _set(self, service: Service, http: Http, wanted: Knobs) -> None:
        unanswered: Unanswered | None = None
        try:
            self.send(service, http, wanted)
        except Unanswered as error:
            unanswered = error
        shown = self._read_back(service, http, wanted, patient=unanswered is not None)
        if shown is None:
            raise OutcomeUnknown(f"{unanswered or http.shown}; the read-back got no answer either") from unanswered
        if options.agrees(shown, wanted):
            return
        if unanswered is not None:
            raise OutcomeUnknown(f"{unanswered}; the read-back still shows {show(shown)}") from unanswered
        raise NotApplied(f"{http.shown} accepted {show(wanted)} but its read-back shows {show(shown)}")

    def _read_back(self, service: Service, http: Http, wanted: Knobs, *, patient: bool) -> Knobs | None:
        shown: Knobs | None = None
        for attempt in range(READ_BACKS):
            try:
                shown = self.read_one(service, http)
            except ControlUnreachable:
                shown = None
            if shown is not None and (options.agrees(shown, wanted) or not patient):
                return shown
            if attempt + 1 < READ_BACKS:
                self._sleep(0.5 * 2**attempt)
        return shown

    def _put_back(
        self,
        service: Service,
        endpoints: Mapping[str, Http],
        before: Mapping[str, Knobs],
        made: Iterable[str],
        why: Exception,
    ) -> None:
        for name in made:
            try:
                self._set(service, endpoints[name], before[name])
            except (ControlRefused, ControlUnreachable, NotApplied, OutcomeUnknown) as error:
                raise OutcomeUnknown(f"{why}; and {name}, changed before, could not be put back ({error})") from error


def _pods() -> ModuleType:
    """Imported when it is needed, which is seldom: the Kubernetes client takes a second."""
    from tuning.actuators import _kubernetes_endpoints

    return _kubernetes_endpoints


def _setting(shown: Mapping[str, Knobs]) -> Setting:
    common = Counter(tuple(sorted(values.items())) for values in shown.values()).most_common(1)[0][0]
    others = {name: dict(v) for name, v in shown.items() if tuple(sorted(v.items())) != common}
    return Setting(
        lever="batch_size",
        values=dict(common),
        others=others,
        version=make_id(*sorted((name, tuple(sorted(v.items()))) for name, v in shown.items())),
        note=f"replicas differ: {'; '.join(f'{name} has {show(v)}' for name, v in others.items())}" if others else "",
    )


def _check_owner(service: Service, change: Change, shown: Mapping[str, Knobs]) -> None:
    """A replica that restarted shows neither value and is set; when none shows either, somebody else was here."""
    if not any(options.agrees(v, change.old) or options.agrees(v, change.new) for v in shown.values()):
        raise NotOwner(
            f"{service.name}: the batch setting is {show(_setting(shown).values)}, neither {show(change.old)} nor "
            f"{show(change.new)}: somebody else changed it; slotune stands down"
        )


def show(values: Mapping[str, Knob]) -> str:
    """The knobs for people."""
    return ", ".join(f"{name} {values[name]}" for name in sorted(values))
