"""Batch size and batch timeout of any server that can be told over HTTP, as services.yaml writes the requests.

Where a knob stands in the answer of the read request is a JSON pointer; where it stands in the write request is a
place in its path or body. A server that takes only its whole configuration gets what it showed, with the knobs changed
(`{current}`), so that nothing else of it is overwritten with something old.

Options: settings.batch_size.HttpOptions. Everything else is as for every batch lever over HTTP: one endpoint per
replica or one for the whole, all changed or none, read back.
"""

from __future__ import annotations

from typing import Any

from detection.model import Service
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators._batch_endpoints import BatchEndpoints
from tuning.actuators._http import Http
from tuning.actuators._pointer_knobs import Where
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.batch_size import HttpOptions, ReadRequest, WriteRequest
from tuning.errors import ControlRefused


class HttpTemplate(BatchEndpoints):
    """The batch lever of a server that nobody wrote an actuator for."""

    name = "http"
    options = HttpOptions

    def read_one(self, service: Service, http: Http) -> Knobs:
        chosen = self._chosen(service)
        return _where(chosen).knobs(self._document(chosen.read, http), _at(chosen.read, http))

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        chosen = self._chosen(service)
        write = chosen.write
        values: dict[str, Any] = {}
        if write.places() - set(_where(chosen).named(wanted)):
            # the request has a place for more than is to be changed: the rest stays what it is
            document = self._document(chosen.read, http)
            at = _at(chosen.read, http)
            wanted = _where(chosen).knobs(document, at) | wanted
            if "current" in write.places():
                values["current"] = _current(document, chosen, wanted, at)
        values |= _where(chosen).named(wanted)
        body = None if write.body is None else templates.body(write.body, values)
        http.call(write.method, templates.path(write.path, values), body, headers=write.headers)

    def _chosen(self, service: Service) -> HttpOptions:
        return options.of(service, self.lever, HttpOptions)

    def _document(self, read: ReadRequest, http: Http) -> Any:
        return http.call(read.method, read.path, read.body, reading=True, headers=read.headers)


def _at(request: ReadRequest | WriteRequest, http: Http) -> str:
    return f"{request.method} {http.shown}{request.path}"


def _where(chosen: HttpOptions) -> Where:
    return Where(chosen.read.batch_size_at, chosen.read.batch_timeout_at, chosen.batch_timeout_unit)


def _current(document: Any, chosen: HttpOptions, wanted: Knobs, at: str) -> Any:
    """The part of the answer that `write.current_at` names, with the wanted knobs in their places."""
    for pointer, value in _where(chosen).replacements(document, wanted, at).items():
        document = pointers.replaced(document, pointers.steps(pointer), value)
    try:
        return pointers.find(document, pointers.steps(chosen.write.current_at))
    except pointers.NoSuchPlace as error:
        raise ControlRefused(f"{at}: in the answer {error}") from error

