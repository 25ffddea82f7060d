"""The Triton lever on a stub that behaves as Triton 2.51 was measured to: the configuration replaces, stale
preferred_batch_size is refused, a failed load leaves the old model serving, an equal load does nothing."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import ModuleType
from typing import Any

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, service, serving
from tuning.actuators.triton import Triton, with_batching
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied, OutcomeUnknown
from tuning.model import Change
from tuning.ports import Connection

UP = Change(
    lever="batch_size", old={"batch_size": 4, "batch_timeout_ms": 1.0}, new={"batch_size": 16, "batch_timeout_ms": 3.0}
)
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


@pytest.fixture
def stub() -> Iterator[TritonStub]:
    with triton() as running:
        yield running


def lever(stub: TritonStub, **extra: object) -> Triton:
    time = FakeTime()
    connections = FakeConnections({"triton": Connection(name="triton", url=stub.url, extra=extra)})
    return Triton(connections, time.clock, time.sleep)


RANKER = service("batch_size", "triton", connection="triton", model="ranker", request_timeout_s=0.5, load_timeout_s=0.5)


def test_sends_the_whole_configuration_back(stub: TritonStub) -> None:
    assert lever(stub).read(RANKER).values == {"batch_size": 4, "batch_timeout_ms": 1.0}
    receipt = lever(stub).apply(RANKER, UP, key="plan-1:batch_size")
    assert receipt.after == {"batch_size": 16, "batch_timeout_ms": 3.0}
    assert stub.config["dynamic_batching"] == {"preferred_batch_size": [16], "max_queue_delay_microseconds": 3000}
    assert stub.config["input"] == CONFIG["input"]
    lever(stub).apply(RANKER, UP.inverse(), key="plan-2:batch_size")
    assert stub.config == CONFIG


def test_a_repeat_loads_nothing(stub: TritonStub) -> None:
    lever(stub).apply(RANKER, UP, key="k")
    assert not lever(stub).apply(RANKER, UP, key="k").changed
    assert len(stub.loads) == 1


@pytest.mark.parametrize(
    ("preferred", "size", "becomes"),
    [([4], 8, [8]), ([4], 2, [2]), ([2, 4], 8, [2, 4]), ([2, 4], 3, [2]), ([4, 8], 2, [2]), ([], 8, [])],
)
def test_preferred_sizes_stay_consistent(preferred: list[int], size: int, becomes: list[int]) -> None:
    config = {**CONFIG, "dynamic_batching": {"preferred_batch_size": preferred}}
    assert with_batching(config, {"batch_size": size})["dynamic_batching"]["preferred_batch_size"] == becomes


def test_the_stub_refuses_what_triton_refuses(stub: TritonStub) -> None:
    assert stub.load({"max_batch_size": 2})[0] == 400
    assert stub.load({**CONFIG, "max_batch_size": 2})[0] == 400  # preferred_batch_size is stale


def test_without_dynamic_batching_the_size_alone_is_set() -> None:
    config = {key: value for key, value in CONFIG.items() if key != "dynamic_batching"}
    with triton(config) as stub:
        assert lever(stub).read(RANKER).values == {"batch_size": 4}
        stub.load = lambda c: (200, "") if stub.config.update(c) is None else (0, "")  # type: ignore[method-assign]
        lever(stub).apply(RANKER, Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 8}), key="k")
        assert (stub.config["max_batch_size"], "dynamic_batching" in stub.config) == (8, False)


@pytest.mark.parametrize("code", [400, 500])
def test_a_failed_load_is_refused_and_the_old_model_serves(stub: TritonStub, code: int) -> None:
    stub.next_load = code
    with pytest.raises(ControlRefused, match="out of memory"):
        lever(stub).apply(RANKER, UP, key="k")
    assert stub.config == CONFIG


def test_lost_answers(stub: TritonStub) -> None:
    stub.next_load = "drop"
    with pytest.raises(OutcomeUnknown, match="still shows"):
        lever(stub).apply(RANKER, UP, key="k")
    stub.next_load = "drop-applied"
    assert lever(stub).apply(RANKER, UP, key="k").changed


def test_accepted_but_not_ready(stub: TritonStub) -> None:
    stub.next_load = "unready"
    with pytest.raises(NotApplied, match=r"no version of ranker is ready \(no memory\)"):
        lever(stub).apply(RANKER, UP, key="k")


def test_a_model_that_does_not_batch() -> None:
    with triton({**CONFIG, "max_batch_size": 0}) as stub, pytest.raises(ControlRefused, match="does not batch"):
        lever(stub).read(RANKER)


def test_an_unknown_model_and_a_dead_server(stub: TritonStub) -> None:
    other = service("batch_size", "triton", connection="triton", model="other")
    with pytest.raises(ControlRefused, match="is not found"):
        lever(stub).read(other)
    stub.url = "http://127.0.0.1:9"
    with pytest.raises(ControlUnreachable):
        lever(stub).read(RANKER)


class _GrpcClient:
    """Stands in for tritonclient.grpc.InferenceServerClient."""

    stub: TritonStub
    error: Exception | None = None

    def __init__(self, url: str) -> None:
        assert url == "127.0.0.1:8001"

    def load_model(self, name: str, *, config: str, client_timeout: float) -> None:
        if self.error:
            raise self.error
        assert (name, client_timeout) == ("ranker", 0.5)
        self.stub.load(json.loads(config))

    def close(self) -> None:
        pass


class _GrpcError(Exception):
    def __init__(self, words: str, status: str) -> None:
        super().__init__(words)
        self._status = status

    def status(self) -> str:
        return self._status


@pytest.fixture
def grpc(stub: TritonStub, monkeypatch: pytest.MonkeyPatch) -> type[_GrpcClient]:
    client = type("Client", (_GrpcClient,), {"stub": stub})
    module = ModuleType("tritonclient.grpc")
    module.InferenceServerClient = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tritonclient", ModuleType("tritonclient"))
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", module)
    return client


def test_loads_go_through_grpc_where_there_is_an_address(stub: TritonStub, grpc: type[_GrpcClient]) -> None:
    stub.next_load = 500  # an HTTP load would fail
    assert lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k").changed
    assert stub.config["max_batch_size"] == 16


def test_grpc_errors(stub: TritonStub, grpc: type[_GrpcClient]) -> None:
    grpc.error = _GrpcError("failed to load", "StatusCode.INTERNAL")
    with pytest.raises(ControlRefused, match="failed to load"):
        lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k")
    grpc.error = _GrpcError("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED")
    with pytest.raises(OutcomeUnknown, match="Deadline"):
        lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k")


def test_without_the_grpc_client_http_does(stub: TritonStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    assert lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k").changed
