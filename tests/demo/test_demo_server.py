"""The real server process, over HTTP, with a small real model."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from demo import models, web
from demo.processes import Child, free_port, wait_until
from demo.server.protocol import HEADER_LENGTH, decode_answer, encode_request

pytestmark = pytest.mark.server
SHAPE = models.Shape(width=64, layers=1, train_rows=300)


def start(tmp_path: Path, *options: str) -> tuple[Child, str]:
    port = free_port()
    command = [sys.executable, "-m", "demo.server", "--port", str(port), *options]
    child = Child("server", command, tmp_path / "server.log")
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        child.check()
        return web.answers(f"{url}/v2/health/ready")

    wait_until(ready, 30.0, "the server becoming ready")
    return child, url


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for version, seed in (("1", 7), ("2", 8)):
        model = models.cached(folder / "cache", models.Shape(width=64, layers=1, train_rows=300, seed=seed))
        made = models.repository(folder / f"of{version}", model)
        target = folder / "repository" / "ranker" / version
        target.parent.mkdir(parents=True, exist_ok=True)
        (made / "ranker" / "1").rename(target)
    (folder / "repository" / "ranker" / "2" / "manifest.json").write_text('{"precision": "int8"}')
    broken = folder / "repository" / "ranker" / "3"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(b"not a model")
    return folder / "repository"


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    child, url = start(tmp_path_factory.mktemp("server"), "--model-repository", str(repository), "--version", "1")
    yield url
    child.stop()


def infer(url: str, rows: np.ndarray) -> np.ndarray:
    body, length = encode_request(models.INPUT, rows)
    answer = requests.post(f"{url}/v2/models/ranker/infer", body, headers={HEADER_LENGTH: str(length)}, timeout=10)
    assert answer.status_code == 200, answer.text
    return decode_answer(answer.content, answer.headers[HEADER_LENGTH])


def test_binary_and_json_give_what_onnx_runtime_gives(server: str, repository: Path):
    import onnxruntime as ort

    rows, _ = models.sample(5, seed=3, shape=SHAPE)
    session = ort.InferenceSession(str(repository / "ranker" / "1" / "model.onnx"))
    expected = session.run(None, {models.INPUT: rows})[0]
    assert np.allclose(infer(server, rows), expected, atol=1e-5)
    tensor = {"name": "features", "datatype": "FP32", "shape": [5, 64], "data": rows.tolist()}
    answer = requests.post(f"{server}/v2/models/ranker/infer", json={"id": "a", "inputs": [tensor]}, timeout=10).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a", "ranker", "1")
    assert np.allclose(np.array(answer["outputs"][0]["data"]).reshape(5, 10), expected, atol=1e-5)


def test_health_and_metadata(server: str):
    assert web.call(f"{server}/v2/health/live") == {"live": True}
    assert web.call(f"{server}/v2/models/ranker/ready") == {"ready": True}
    assert web.call(f"{server}/v2")["emulated"] is False
    metadata = web.call(f"{server}/v2/models/ranker")
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 64]}]
    assert (metadata["served_version"], metadata["emulated"]) == ("1", False)


@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        ("/v2/models/ranker/infer", b"\xff\x00garbage", 400, "not JSON"),
        ("/v2/models/ranker/infer", b'{"inputs": [{"name": "y"}]}', 400, "unknown input 'y'"),
        ("/config", b'{"batch_size": 0}', 400, "batch_size"),
        ("/config", b'{"batch_size": 1.5}', 400, "batch_size"),
        ("/config", b'{"batch_size": true}', 400, "batch_size"),
        ("/config", b'{"batch_size": 4, "batch_timeout_ms": -1}', 400, "batch_timeout_ms"),
        ("/config", b'{"batch_timeout_ms": NaN}', 400, "batch_timeout_ms"),
        ("/config", b'{"batchsize": 4}', 400, "unknown key 'batchsize'"),
        ("/config", b"[1]", 400, "JSON object"),
        ("/fault", b'{"error_share": 2}', 400, "error_share"),
        ("/shadow", b'{"reference": "9", "share": 1}', 400, "'9' is not loaded"),
        ("/v2/repository/models/ranker/load", b'{"version": "9"}', 400, "no version '9'"),
        ("/v2/repository/models/ranker/load", b'{"version": "3"}', 400, "cannot load"),
        ("/v2/repository/models/ranker/unload", b'{"version": "1"}', 409, "serves"),
        ("/v2/models/other/infer", b"{}", 404, "there is no POST"),
    ],
)
def test_bad_calls_get_a_sentence_and_change_nothing(server: str, path: str, body: bytes, code: int, says: str):
    before = web.call(f"{server}/config")
    answer = requests.post(server + path, body, timeout=10)
    assert answer.status_code == code
    assert says in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert web.call(f"{server}/config") == before


def test_config_answers_what_is_in_force(server: str):
    set_to = web.call(f"{server}/config", {"batch_size": 8, "batch_timeout_ms": 2.5})
    assert (set_to["batch_size"], set_to["batch_timeout_ms"]) == (8, 2.5)
    again = web.call(f"{server}/config", {"batch_timeout_ms": 0})
    assert (again["batch_size"], again["batch_timeout_ms"]) == (8, 0.0)
    assert 'inference_batch_size_limit{model="ranker"} 8.0' in web.call(f"{server}/metrics")
    web.call(f"{server}/config", {"batch_size": 1})


def test_versions_change_under_load_without_a_failed_request_and_back_within_2_s(server: str):
    rows, _ = models.sample(1, seed=4, shape=SHAPE)
    stop, failures = threading.Event(), []

    def hammer() -> None:
        while not stop.is_set():
            try:
                infer(server, rows)
            except Exception as failure:
                failures.append(failure)

    clients = [threading.Thread(target=hammer) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        first = infer(server, rows)
        loaded = web.call(f"{server}/v2/repository/models/ranker/load", {"version": "2"})
        assert (loaded["version"], loaded["precision"], loaded["loaded"]) == ("2", "int8", ["1", "2"])
        assert not np.allclose(infer(server, rows), first), "another model answers"
        started = time.monotonic()
        web.call(f"{server}/v2/repository/models/ranker/load", {"version": "1"})
        assert np.allclose(infer(server, rows), first, atol=1e-5)
        assert time.monotonic() - started < 2.0
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert failures == []
    web.call(f"{server}/shadow", {"reference": "2", "share": 1.0})
    infer(server, np.repeat(rows, 20, 0))
    infer(server, rows)
    text = web.call(f"{server}/metrics")
    assert 'inference_shadow_total{model="ranker"} 2' in text
    web.call(f"{server}/shadow", {"share": 0})
    index = {v["version"]: v["state"] for v in web.call(f"{server}/v2/repository/index")}
    assert index == {"1": "READY", "2": "READY", "3": "UNAVAILABLE"}
    assert web.call(f"{server}/v2/repository/models/ranker/unload", {"version": "2"}) == {"loaded": ["1"]}


def test_faults_and_recorded_inputs(server: str):
    rows, _ = models.sample(3, seed=5, shape=SHAPE)
    infer(server, rows)
    with urllib.request.urlopen(f"{server}/recorded-inputs", timeout=10) as answer:
        kept = np.load(io.BytesIO(answer.read()))
    assert kept["features"].shape[1] == 64
    assert len(kept["features"]) == min(int(kept["seen"]), 1024)
    assert any(np.array_equal(row, rows[0]) for row in kept["features"])
    web.call(f"{server}/fault", {"error_share": 1.0})
    try:
        with pytest.raises(AssertionError, match="fault"):
            infer(server, rows)
    finally:
        web.call(f"{server}/fault", {"error_share": 0.0})
    assert infer(server, rows).shape == (3, 10)


def test_emulation_takes_the_time_it_says_and_says_that_it_is_one(tmp_path: Path):
    child, url = start(tmp_path, "--emulated", "--alpha-ms", "100", "--beta-ms", "10", "--batch-size", "4")
    try:
        rows = np.zeros((4, 64), np.float32)
        started = time.monotonic()
        infer(url, rows)
        assert 0.135 < time.monotonic() - started < 0.4
        assert web.call(f"{url}/v2/models/ranker")["emulated"] is True
        assert 'inference_emulated{model="ranker"} 1.0' in web.call(f"{url}/metrics")
        with pytest.raises(urllib.error.HTTPError):
            web.call(f"{url}/shadow", {"reference": "1", "share": 1.0})
    finally:
        child.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_cleanly_and_frees_its_port(tmp_path: Path, number: signal.Signals):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.server", "--port", str(port), "--emulated", "--alpha-ms", "200"],
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: web.answers(f"http://127.0.0.1:{port}/v2/health/ready"), 20.0, "ready")
    answers: list[int] = []
    body, length = encode_request(models.INPUT, np.zeros((1, 64), np.float32))
    client = threading.Thread(
        target=lambda: answers.append(
            requests.post(
                f"http://127.0.0.1:{port}/v2/models/ranker/infer", body, headers={HEADER_LENGTH: str(length)}, timeout=5
            ).status_code
        )
    )
    client.start()
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(10) == 0
    client.join()
    assert answers == [200], "what was under way is answered"
    assert process.stderr.read() == b""
    second = start(tmp_path, "--emulated")[0]
    second.stop()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model-repository", "nowhere"], "no version"),
        ([], "--model-repository"),
        (["--emulated", "--batch-size", "0"], "--batch-size"),
        (["--emulated", "--cpu", "4095"], "no core 4095"),
    ],
)
def test_wrong_options_end_with_a_sentence(options: list[str], says: str):
    command = [sys.executable, "-m", "demo.server", "--port", str(free_port()), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_taken_port_ends_with_a_sentence(server: str):
    port = server.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "demo.server", "--port", port, "--emulated"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_load_generator_counts_queueing_and_follows_its_control_file(tmp_path: Path):
    """Emulated, 20 ms a request: 40/s is calm, 80/s is beyond it, and latency then grows although each request is
    served in 20 ms: that is what an open loop shows."""
    from demo.open_loop import Control
    from demo.story import LoadLog, p95_ms

    child, url = start(tmp_path, "--emulated", "--alpha-ms", "19", "--beta-ms", "1")
    endpoint = url.removeprefix("http://")
    Control((endpoint,), ((20.0, None),), 1).write(tmp_path / "control.json")
    files = ["--control", tmp_path / "control.json", "--out", tmp_path / "out.jsonl"]
    command = [sys.executable, "-m", "demo.load", *files]
    load = Child("load", command, tmp_path / "load.log")
    log = LoadLog(tmp_path / "out.jsonl")
    try:
        wait_until(lambda: len(log.read()) >= 4, 15.0, "four seconds of load")
        calm = p95_ms(log.seconds, log.seconds[1].t, log.seconds[-1].t)
        Control((endpoint,), ((100.0, None),), 2).write(tmp_path / "control.json")
        changed = log.seconds[-1].t
        wait_until(lambda: log.read()[-1].t > changed + 5, 15.0, "five seconds more")
        assert load.alive
        late = p95_ms(log.seconds, changed + 3, log.seconds[-1].t)
        after = [s for s in log.seconds if s.t > changed + 1]
        # over the rows' own times: on a busy machine a row covers more than a second
        rate = sum(s.sent for s in after[1:]) / (after[-1].t - after[0].t)
        assert rate == pytest.approx(100, abs=30)
        assert sum(s.errors for s in log.seconds) == 0
        assert calm < 300
        assert late > 800
        child.stop()
        ended = log.read()[-1].t
        wait_until(lambda: log.read()[-1].t > ended + 2, 15.0, "two seconds without a server")
        assert sum(s.errors for s in log.seconds) > 0
        assert load.alive
    finally:
        load.stop()
        child.stop()
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["rate"] == 20.0
