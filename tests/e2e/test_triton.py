"""The loop against a real Triton: an overload is found, its batch size raised, P95 verified from Triton's own summaries."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import requests

from demo import models
from demo.mailbox import Mailbox
from demo.open_loop import Control
from demo.plain_loop import PlainLoop
from demo.processes import Child, wait_until
from demo.prometheus import Prometheus, Target
from tests.triton_server import find_triton, triton_server

BINARY = find_triton()
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.server,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        BINARY is None, reason="no Triton (scripts/triton-wheel), or no libpython for its Python backend"
    ),
]
BACKEND = """
import time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(request, "features").as_numpy() for request in requests]
        time.sleep(0.020 + 0.001 * sum(len(part) for part in rows))
        return [pb.InferenceResponse([pb.Tensor("y", np.zeros((len(part), 1), np.float32))]) for part in rows]
"""
CONFIG = """name: "ranker"
backend: "onnxruntime"
max_batch_size: 1
input [ {{ name: "features" data_type: TYPE_FP32 dims: [ {width} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
"""
SUMMARIES = [
    "--metrics-config=summary_latencies=true",
    "--metrics-config=summary_quantiles=0.5:0.05,0.95:0.001,0.99:0.001",
]
SERVICES = """
prometheus: {rate_window: 10s, step: 1s}
mail: {to: [oncall@slotune.example], sender: slotune@slotune.example, connection: smtp_default}
planning: {recent: 15s, verify_window: 20s}
verification:
  {rate_window: 10s, settle_min: 10s, look: 20s, longer_look: 20s, min_points: 4, min_requests: 50,
   min_requests_per_point: 20}
services:
  - name: ranker
    serving: triton
    selectors: {model: ranker}
    mode: act
    slo: {p95: 120ms, for: 10s, error_rate: 2%}
    levers:
      batch_size: {actuator: triton, connection: triton, min: 1, max: 32, effect_delay: 10s}
"""


def test_an_overload_is_cured_by_batches_proven_and_mailed(tmp_path: Path) -> None:
    """20 ms a batch and 1 ms a row: 48 requests a second one by one, several hundred in batches. 15/s, then 80/s."""
    assert BINARY is not None
    (tmp_path / "repository/ranker/1").mkdir(parents=True)
    (tmp_path / "repository/ranker/1/model.onnx").write_text("the backend needs none")
    width = models.sample(1, seed=1)[0].shape[1]
    (tmp_path / "repository/ranker/config.pbtxt").write_text(CONFIG.format(width=width))
    (tmp_path / "services.yaml").write_text(SERVICES)
    prometheus, mailbox = Prometheus(tmp_path / "prometheus.log"), Mailbox(tmp_path / "mail")
    with triton_server(BINARY, tmp_path, tmp_path / "repository", more=SUMMARIES, backend=BACKEND) as server:
        Control((server.url.removeprefix("http://"),), ((15.0, 60.0), (80.0, None)), 1).write(tmp_path / "control.json")
        prometheus.start()
        mailbox.start()
        smtp = {"disable_ssl": True, "disable_tls": True, "from_email": "slotune@slotune.example"}
        loop = PlainLoop(ROOT, tmp_path / "loop.log", {
            "PYTHONPATH": str(ROOT),
            "SLOTUNE_CONFIG": str(tmp_path / "services.yaml"),
            "SLOTUNE_HOME": str(tmp_path / "home"),
            "SLOTUNE_CONN_SLOTUNE_PROMETHEUS": prometheus.url,
            "SLOTUNE_CONN_TRITON": server.url,
            "SLOTUNE_CONN_SMTP_DEFAULT": json.dumps(
                {"conn_type": "smtp", "host": "127.0.0.1", "port": mailbox.port, "extra": smtp}),
        })  # fmt: skip
        files: list[str | Path] = ["--control", tmp_path / "control.json", "--out", tmp_path / "load.jsonl"]
        load = Child("load", [sys.executable, "-m", "demo.load", *files], tmp_path / "load.log", cwd=ROOT)
        try:
            prometheus.targets([Target(server.metrics, "ranker", "0")])
            time.sleep(15)
            loop.start()
            wait_until(lambda: loop.check() or bool(mailbox.mails), 400, "a mail")
            config = requests.get(f"{server.url}/v2/models/ranker/config", timeout=5).json()
            last = json.loads((tmp_path / "load.jsonl").read_text().splitlines()[-2])
        finally:
            load.stop()
            loop.stop()
            mailbox.stop()
            prometheus.stop()
    (mail,) = mailbox.mails
    assert mail.subject.startswith("[slotune] Resolved: ranker: batch size 1 "), mail.subject
    assert config["max_batch_size"] >= 4
    assert last["rate"] == 80.0 and last["p95_ms"] < 120
    assert loop.task_failures() == []
    print(mail.subject, last)
