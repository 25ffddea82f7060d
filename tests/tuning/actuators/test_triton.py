"""The Triton lever on a stub that behaves as Triton 2.51 was measured to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import ClassVar

import pytest

from tests.fakes.actuators import FakeConnections, FakeTime, service
from tests.fakes.triton import CONFIG, TritonStub, triton
from tuning.actuators._http import elsewhere
from tuning.actuators.triton import Triton, with_batching
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied, OutcomeUnknown
from tuning.model import Change
from tuning.ports import Connection

UP = Change(
    lever="batch_size", old={"batch_size": 4, "batch_timeout_ms": 1.0}, new={"batch_size": 16, "batch_timeout_ms": 3.0}
)


PINNED = {**CONFIG, "version_policy": {"specific": {"versions": [1]}}}


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
    assert stub.config == PINNED


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
        assert "no dynamic_batching" in lever(stub).read(RANKER).useless
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


def test_a_load_that_outlasts_a_proxy_is_waited_for(stub: TritonStub) -> None:
    class Late(FakeTime):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.clock() - began > 20 and stub.config["max_batch_size"] == 4:
                stub.load(dict(stub.loads_lost[0]))

    time = Late()
    began = time.clock()
    stub.next_load = "drop"
    slow = service("batch_size", "triton", connection="triton", model="ranker", load_timeout_s=30.0)
    lever = Triton(FakeConnections({"triton": Connection(name="triton", url=stub.url)}), time.clock, time.sleep)
    assert lever.apply(slow, UP, key="k").after == UP.new


def test_a_batch_change_brings_no_other_version_back(stub: TritonStub) -> None:
    stub.disk = {1, 2}  # 2 was published, or rolled back; the policy on show is "the newest"
    lever(stub).apply(RANKER, UP, key="k")
    assert stub.serving == {1}


def test_a_refusal_that_took_the_model_down_is_mended(stub: TritonStub) -> None:
    stub.next_load = "gone"
    with pytest.raises(ControlRefused, match="the old configuration was loaded again"):
        lever(stub).apply(RANKER, UP, key="k")
    assert stub.ready and stub.config["max_batch_size"] == 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sequence_batching": {"direct": {}}}, "keeps sequences"),
        ({"ensemble_scheduling": {"step": []}}, "is an ensemble"),
        ({"platform": "ensemble"}, "is an ensemble"),
    ],
)
def test_what_a_reload_would_break_is_left_alone(more: dict[str, object], words: str) -> None:
    with triton({**CONFIG, **more}) as stub, pytest.raises(ControlRefused, match=words):
        lever(stub).read(RANKER)


def test_no_batch_smaller_than_an_ensemble_around_it_takes(stub: TritonStub) -> None:
    steps = {"step": [{"model_name": "ranker"}]}
    stub.ensembles = {"pipeline": {"name": "pipeline", "max_batch_size": 4, "ensemble_scheduling": steps}}
    down = Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 2})
    with pytest.raises(ControlRefused, match=r"step of pipeline \(up to 4\)"):
        lever(stub).apply(RANKER, down, key="k")
    assert stub.loads == []
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
    called: ClassVar[list[tuple[str, bool]]] = []
    headers: ClassVar[list[dict[str, str]]] = []

    def __init__(self, url: str, ssl: bool) -> None:
        self.called.append((url, ssl))

    def load_model(self, name: str, *, headers: dict[str, str], config: str, client_timeout: float) -> None:
        if self.error:
            raise self.error
        assert (name, client_timeout) == ("ranker", 0.5)
        self.headers.append(headers)
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
    client = type("Client", (_GrpcClient,), {"stub": stub, "called": [], "headers": []})
    module = ModuleType("tritonclient.grpc")
    module.InferenceServerClient = client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tritonclient", ModuleType("tritonclient"))
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", module)
    return client


def test_loads_go_through_grpc_where_there_is_an_address(stub: TritonStub, grpc: type[_GrpcClient]) -> None:
    stub.next_load = 500  # an HTTP load would fail
    assert lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k").changed
    assert stub.config["max_batch_size"] == 16
    assert (grpc.called, grpc.headers) == ([("127.0.0.1:8001", False)], [{}])


def test_a_grpc_port_belongs_to_the_host_and_credentials_go_along(stub: TritonStub, grpc: type[_GrpcClient]) -> None:
    extra = {"grpc": 9001, "grpc_ssl": True, "token": "t0", "headers": {"admin-key": "k0"}}
    lever(stub, **extra).apply(RANKER, UP, key="k")
    assert grpc.called == [("127.0.0.1:9001", True)]
    assert grpc.headers == [{"authorization": "Bearer t0", "triton-grpc-protocol-admin-key": "k0"}]


@pytest.mark.parametrize(
    ("grpc_extra", "url", "becomes"),
    [
        ("10.0.0.1:8001", "http://10.0.0.2:8000", "8001"),
        ("127.0.0.1:8001", "http://127.0.0.1:8010", None),
        ("8001", "http://10.0.0.2:8000", "8001"),
        (None, "http://10.0.0.2:8000", None),
    ],
    ids=["another host: its port", "the same host: unknown, so HTTP", "a port: everywhere", "none"],
)
def test_a_grpc_address_is_never_used_for_another_server(grpc_extra: str | None, url: str, becomes: str | None) -> None:
    host = "10.0.0.1" if grpc_extra and "10.0" in grpc_extra else "127.0.0.1"
    first = Connection(name="a", url=f"http://{host}:8000", extra={"grpc": grpc_extra} if grpc_extra else {})
    assert elsewhere(first, "b", url).extra.get("grpc") == becomes


def test_grpc_errors(stub: TritonStub, grpc: type[_GrpcClient]) -> None:
    grpc.error = _GrpcError("failed to load", "StatusCode.INTERNAL")
    with pytest.raises(ControlRefused, match="failed to load"):
        lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k")
    grpc.error = _GrpcError("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED")
    with pytest.raises(OutcomeUnknown, match="Deadline"):
        lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k")
    grpc.error = _GrpcError("explicit model load / unload is not allowed if polling is enabled", "UNAVAILABLE")
    with pytest.raises(ControlRefused, match="model-control-mode=explicit"):
        lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k")
    grpc.error = _GrpcError("failed to connect to all addresses", "UNAVAILABLE")
    with pytest.raises(ControlUnreachable, match="nobody listens"):
        lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k")


def test_without_the_grpc_client_http_does(stub: TritonStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    assert lever(stub, grpc="127.0.0.1:8001").apply(RANKER, UP, key="k").changed
