"""Batch size and batch timeout of any server that can be told over HTTP, as services.yaml writes the requests.

Where a knob stands in the answer of the read request is a JSON pointer; where it stands in the write request is a
place in its path or body. A server that takes only its whole configuration gets what it showed, with the knobs changed
(`{current}`), so that nothing else of it is overwritten with something old.

Options: tuning.actuators.settings.HttpOptions. Everything else is as for every batch lever over HTTP: one endpoint per
replica or one for the whole, all changed or none, read back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from detection.model import Service
from tuning.actuators import _answers as answers
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators._batch_endpoints import BatchEndpoints
from tuning.actuators._http import Http
from tuning.actuators._swap import Knobs
from tuning.actuators.settings import HttpOptions, ReadRequest, WriteRequest
from tuning.errors import ControlRefused
from tuning.model import Knob

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
UNITS_PER_MS = {"us": 1e3, "ms": 1.0, "s": 1e-3}


class HttpTemplate(BatchEndpoints):
    """The batch lever of a server that nobody wrote an actuator for."""

    name = "http"
    options = HttpOptions

    def read_one(self, service: Service, http: Http) -> Knobs:
        chosen = self._chosen(service)
        return _knobs(self._document(chosen.read, http), chosen, _at(chosen.read, http))

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        chosen = self._chosen(service)
        write = chosen.write
        values: dict[str, Any] = {}
        if write.places() - set(_named(wanted, chosen)):
            # the request has a place for more than is to be changed: the rest stays what it is
            document = self._document(chosen.read, http)
            at = _at(chosen.read, http)
            wanted = _knobs(document, chosen, at) | wanted
            if "current" in write.places():
                values["current"] = _current(document, chosen, wanted, at)
        values |= _named(wanted, chosen)
        body = None if write.body is None else templates.body(write.body, values)
        http.call(write.method, templates.path(write.path, values), body, headers=write.headers)

    def _chosen(self, service: Service) -> HttpOptions:
        return options.of(service, self.lever, HttpOptions)

    def _document(self, read: ReadRequest, http: Http) -> Any:
        return http.call(read.method, read.path, read.body, reading=True, headers=read.headers)


def _at(request: ReadRequest | WriteRequest, http: Http) -> str:
    return f"{request.method} {http.shown}{request.path}"


def _named(knobs: Mapping[str, Knob], chosen: HttpOptions) -> dict[str, Knob]:
    """The knobs by the names of their places, in the server's own units."""
    found: dict[str, Knob] = {}
    if knobs.get("batch_size") is not None:
        found["batch_size"] = int(float(knobs["batch_size"] or 0))
    if knobs.get("batch_timeout_ms") is not None and chosen.read.batch_timeout_at is not None:
        value = float(knobs["batch_timeout_ms"] or 0) * UNITS_PER_MS[chosen.batch_timeout_unit]
        rounded = round(value, 9)
        found["batch_timeout"] = int(rounded) if rounded.is_integer() else rounded
    return found


def _knobs(document: Any, chosen: HttpOptions, at: str) -> Knobs:
    """What an answer shows. Raises ControlRefused with the pointer that leads nowhere or to nothing usable."""
    size_at = chosen.read.batch_size_at
    size = answers.whole(_shown(document, size_at, at), low=1)
    if size is None:
        raise ControlRefused(f"{at} shows no usable batch size at {size_at} ({_quoted(_shown(document, size_at, at))})")
    values: Knobs = {"batch_size": size}
    timeout_at = chosen.read.batch_timeout_at
    if timeout_at is not None:
        shown = answers.number(_shown(document, timeout_at, at))
        if shown is None:
            found = _quoted(_shown(document, timeout_at, at))
            raise ControlRefused(f"{at} shows no usable batch timeout at {timeout_at} ({found})")
        values["batch_timeout_ms"] = round(shown / UNITS_PER_MS[chosen.batch_timeout_unit], 9)
    return values


def _shown(document: Any, pointer: str, at: str) -> Any:
    """The value there; a number that is written as a text is one."""
    try:
        found = pointers.find(document, pointers.steps(pointer))
    except pointers.NoSuchPlace as error:
        raise ControlRefused(f"{at}: in the answer {error}") from error
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        return float(found) if "." in found else int(found)
    return found


def _current(document: Any, chosen: HttpOptions, wanted: Knobs, at: str) -> Any:
    """The part of the answer that `write.current_at` names, with the wanted knobs in their places."""
    top = chosen.write.current_at
    for name, pointer in (("batch_size", chosen.read.batch_size_at), ("batch_timeout", chosen.read.batch_timeout_at)):
        value = _named(wanted, chosen).get(name)
        if pointer is None or value is None:
            continue
        path = pointers.steps(pointer)
        try:
            was_text = isinstance(pointers.find(document, path), str)
            document = pointers.replaced(document, path, str(value) if was_text else value)
        except pointers.NoSuchPlace as error:
            raise ControlRefused(f"{at}: in the answer {error}") from error
    try:
        return pointers.find(document, pointers.steps(top))
    except pointers.NoSuchPlace as error:
        raise ControlRefused(f"{at}: in the answer {error}") from error


def _quoted(value: object) -> str:
    return options.bounded(str(value) if isinstance(value, int | float) else repr(value), 60)
