"""A choice (a version, a variant) in requests of services.yaml: read by a JSON pointer, written in a place."""

from __future__ import annotations

from typing import Any

from detection.outside_text import printable
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators._http import Http
from tuning.actuators.settings.endpoints import HttpRequest
from tuning.errors import ControlRefused

LETTERS = 120


def chosen(document: Any, pointer: str, at: str, what: str) -> str:
    """The text (or whole number) at a pointer. ControlRefused, with what stands there, for anything else."""
    try:
        found = pointers.find(document, pointers.steps(pointer))
    except pointers.NoSuchPlace as error:
        raise ControlRefused(f"{at}: in the answer {error}") from error
    whole = isinstance(found, int) and not isinstance(found, bool)
    text = printable(str(found), LETTERS + 1) if whole or isinstance(found, str) else ""
    if not text or len(text) > LETTERS:
        words = options.bounded(repr(found), 60)
        raise ControlRefused(f"{at} shows no usable {what} at {pointer or 'its top'} ({words})")
    return text


def write(http: Http, request: HttpRequest, values: dict[str, str], timeout_s: float) -> None:
    """Send a write request with its places filled. Raises as `Http.call`."""
    method, path, body = (getattr(request, name) for name in ("method", "path", "body"))
    told = None if body is None else templates.body(body, values)
    http.call(method, templates.path(path, values), told, headers=request.headers, timeout_s=timeout_s)
