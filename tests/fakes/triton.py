"""A stub that behaves as Triton 2.51 was measured to: the configuration replaces, stale preferred_batch_size is refused,
a failed load leaves the old model serving, an equal load does nothing, and a load that changes the version policy alone
changes what serves but not the configuration that is shown."""

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
    "version_policy": {"latest": {"num_versions": 1}},
    "max_batch_size": 4,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3072]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [1]}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
    "dynamic_batching": {"preferred_batch_size": [4], "max_queue_delay_microseconds": 1000},
}


class TritonStub:
    """One model, and ensembles around it by name. disk: its versions there; serving: those in memory.

    `next_load` is what the next load does instead: "drop", "drop-applied", an int status, "unready", and "gone": a
    refusal that leaves no version loaded.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config = copy.deepcopy(config or CONFIG)
        self.disk, self.serving = {1}, {1}
        self.ensembles: dict[str, dict[str, Any]] = {}
        self.loads: list[dict[str, Any]] = []
        self.loads_lost: list[dict[str, Any]] = []
        self.reloads = 0
        self.ready = True
        self.next_load: Any = None
        self.url = ""

    def load(self, config: dict[str, Any]) -> tuple[int, str]:
        self.loads.append(config)
        if "input" not in config:
            return 400, "failed to load 'ranker', failed to poll from model repository"
        batching = config.get("dynamic_batching") or {}
        if any(size > config["max_batch_size"] for size in batching.get("preferred_batch_size", [])):
            return 400, "dynamic batching preferred size must be <= max batch size for ranker"
        policy = config.get("version_policy", {}).get("specific", {})
        versions = set(policy.get("versions", [max(self.disk)]))
        if not versions <= self.disk:
            return 400, f"failed to load 'ranker', no version {versions - self.disk}"
        self.serving, self.ready = versions, True
        if _without_policy(config) != _without_policy(self.config):
            self.reloads += 1
            self.config = copy.deepcopy(config)
        return 200, ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) or b"{}")
        path = handler.path
        if path == "/v2/models/ranker/config":
            return self._send(handler, 200, self.config)
        if path == "/v2/repository/index":
            return self._send(handler, 200, self._index())
        if path in [f"/v2/models/ranker/versions/{version}/ready" for version in self.serving]:
            return self._send(handler, 200 if self.ready else 400, {})
        if path in [f"/v2/models/{name}/config" for name in self.ensembles]:
            return self._send(handler, 200, self.ensembles[path.split("/")[3]])
        if path != "/v2/repository/models/ranker/load":
            return self._send(handler, 400, {"error": f"Request for unknown model: {path} is not found"})
        what, self.next_load = self.next_load, None
        if what in ("drop", "drop-applied"):
            self.loads_lost.append(json.loads(body["parameters"]["config"]))
            if what == "drop-applied":
                self.load(self.loads_lost[-1])
            return None
        if isinstance(what, int):
            return self._send(handler, what, {"error": "failed to load 'ranker', out of memory"})
        if what == "gone":
            self.ready = False
            return self._send(handler, 400, {"error": "failed to load 'ranker'"})
        code, words = self.load(json.loads(body["parameters"]["config"]))
        self.ready = what != "unready"
        return self._send(handler, code, {"error": words} if words else None)

    def _index(self) -> list[dict[str, str]]:
        rows = [{"name": name, "version": "1", "state": "READY", "reason": ""} for name in self.ensembles]
        for version in sorted(self.disk):
            ready = self.ready and version in self.serving
            state, reason = ("READY", "") if ready else ("UNAVAILABLE", "no memory" if not self.ready else "unloaded")
            rows.append({"name": "ranker", "version": str(version), "state": state, "reason": reason})
        return rows

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, code: int, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def _without_policy(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "version_policy"}


@contextmanager
def triton(config: dict[str, Any] | None = None) -> Iterator[TritonStub]:
    stub = TritonStub(config)
    with serving(stub.answer) as url:
        stub.url = url
        yield stub
