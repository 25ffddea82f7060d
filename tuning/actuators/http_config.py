"""Batch size and batch timeout through `GET`/`POST /config` of every replica of a service.

Options of the lever: connection (whose address is the endpoint), endpoints (the connections, or plain addresses, of
further replicas), request_timeout_s (5). A connection pods://NAMESPACE/NAME?port=8000&cluster=CONNECTION stands for
every ready pod of a workload.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._batch_endpoints import BatchEndpoints, Knobs
from tuning.actuators._http import Http
from tuning.errors import ControlRefused


class HttpConfig(BatchEndpoints):
    """The batch lever of a server that can be told at run time."""

    name = "http_config"

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        http.call("POST", "/config", dict(wanted))

    def read_one(self, service: Service, http: Http) -> Knobs:
        body = http.call("GET", "/config")
        at = f"GET {http.shown}/config"
        if not isinstance(body, dict):
            raise ControlRefused(f"{at} answered {type(body).__name__}, not an object with batch_size")
        size = body.get("batch_size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ControlRefused(f"{at} shows no usable batch_size ({options.bounded(repr(size), 60)})")
        values: Knobs = {"batch_size": size}
        timeout_ms = body.get("batch_timeout_ms")
        if isinstance(timeout_ms, int | float) and not isinstance(timeout_ms, bool) and timeout_ms >= 0:
            values["batch_timeout_ms"] = float(timeout_ms)
        return values
