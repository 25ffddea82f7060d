"""INT8 into a real server under constant load and back: no request fails, and the way back takes milliseconds."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from demo import models
from demo.processes import free_port, wait_until
from detection.model import Service
from tests.fakes.actuators import FakeConnections, service
from tuning.actuators.model_repository import ModelRepository
from tuning.model import Change
from tuning.quantization.gates import GateRefused
from tuning.quantization.likeness import wilson

pytestmark = pytest.mark.server

SHAPE = models.Shape(width=1024, train_rows=768)


class Load:
    """Clients in a closed loop; every answer that is not 200 is a failure, with its words."""

    def __init__(self, url: str, clients: int = 3) -> None:
        self.url, self.ok, self.failed = f"{url}/v2/models/ranker/infer", 0, list[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        rows, _ = models.sample(64, seed=1000 + seed, shape=SHAPE)
        session, turn = requests.Session(), 0
        while not self._stop.is_set():
            row = rows[turn % len(rows)]
            turn += 1
            tensor = {"name": models.INPUT, "shape": [1, len(row)], "datatype": "FP32", "data": row.tolist()}
            try:
                answer = session.post(self.url, json={"inputs": [tensor]}, timeout=20)
                if answer.status_code == 200:
                    self.ok += 1
                else:
                    self.failed.append(f"{answer.status_code} {answer.text[:100]}")
            except requests.RequestException as error:
                self.failed.append(repr(error))
            self._stop.wait(0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.cached(tmp_path_factory.mktemp("models"), SHAPE)


@pytest.fixture
def server(tmp_path: Path, model: Path) -> Iterator[str]:
    port = free_port()
    repository = models.repository(tmp_path / "repository", model)
    command = [sys.executable, "-m", "demo.server", "--port", str(port), "--model", "ranker"]
    process = subprocess.Popen([*command, "--model-repository", str(repository)])
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return requests.get(f"{url}/v2/health/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    try:
        wait_until(ready, 30, "the server's start")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def ranker(tmp_path: Path, model: Path, scale: float) -> Service:
    rows, _ = models.sample(512, seed=5, shape=SHAPE)
    noise = np.random.default_rng(0).standard_normal(rows.shape)
    np.savez(tmp_path / "rows.npz", **{models.INPUT: rows if scale == 1 else (noise * scale).astype(np.float32)})
    return service(
        "precision",
        "model_repository",
        connection="server",
        onnx=str(model),
        calibration=str(tmp_path / "rows.npz"),
        repository=str(tmp_path / "repository"),
        min_speedup=0.2,  # the neighbours of this test are not its subject
    )


def metric(url: str, name: str) -> float:
    lines = requests.get(f"{url}/metrics", timeout=5).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


def test_swap_and_forced_roll_back_under_load(server: str, tmp_path: Path, model: Path) -> None:
    actuator = ModelRepository(FakeConnections({"server": server}), time.monotonic, time.sleep)
    tuned = ranker(tmp_path, model, 1)
    with Load(server) as load:
        wait_until(lambda: load.ok > 150, 30, "some traffic")
        now = actuator.read(tuned).values
        change = Change(lever="precision", old=now, new={**now, "precision": "int8"})
        receipt = actuator.apply(tuned, change, key="p1:precision")
        assert receipt.after == {"version": "2", "precision": "int8"}
        assert receipt.evidence["judged_on"] == "recorded live inputs"
        wait_until(lambda: metric(server, "inference_shadow_total") >= 10, 60, "shadowed requests")
        total, agree = metric(server, "inference_shadow_total"), metric(server, "inference_shadow_agree_total")
        assert wilson(int(agree), int(total)).high >= 0.9
        started_s = time.monotonic()
        back = actuator.apply(tuned, change.inverse(), key="p2:precision")
        assert time.monotonic() - started_s < 2.0
        assert back.after == now
        before = load.ok
        wait_until(lambda: load.ok > before + 20, 30, "traffic on the old version")
    assert load.failed == []


def test_rows_from_another_distribution_are_refused_and_nothing_moves(server: str, tmp_path: Path, model: Path) -> None:
    actuator = ModelRepository(FakeConnections({"server": server}), time.monotonic, time.sleep)
    tuned = ranker(tmp_path, model, 0.02)
    with Load(server) as load:
        wait_until(lambda: load.ok > 150, 30, "some traffic")
        now = actuator.read(tuned).values
        change = Change(lever="precision", old=now, new={**now, "precision": "int8"})
        with pytest.raises(GateRefused, match="the calibration data look different") as caught:
            actuator.apply(tuned, change, key="p1:precision")
        assert caught.value.evidence["passed"] is False
        assert actuator.read(tuned).values == now
    assert load.failed == []
    assert [p.name for p in (tmp_path / "repository" / "ranker").iterdir() if p.name.isdigit()] == ["1"]
