"""Batch size and batch timeout through `GET`/`POST /config` of every replica of a service.

Options: settings.batch_size.HttpConfigOptions. A connection pods://NAMESPACE/NAME?port=8000&cluster=CONNECTION
stands for every ready pod of a workload.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _answers as answers
from tuning.actuators import _options as options
from tuning.actuators._batch_endpoints import BatchEndpoints
from tuning.actuators._http import Http
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.batch_size import HttpConfigOptions
from tuning.errors import ControlRefused


class HttpConfig(BatchEndpoints):
    """The batch lever of a server that can be told at run time."""

    name = "http_config"
    options = HttpConfigOptions

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        http.call("POST", "/config", dict(wanted))

    def read_one(self, service: Service, http: Http) -> Knobs:
        body = http.call("GET", "/config")
        at = f"GET {http.shown}/config"
        if not isinstance(body, dict):
            raise ControlRefused(f"{at} answered {type(body).__name__}, not an object with batch_size")
        size = answers.whole(body.get("batch_size"), low=1)
        if size is None:
            raise ControlRefused(f"{at} shows no usable batch_size ({_quoted(body.get('batch_size'))})")
        values: Knobs = {"batch_size": size}
        shown_ms = body.get("batch_timeout_ms")
        if shown_ms is not None:
            timeout_ms = answers.number(shown_ms)
            if timeout_ms is None:
                raise ControlRefused(f"{at} shows no usable batch_timeout_ms ({_quoted(shown_ms)})")
            values["batch_timeout_ms"] = timeout_ms
        return values


def _quoted(value: object) -> str:
    return options.bounded(str(value) if isinstance(value, int | float) else repr(value), 60)
