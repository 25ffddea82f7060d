"""Which versions Triton's precision lever keeps, and what it does not publish for; on the stub (see test_real_triton)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from detection.model import Service
from tests.fakes.actuators import FakeConnections, FakeTime, service
from tests.fakes.triton import CONFIG, TritonStub, triton
from tuning.actuators._http import Http
from tuning.actuators.triton_repository import TritonRepository
from tuning.errors import ControlRefused
from tuning.ports import Connection

MANIFEST = '{"model": "ranker", "precision": "int8", "file": "model.onnx", "digest": "d", "source_digest": "s"}'


@pytest.fixture
def stub() -> Iterator[TritonStub]:
    with triton() as running:
        yield running


def lever(stub: TritonStub) -> TritonRepository:
    time = FakeTime()
    connections = FakeConnections({"triton": Connection(name="triton", url=stub.url)})
    return TritonRepository(connections, time.clock, time.sleep)


def ranker(**more: object) -> Service:
    return service("precision", "triton_repository", connection="triton", model="ranker", **more)


def go(stub: TritonStub, chosen: Service, version: str) -> None:
    subject = lever(stub)
    ((_, http),) = subject.endpoints(chosen).items()
    subject.send(chosen, http, subject._served(chosen, http), version)


def test_what_served_beside_serves_on_and_again_after_the_way_back(stub: TritonStub) -> None:
    stub.disk, stub.serving = {1, 2, 3}, {1, 2}
    go(stub, ranker(), "3")
    assert stub.serving == {1, 2, 3}
    go(stub, ranker(), "2")
    assert stub.serving == {1, 2}


def test_an_older_int8_version_of_ours_gives_its_memory_back(stub: TritonStub, tmp_path: Path) -> None:
    for version in ("1", "2", "3", "4"):
        (tmp_path / "ranker" / version).mkdir(parents=True)
    for version in ("2", "4"):
        (tmp_path / "ranker" / version / "manifest.json").write_text(MANIFEST)
    stub.disk, stub.serving = {1, 2, 3, 4}, {1, 2, 3}
    go(stub, ranker(repository=str(tmp_path)), "4")
    assert stub.serving == {1, 3, 4}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"backend": "tensorrt"}, "backend tensorrt"),
        ({"backend": "", "platform": "tensorflow_savedmodel"}, "tensorflow_savedmodel"),
        ({"instance_group": [{"count": 1, "kind": "KIND_GPU"}]}, "timed on a CPU"),
        ({"sequence_batching": {}}, "keeps sequences"),
    ],
)
def test_nothing_is_published_for_a_model_that_cannot_use_it(more: dict[str, object], words: str) -> None:
    with triton({**CONFIG, **more}) as stub:
        subject = lever(stub)
        http = Http(Connection(name="triton", url=stub.url))
        with pytest.raises(ControlRefused, match=words):
            subject.prepare(ranker(), http, {"version": "1", "precision": "fp32", "loaded": ("1",)})
        assert stub.loads == []


@pytest.mark.parametrize(
    ("policy", "warns"),
    [
        ("", True),
        ("version_policy { latest { num_versions: 1 } }", True),
        ("version_policy: { all { } }", True),
        ("version_policy { specific { versions: [ 1 ] } }", False),
        ("version_policy: {\n  specific: {\n    versions: 1\n  }\n}", False),
    ],
)
def test_a_configuration_that_lets_a_new_server_choose_is_said(
    policy: str, warns: bool, stub: TritonStub, tmp_path: Path
) -> None:
    (tmp_path / "ranker/1").mkdir(parents=True)
    (tmp_path / "ranker/config.pbtxt").write_text(f'name: "ranker"\n{policy}\n')
    note = lever(stub).read(ranker(repository=str(tmp_path))).note
    assert ("a server that starts anew takes the newest" in note) is warns
