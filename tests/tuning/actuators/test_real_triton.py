"""Both Triton levers, the queries and the checks against a real Triton: `make test-triton`."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import requests

from demo.processes import wait_until
from demo.prometheus import Prometheus, Target
from detection.model import Service, Span, VersionWindow
from detection.sources.prometheus import PrometheusSource
from detection.versions import changes, served
from slotune.cli import build_app
from slotune.commands.live_check import live_check
from tests.fakes.actuators import FakeConnections, service
from tests.fakes.quantization import judged, tiny
from tests.triton_server import TritonServer, find_triton, triton_server
from tuning.actuators.triton import Triton
from tuning.actuators.triton_release import TritonRelease
from tuning.actuators.triton_repository import TritonRepository
from tuning.errors import ControlRefused, ControlUnreachable, NotOwner, QuantizationRefused
from tuning.model import Change
from tuning.ports import Connection
from tuning.quantization.onnx_model import load_model
from tuning.quantization.repository import config_pbtxt
from tuning.services_yaml import loads

BINARY = find_triton()
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        BINARY is None, reason="no Triton (scripts/triton-wheel), or no libpython for its Python backend"
    ),
]
SERVICES = """
prometheus: {{rate_window: 10s, step: 1s}}
services:
  - name: ranker
    serving: triton
    selectors: {{model: ranker}}
    slo: {{p95: 100ms}}
    levers:
      batch_size: {{actuator: triton, connection: triton, min: 1, max: 32}}
      precision: {{actuator: triton_repository, connection: triton, repository: {repository}}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    assert BINARY is not None
    root = tmp_path_factory.mktemp("triton")
    version = root / "repository/ranker/1"
    version.mkdir(parents=True)
    onnx.save(tiny().proto, version / "model.onnx")
    model = load_model(version / "model.onnx")
    config = config_pbtxt("ranker", model.inputs, model.outputs, platform="onnxruntime_onnx", max_batch=4, serve=[1])
    (version.parent / "config.pbtxt").write_text(config)
    put_model(root / "repository", "newest", config.replace("version_policy { specific { versions: [ 1 ] } }", ""))
    put_model(root / "repository", "member", config.replace("max_batch_size: 4", "max_batch_size: 8"))
    put_model(
        root / "repository", "stateful", config.replace("dynamic_batching { }", "sequence_batching { direct { } }")
    )
    put_model(root / "repository", "single", config.replace("dynamic_batching { }", ""))
    pipeline = root / "repository/pipeline"
    (pipeline / "1").mkdir(parents=True)
    (pipeline / "config.pbtxt").write_text(ensemble(config))
    with triton_server(BINARY, root, root / "repository") as running:
        yield running


def put_model(repository: Path, name: str, config: str) -> None:
    """The ranker's model under another name, and its configuration."""
    (repository / name / "1").mkdir(parents=True)
    onnx.save(tiny().proto, repository / name / "1/model.onnx")
    (repository / name / "config.pbtxt").write_text(config.replace('"ranker"', f'"{name}"'))


def ensemble(config: str) -> str:
    """An ensemble of one step around the model `member`, with the ranker's inputs and outputs."""
    tensors = config[config.index("input [") : config.index("version_policy")]
    names = {kind: re.search(rf'{kind} \[\s*{{ name: "([^"]+)"', tensors) for kind in ("input", "output")}
    given, made = (found.group(1) for found in names.values() if found is not None)
    return f"""name: "pipeline"
platform: "ensemble"
max_batch_size: 8
{tensors}ensemble_scheduling {{ step [ {{
  model_name: "member" model_version: -1
  input_map {{ key: "{given}" value: "{given}" }} output_map {{ key: "{made}" value: "{made}" }}
}} ] }}
"""


def answered_by(server: TritonServer, model: str) -> str:
    """The version that answers a request which names none; the words of an error."""
    row = [float(x) for x in tiny().inputs[0]]
    tensor = {"name": "input", "shape": [1, len(row)], "datatype": "FP32", "data": row}
    answer = requests.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=10)
    return str(answer.json()["model_version"]) if answer.status_code == 200 else answer.text


class Load:
    """Clients in a closed loop over HTTP. failed: the words of every answer that is not 200; slowest_s: of all."""

    def __init__(self, url: str, clients: int = 3) -> None:
        self.url, self.ok, self.failed, self.slowest_s = f"{url}/v2/models/ranker/infer", 0, list[str](), 0.0
        self.versions: set[str] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.ok > 20, 20, "some traffic")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        session, row = requests.Session(), [float(x) for x in tiny().inputs[0]]
        tensor = {"name": "input", "shape": [1, len(row)], "datatype": "FP32", "data": row}
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                answer = session.post(self.url, json={"inputs": [tensor]}, timeout=20)
                if answer.status_code == 200:
                    self.ok += 1
                    self.versions.add(answer.json()["model_version"])
                else:
                    self.failed.append(f"{answer.status_code} {answer.text[:200]}")
            except requests.RequestException as error:
                self.failed.append(repr(error))
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self._stop.wait(0.005)


def connections(server: TritonServer) -> FakeConnections:
    return FakeConnections({"triton": Connection(name="triton", url=server.url, extra={"grpc": server.grpc})})


def test_the_batch_size_under_load_repeated_and_back(server: TritonServer) -> None:
    lever = Triton(connections(server), time.monotonic, time.sleep)
    ranker = service("batch_size", "triton", connection="triton", model="ranker")
    old = lever.read(ranker).values
    assert old == {"batch_size": 4, "batch_timeout_ms": 0.0}
    up = Change(lever="batch_size", old=old, new={"batch_size": 16, "batch_timeout_ms": 2.0})
    with Load(server.url) as load:
        assert lever.apply(ranker, up, key="p1:batch_size").after == up.new
        config = requests.get(f"{server.url}/v2/models/ranker/config", timeout=5).json()
        assert (config["max_batch_size"], config["dynamic_batching"]["max_queue_delay_microseconds"]) == (16, 2000)
        assert [tensor["name"] for tensor in config["input"]] == ["input"]
        assert not lever.apply(ranker, up, key="p1:batch_size").changed
        with pytest.raises(NotOwner, match="somebody else"):
            lever.apply(ranker, Change(lever="batch_size", old={"batch_size": 5}, new={"batch_size": 6}), key="p2:b")
        lever.apply(ranker, up.inverse(), key="p3:batch_size")
        assert lever.read(ranker).values == old
    assert load.failed == [] and load.ok > 0


def precision(server: TritonServer, tmp_path: Path, model: str = "ranker", **more: object) -> Service:
    np.savez(tmp_path / "rows.npz", input=tiny().inputs)
    return service(
        "precision",
        "triton_repository",
        connection="triton",
        model=model,
        onnx=str(server.repository / model / "1/model.onnx"),
        calibration=str(tmp_path / "rows.npz"),
        repository=str(server.repository),
        min_speedup=0.01,  # speed is the subject of the gates' own tests
        **more,
    )


def test_int8_is_published_swapped_in_and_rolled_back_under_load(server: TritonServer, tmp_path: Path) -> None:
    lever = TritonRepository(connections(server), time.monotonic, time.sleep)
    ranker = precision(server, tmp_path)
    now = lever.read(ranker).values
    assert now == {"version": "1", "precision": "fp32"}
    change = Change(lever="precision", old=now, new={**now, "precision": "int8"})
    with Load(server.url) as load:
        receipt = lever.apply(ranker, change, key="p1:precision")
        assert receipt.after == {"version": "2", "precision": "int8"} and receipt.changed
        assert receipt.evidence["replicas"] == {"triton": {"version": "2", "precision": "int8", "loaded": ("1", "2")}}
        wait_until(lambda: "2" in load.versions, 10, "an answer of version 2")
        assert not lever.apply(ranker, change, key="p1:precision").changed
        began = time.monotonic()
        back = lever.apply(ranker, change.inverse(), key="p2:precision")
        took_s = time.monotonic() - began
        assert back.after == now and took_s < 2.0
        load.versions.clear()
        wait_until(lambda: "1" in load.versions, 10, "an answer of version 1")
        again = lever.apply(ranker, change, key="p3:precision")
        assert again.after == {"version": "2", "precision": "int8"} and again.evidence["built"] is False
        lever.apply(ranker, change.inverse(), key="p4:precision")
    assert load.failed == []
    print(f"{load.ok} requests, 0 failed; way back {took_s * 1e3:.0f} ms; slowest request {load.slowest_s:.2f} s")


def test_a_batch_change_leaves_the_version_that_was_rolled_back_to(server: TritonServer, tmp_path: Path) -> None:
    """`newest` names no versions in its config.pbtxt: Triton's default is the newest on disk."""
    swap, batch = (kind(connections(server), time.monotonic, time.sleep) for kind in (TritonRepository, Triton))
    newest = precision(server, tmp_path, "newest")
    now = swap.read(newest)
    assert "takes the newest version on disk" in now.note
    to_int8 = Change(lever="precision", old=now.values, new={**now.values, "precision": "int8"})
    swap.apply(newest, to_int8, key="q1:precision")
    assert answered_by(server, "newest") == "2"
    swap.apply(newest, to_int8.inverse(), key="q2:precision")
    assert answered_by(server, "newest") == "1"
    sized = service("batch_size", "triton", connection="triton", model="newest")
    up = Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 8})
    for change in (up, up.inverse()):
        assert batch.apply(sized, change, key="q3:batch_size").changed
        assert answered_by(server, "newest") == "1"


def test_publishing_alone_puts_nothing_live(server: TritonServer, tmp_path: Path) -> None:
    """The new version cannot be loaded, so that it stays on disk and is never told to serve."""

    def broken(model, data, recipe, live):  # type: ignore[no-untyped-def]
        return judged(True, b"no model at all", source=model.digest, calibration=data.digest)

    lever = TritonRepository(connections(server), time.monotonic, time.sleep, make=broken)
    member = precision(server, tmp_path, "member", max_accuracy_drop=0.4)
    now = lever.read(member).values
    with pytest.raises(ControlRefused, match="keeps serving"):
        lever.apply(member, Change(lever="precision", old=now, new={**now, "precision": "int8"}), key="q4:precision")
    assert answered_by(server, "member") == "1" and (server.repository / "member/2").is_dir()


def test_ensembles_and_sequences_are_left_alone(server: TritonServer) -> None:
    lever = Triton(connections(server), time.monotonic, time.sleep)

    def sized(model: str) -> Service:
        return service("batch_size", "triton", connection="triton", model=model)

    assert "no dynamic_batching" in lever.read(sized("single")).useless
    assert lever.read(sized("member")).useless == ""
    for model, words in (("pipeline", "is an ensemble"), ("stateful", "keeps sequences")):
        with pytest.raises(ControlRefused, match=words):
            lever.read(sized(model))
    down = Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 4})
    with pytest.raises(ControlRefused, match=r"step of pipeline \(up to 8\)"):
        lever.apply(sized("member"), down, key="e1:batch_size")
    assert answered_by(server, "pipeline") == "1"
    up = Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16})
    assert lever.apply(sized("member"), up, key="e2:batch_size").changed
    assert lever.apply(sized("member"), up.inverse(), key="e3:batch_size").changed
    assert answered_by(server, "pipeline") == "1"


@pytest.mark.parametrize("mode", ["poll", "none"])
def test_a_server_that_chooses_for_itself_gets_no_new_version(mode: str, tmp_path: Path) -> None:
    assert BINARY is not None
    repository = tmp_path / "repository"
    model = load_model(_saved(tmp_path))
    text = config_pbtxt("ranker", model.inputs, model.outputs, platform="onnxruntime_onnx", max_batch=4, serve=[1])
    put_model(repository, "ranker", text.replace("version_policy { specific { versions: [ 1 ] } }", ""))
    with triton_server(BINARY, tmp_path, repository, mode=mode) as server:
        swap = TritonRepository(connections(server), time.monotonic, time.sleep)
        now = swap.read(precision(server, tmp_path)).values
        change = Change(lever="precision", old=now, new={**now, "precision": "int8"})
        with pytest.raises(ControlRefused, match="model-control-mode=explicit"):
            swap.apply(precision(server, tmp_path), change, key="m1:precision")
        batch = Triton(connections(server), time.monotonic, time.sleep)
        up = Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 8})
        with pytest.raises(ControlRefused, match="model-control-mode=explicit"):
            batch.apply(service("batch_size", "triton", connection="triton", model="ranker"), up, key="m2:batch_size")
        time.sleep(2.5)
        assert [path.name for path in (repository / "ranker").iterdir() if path.is_dir()] == ["1"]
        assert answered_by(server, "ranker") == "1"


def test_a_grpc_load_reaches_the_server_that_it_belongs_to(server: TritonServer, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc")
    assert BINARY is not None
    (tmp_path / "second").mkdir()
    text = (server.repository / "ranker/config.pbtxt").read_text()
    put_model(tmp_path / "repository", "ranker", text)
    with triton_server(BINARY, tmp_path / "second", tmp_path / "repository") as other:
        lever = Triton(connections(server), time.monotonic, time.sleep)
        ranker = service("batch_size", "triton", connection="triton", model="ranker", endpoints=[other.url])
        up = Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 8})
        assert lever.apply_to(ranker, up, other.url, key="g1:batch_size").changed
        assert (_size(server), _size(other)) == (4, 8)
        lever.apply(ranker, up, key="g2:batch_size")
        assert (_size(server), _size(other)) == (8, 8)
        lever.apply(ranker, up.inverse(), key="g3:batch_size")
        assert (_size(server), _size(other)) == (4, 4)
        refused = {"triton": Connection(name="triton", url=server.url, extra={"grpc": "127.0.0.1:9"})}
        with pytest.raises(ControlUnreachable, match="nobody listens"):
            Triton(FakeConnections(refused), time.monotonic, time.sleep).apply(
                service("batch_size", "triton", connection="triton", model="ranker"), up, key="g4:batch_size"
            )


def _size(server: TritonServer) -> int:
    return int(requests.get(f"{server.url}/v2/models/ranker/config", timeout=5).json()["max_batch_size"])


def _saved(folder: Path) -> Path:
    onnx.save(tiny().proto, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_version_that_triton_cannot_load_is_refused_and_the_old_one_serves(
    server: TritonServer, tmp_path: Path
) -> None:
    def broken(model, data, recipe, live):  # type: ignore[no-untyped-def]
        return judged(True, b"no model at all", source=model.digest, calibration=data.digest)

    lever = TritonRepository(connections(server), time.monotonic, time.sleep, make=broken)
    ranker = precision(server, tmp_path, max_accuracy_drop=0.5)
    now = lever.read(ranker).values
    change = Change(lever="precision", old=now, new={**now, "precision": "int8"})
    with Load(server.url) as load, pytest.raises(ControlRefused, match="INVALID_PROTOBUF"):
        lever.apply(ranker, change, key="p5:precision")
    assert load.failed == [] and lever.read(ranker).values == now


def test_an_unknown_model_is_named(server: TritonServer) -> None:
    lever = TritonRepository(connections(server), time.monotonic, time.sleep)
    other = service("precision", "triton_repository", connection="triton", model="nobody")
    with pytest.raises(ControlRefused, match="no version of nobody loaded"):
        lever.read(other)


def test_a_gate_that_refuses_moves_nothing(server: TritonServer, tmp_path: Path) -> None:
    lever = TritonRepository(connections(server), time.monotonic, time.sleep)
    ranker = precision(server, tmp_path)
    lever_options = {**ranker.levers["precision"].options, "min_speedup": 1000.0}
    strict = ranker.model_copy(
        update={"levers": {"precision": ranker.levers["precision"].model_copy(update={"options": lever_options})}}
    )
    now = lever.read(ranker).values
    with pytest.raises(QuantizationRefused, match="speed at batch"):
        lever.apply(strict, Change(lever="precision", old=now, new={**now, "precision": "int8"}), key="p6:precision")
    assert lever.read(ranker).values == now


def test_the_queries_and_the_checks_see_it(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    text = SERVICES.format(repository=server.repository)
    (tmp_path / "services.yaml").write_text(text)
    prometheus = Prometheus(tmp_path / "prometheus.log")
    prometheus.start()
    try:
        prometheus.targets([Target(server.metrics, "ranker", "0")])
        with Load(server.url):
            wait_until(
                lambda: prometheus.value('rate(nv_inference_request_success{model="ranker"}[10s]) > 0') is not None,
                40, "Triton's series in Prometheus")  # fmt: skip
            time.sleep(6)
            known = FakeConnections({
                "triton": Connection(name="triton", url=server.url),
                "slotune_prometheus": Connection(name="slotune_prometheus", url=prometheus.url),
            })  # fmt: skip
            results = live_check(loads(text), known)
            monkeypatch.setenv("SLOTUNE_CONN_TRITON", server.url)
            monkeypatch.setenv("SLOTUNE_CONN_SLOTUNE_PROMETHEUS", prometheus.url)
            monkeypatch.setenv("SLOTUNE_HOME", str(tmp_path / "home"))
            planned = CliRunner().invoke(
                build_app(["plan"]), ["plan", "--config", str(tmp_path / "services.yaml"), "--service", "ranker"]
            )
    finally:
        prometheus.stop()
    said = [result.text for result in results]
    assert all(result.ok for result in results), said
    # Triton 24.10 and older export no latency histogram: no P95, and nothing is passed off as one.
    assert any("has series for ranker" in line for line in said)
    assert any("batch_size 4" in line for line in said) and any("version 1" in line for line in said)
    assert planned.exit_code == 0, planned.output
    print("\n".join(said), planned.output, sep="\n")


def test_a_release_by_other_hands_is_seen_and_taken_back_under_load(server: TritonServer, tmp_path: Path) -> None:
    """Somebody loads version 2 by Triton's own call; the metrics tell, and the lever goes back without a lost request."""
    second = server.repository / "ranker/90"
    shutil.copytree(server.repository / "ranker/1", second)
    lever = TritonRelease(connections(server), time.monotonic, time.sleep)
    ranker = service("release", "triton_release", connection="triton", model="ranker")
    before = str(lever.read(ranker).values["version"])
    prometheus = Prometheus(tmp_path / "prometheus.log")
    prometheus.start()
    try:
        prometheus.targets([Target(server.metrics, "ranker", "0")])
        with Load(server.url) as load:
            wait_until(lambda: _served(prometheus) == before, 40, "the version in Prometheus")
            config = requests.get(f"{server.url}/v2/models/ranker/config", timeout=5).json()
            config["version_policy"] = {"specific": {"versions": [int(before), 90]}}
            loaded = requests.post(
                f"{server.url}/v2/repository/models/ranker/load", json={"parameters": {"config": json.dumps(config)}}, timeout=60
            )
            assert loaded.status_code == 200 and answered_by(server, "ranker") == "90"
            wait_until(lambda: _served(prometheus) == "90", 40, "the new version in Prometheus")
            back = Change(lever="release", old={"version": "90"}, new={"version": before})
            with pytest.raises(ControlRefused):
                lever.apply(ranker, back.model_copy(update={"new": {"version": "4711"}}), key="p0:release")
            assert answered_by(server, "ranker") == "90", "an unknown version changes nothing"
            receipt = lever.apply(ranker, back, key="p1:release")
            assert receipt.changed and answered_by(server, "ranker") == before
            assert not lever.apply(ranker, back, key="p1:release").changed
            wait_until(lambda: len(changes(_versions(prometheus))) >= 2, 40, "the old version in Prometheus")
            seen = changes(_versions(prometheus))
    finally:
        prometheus.stop()
        shutil.rmtree(second)
    assert load.failed == []
    assert [(one.old, one.new) for one in seen][-2:] == [(before, "90"), ("90", before)]


def _versions(prometheus: Prometheus) -> VersionWindow:
    found = loads(SERVICES.format(repository="/nowhere")).service_values()
    end_s = float(int(time.time()))
    source = PrometheusSource(prometheus.url, rate_window_s=5.0)
    windows = source.read_versions(found, Span(end_s - 60, end_s, 1.0))
    return windows.get("ranker") or VersionWindow("ranker", Span(end_s, end_s, 1.0), {})


def _served(prometheus: Prometheus) -> str:
    return served(_versions(prometheus))
