"""Levers that choose what serves (a version, a variant) over control endpoints: one per replica, each read back.

Shared by the implementations, which say how one endpoint shows its choice and takes another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from detection.model import Service, make_id
from tuning.actuators import _options as options
from tuning.actuators._http import Budget, Http, budget_of, connections_of
from tuning.actuators._swap import Knobs, show, swap
from tuning.actuators.settings.endpoints import EndpointOptions
from tuning.errors import ConfigError, NotOwner
from tuning.model import Change, Receipt, Setting
from tuning.ports import Connections

READ_BACKS = 5


class ChoiceEndpoints:
    """Reads and changes what every endpoint of a service serves: the one knob of a lever, a text."""

    name = ""
    lever = ""
    knob = ""
    options: type[EndpointOptions] = EndpointOptions

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._connections = connections
        self._clock = clock
        self._sleep = sleep

    def read_one(self, service: Service, http: Http) -> Knobs:
        """{knob: what one endpoint serves}. Raises ControlUnreachable, ControlRefused."""
        raise NotImplementedError

    def send(self, service: Service, http: Http, wanted: str) -> None:
        """Bring it into service at one endpoint. Raises also Unanswered, NotApplied."""
        raise NotImplementedError

    def read(self, service: Service) -> Setting:
        """What serves; where replicas differ, that of most of them, the others, and a note."""
        return self._setting({name: self.read_one(service, http) for name, http in self._endpoints(service).items()})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Serve `change.new[knob]` on every replica, or on none.

        Raises ControlUnreachable, ControlRefused (there is none such: nothing changed), NotOwner, NotApplied,
        OutcomeUnknown.
        """
        started_s, budget = self._clock(), budget_of(service, self.lever)
        wanted = change.new.get(self.knob)
        if not isinstance(wanted, str) or not wanted:
            raise ConfigError(f"the change names no {self.knob} ({wanted!r})")
        endpoints = self._endpoints(service, budget)
        before = {name: self.read_one(service, http) for name, http in endpoints.items()}
        self._check_owner(service, change, before)
        places = {name: _Place(self, service, http) for name, http in endpoints.items()}
        made = swap(
            places, before, {self.knob: wanted}, sleep=self._sleep, looks=READ_BACKS, back=budget.renew,
            undoes=change.undoes,
        )  # fmt: skip
        after, at_s = before | made, self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=self._setting(before).values,
            after=self._setting(after).values,
            changed=bool(made),
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"{self.knob} {wanted} "
            + (f"serves on {len(made)} of {len(endpoints)} replicas" if made else "serves already"),
            evidence={"replicas": {name: dict(values) for name, values in after.items()}},
        )

    def _endpoints(self, service: Service, budget: Budget | None = None) -> dict[str, Http]:
        given = options.of(service, self.lever, self.options)
        found = connections_of(self._connections, given.connection, given.endpoints)
        timeout_s = given.request_timeout_s
        return {name: Http(connection, timeout_s=timeout_s, budget=budget) for name, connection in found.items()}

    def _setting(self, shown: Mapping[str, Knobs]) -> Setting:
        common = Counter(str(knobs[self.knob]) for knobs in shown.values()).most_common(1)[0][0]
        others = {name: dict(knobs) for name, knobs in shown.items() if knobs[self.knob] != common}
        words = "; ".join(f"{name} serves {show(knobs)}" for name, knobs in others.items())
        return Setting(
            lever=self.lever,
            values={self.knob: common},
            others=others,
            version=make_id(*sorted((name, knobs[self.knob]) for name, knobs in shown.items())),
            note=f"replicas differ: {words}" if others else "",
        )

    def _check_owner(self, service: Service, change: Change, shown: Mapping[str, Knobs]) -> None:
        """Another one than the two that are known came into service meanwhile: its owner is at work."""
        known = {change.old.get(self.knob), change.new.get(self.knob)}
        strange = sorted({str(knobs[self.knob]) for knobs in shown.values()} - {str(v) for v in known if v is not None})
        if strange:
            raise NotOwner(
                f"{service.name} serves {self.knob} {', '.join(strange)}, neither {change.old.get(self.knob)} nor "
                f"{change.new.get(self.knob)}: somebody else brought it into service; slotune stands down"
            )


class _Place:
    """One replica of a service, as `swap` needs it."""

    def __init__(self, lever: ChoiceEndpoints, service: Service, http: Http) -> None:
        self.shown = http.shown
        self._lever, self._service, self._http = lever, service, http

    def read(self) -> Knobs:
        return self._lever.read_one(self._service, self._http)

    def send(self, wanted: Knobs) -> None:
        self._lever.send(self._service, self._http, str(wanted[self._lever.knob]))
