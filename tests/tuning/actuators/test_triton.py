"""The Triton lever on a stub that behaves as Triton 2.51 was measured to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, service
from tests.fakes.triton import CONFIG, TritonStub, triton
from tuning.actuators.triton import Triton, with_batching
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied, OutcomeUnknown
from tuning.model import Change
from tuning.ports import Connection

UP = Change(
    lever="batch_size", old={"batch_size": 4, "batch_timeout_ms": 1.0}, new={"batch_size": 16, "batch_timeout_ms": 3.0}
)


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
