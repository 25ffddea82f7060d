"""INT8 on the real server: swapped and swapped back under constant load without losing a request; both scenarios."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import models, story, web
from demo.open_loop import Control
from demo.processes import LOOPBACK, Child, free_port, wait_until
from tests.demo.test_demo_scenarios import demo
from tests.fakes.actuators import FakeConnections, service
from tuning.actuators.model_repository import ModelRepository
from tuning.model import Change
from tuning.quantization.artefacts import Quantiser
from tuning.quantization.calibration import load_calibration
from tuning.quantization.onnx_model import load_model
from tuning.quantization.repository import Manifest, Repository

SHAPE = models.Shape(width=1024, layers=2, train_rows=300)
RATE = 60.0
MODEL = "ranker"
TO_INT8 = Change(lever="precision", old={"version": "1", "precision": "fp32"}, new={"precision": "int8"})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 in FP32, version 2 its real INT8."""
    folder = tmp_path_factory.mktemp("int8")
    source = models.cached(folder, SHAPE)
    root = models.repository(folder / "repository", source)
    model = load_model(source)
    rows = load_calibration(models.calibration(folder / "rows.npz", rows=128, seed=5, now_s=0.0), model)
    with Quantiser(model, rows, "ort") as quantiser:
        made = quantiser.make()
    manifest = Manifest(
        model=MODEL, precision="int8", file="model.onnx", digest=made.digest, source_digest=made.source_digest
    )
    assert Repository(root, MODEL).publish(made.data, manifest).number == 2
    return root


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[str]:
    address = f"{LOOPBACK}:{free_port()}"
    child = Child("server", [
        sys.executable, "-m", "demo.server", "--port", address.rsplit(":", 1)[1], "--version", "1",
        "--model-repository", repository], tmp_path / "server.log", env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wait_until(lambda: child.alive and web.answers(f"http://{address}/v2/health/ready"), 60.0, "the server")
    yield address
    child.stop()


@pytest.fixture
def load(server: str, tmp_path: Path) -> Iterator[tuple[Child, story.LoadLog]]:
    control, out = tmp_path / "control.json", tmp_path / "load.jsonl"
    Control((server,), ((RATE, None),), 1, MODEL).write(control)
    child = Child("load", [
        sys.executable, "-m", "demo.load", "--control", control, "--out", out], tmp_path / "load.log",
    )  # fmt: skip
    log = story.LoadLog(out)
    wait_until(lambda: sum(s.ok for s in log.read()) > RATE, 30.0, "the first answers")
    yield child, log
    child.stop()


@pytest.mark.server
@pytest.mark.timeout(180)
def test_swap_and_forced_roll_back_under_constant_load_lose_no_request(
    repository: Path, server: str, load: tuple[Child, story.LoadLog]
):
    generator, log = load
    ranker = service("precision", "model_repository", connection="control", model=MODEL, repository=str(repository))
    lever = ModelRepository(FakeConnections({"control": f"http://{server}"}), time.time, time.sleep)
    forth = TO_INT8.model_copy(update={"new": {"version": "2", "precision": "int8"}})
    for turn in range(3):
        there = lever.apply(ranker, forth, key=f"there-{turn}")
        assert (there.changed, there.after) == (True, {"version": "2", "precision": "int8"})
        _one_more_second(log)
        back = lever.apply(ranker, forth.inverse(), key=f"back-{turn}")
        assert (back.changed, back.after) == (True, {"version": "1", "precision": "fp32"})
        assert back.took_s < 2.0
        _one_more_second(log)
    generator.check()
    generator.stop()
    seconds = log.read()
    sent = sum(s.sent for s in seconds)
    assert sent > 5 * RATE
    assert sum(s.errors for s in seconds) == 0
    assert web.call(f"http://{server}/config")["version"] == "1"
    assert _answers_by_code(server) == {"200"}


def _one_more_second(log: story.LoadLog) -> None:
    """Until the load generator has written one more line with answers in it."""
    lines = len(log.read())
    wait_until(lambda: sum(s.ok for s in log.read()[lines + 1 :]) > 0, 30.0, "answers after the swap")


def _answers_by_code(address: str) -> set[str]:
    """The server's own witness: codes of the answers that it gave."""
    import urllib.request

    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("inference_requests_total{")]
    return {line.split('code="')[1].split('"')[0] for line in lines}


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_int8_resolves_what_fp32_cannot_carry_and_no_request_fails(tmp_path: Path):
    code, summary, _ = demo(tmp_path, "int8")
    assert (code, summary["resolved"], summary["failed_requests"]) == (0, True, 0)
    (made,) = summary["actions"]
    assert (made["lever"], made["undo"], made["to"]["precision"]) == ("precision", False, "int8")
    assert summary["settings_after"]["precision"] == "int8"
    assert summary["p95_ms"]["after"] < summary["slo_ms"] < summary["p95_ms"]["during"]
    mail = Path(summary["mails"][-1]["html"]).read_text()
    for words in ("agreement with FP32", "accuracy drop", "speed at batch 1", "shadowed answers agree"):
        assert words in mail


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_calibration_data_from_elsewhere_are_refused_and_nothing_is_swapped(tmp_path: Path):
    code, summary, _ = demo(tmp_path, "int8-bad")
    assert (code, summary["ok"], summary["actions"], summary["resolved"]) == (0, True, [], False)
    assert (summary["failed_requests"], summary["settings_after"]["precision"]) == (0, "fp32")
    assert summary["refusals"][0]["lever"] == "precision"
    assert "agreement with FP32" in summary["refusals"][0]["reason"]
    mail = Path(summary["mails"][-1]["html"]).read_text()
    for words in ("agreement with FP32", "FAILED", "look different"):
        assert words in mail
    assert not list((tmp_path / "home" / "run" / "models" / "ranker").glob("2"))
