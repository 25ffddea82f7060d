"""Whether a route gets requests, at a gateway or a service that can be told over HTTP, as services.yaml writes it.

A route is a dependency, a replica, a version or a backend that requests go to. What the endpoint calls its states (a
weight of 100, 5 and 0; enabled, probing and disabled) stands in services.yaml. Options:
settings.breaker.HttpBreakerOptions.
"""

from __future__ import annotations

from typing import Any

from detection.model import Service
from detection.outside_text import printable
from tuning.actuators import _http_choice as choice
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators._http import Http
from tuning.actuators._knob_endpoints import KnobEndpoints
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.breaker import STATES, HttpBreakerOptions
from tuning.errors import ConfigError
from tuning.model import Change, Receipt


class HttpBreaker(KnobEndpoints):
    """The breaker lever over HTTP: one knob per route, its state."""

    name, lever = "http_breaker", "breaker"
    options = HttpBreakerOptions

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        routes = {route.name for route in self._chosen(service).routes}
        for route, state in change.new.items():
            if route not in routes or state not in STATES:
                asked = printable(f"{route} {state}", 80)
                raise ConfigError(f"the change asks for {asked}, which is no route in a state that there is")
        return super().apply(service, change, key=key)

    def read_one(self, service: Service, http: Http) -> Knobs:
        given = self._chosen(service)
        read = given.read
        document = http.call(read.method, read.path, read.body, reading=True, headers=read.headers)
        at = f"{read.method} {http.shown}{read.path}"
        names = {given.states.called(state): state for state in STATES}
        shown = {r.name: choice.chosen(document, r.state_at, at, "state") for r in given.routes}
        return {route: names.get(text, text) for route, text in shown.items()}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        given = self._chosen(service)
        write = given.write
        for route in given.routes:
            if route.name in wanted:
                told = given.states.called(str(wanted[route.name]))
                values: dict[str, Any] = {"route": route.value or route.name, "state": _number_or_text(told)}
                body = None if write.body is None else templates.body(write.body, values)
                http.call(write.method, templates.path(write.path, values), body, headers=write.headers)

    def _chosen(self, service: Service) -> HttpBreakerOptions:
        return options.of(service, self.lever, HttpBreakerOptions)


def _number_or_text(told: str) -> int | str:
    """A weight goes as the number that it is."""
    return int(told) if told.isdecimal() else told
