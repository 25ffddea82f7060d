"""A stub that behaves as Triton 2.51 was measured to: the configuration replaces, stale preferred_batch_size is refused,
a failed load leaves the old model serving, an equal load does nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fakes.actuators import serving

CONFIG: dict[str, Any] = {
    "name": "ranker",
    "platform": "",
    "backend": "python",
    "max_batch_size": 4,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3072]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    "dynamic_batching": {"preferred_batch_size": [4], "max_queue_delay_microseconds": 1000},
}


class TritonStub:
    """One model. `next_load` is what the next load does instead: "drop", "drop-applied", an int status, "unready"."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config = copy.deepcopy(config or CONFIG)
        self.loads: list[dict[str, Any]] = []
        self.reloads = 0
        self.ready = True
        self.next_load: Any = None
        self.url = ""

    def load(self, config: dict[str, Any]) -> tuple[int, str]:
        self.loads.append(config)
        if set(config) < set(CONFIG) or "input" not in config:
            return 400, "failed to load 'ranker', failed to poll from model repository"
        batching = config.get("dynamic_batching") or {}
        if any(size > config["max_batch_size"] for size in batching.get("preferred_batch_size", [])):
            return 400, "dynamic batching preferred size must be <= max batch size for ranker"
        if config != self.config:
            self.reloads += 1
        self.config = copy.deepcopy(config)
        return 200, ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) or b"{}")
        path = handler.path
        if path == "/v2/models/ranker/config":
            return self._send(handler, 200, self.config)
        if path == "/v2/repository/index":
            state = "READY" if self.ready else "UNAVAILABLE"
            return self._send(handler, 200, [{"name": "ranker", "version": "1", "state": state, "reason": "no memory"}])
        if path == "/v2/models/ranker/versions/1/ready":
            return self._send(handler, 200 if self.ready else 400, {})
        if path != "/v2/repository/models/ranker/load":
            return self._send(handler, 400, {"error": f"Request for unknown model: {path} is not found"})
        what, self.next_load = self.next_load, None
        if what in ("drop", "drop-applied"):
            if what == "drop-applied":
                self.load(json.loads(body["parameters"]["config"]))
            return None
        if isinstance(what, int):
            return self._send(handler, what, {"error": "failed to load 'ranker', out of memory"})
        if what == "unready":
            self.ready = False
        code, words = self.load(json.loads(body["parameters"]["config"]))
        return self._send(handler, code, {"error": words} if words else None)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, code: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


@contextmanager
def triton(config: dict[str, Any] | None = None) -> Iterator[TritonStub]:
    stub = TritonStub(config)
    with serving(stub.answer) as url:
        stub.url = url
        yield stub
