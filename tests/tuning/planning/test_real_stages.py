"""The stages of a request on a real Triton: its own statistics are the truth that the preset's figures are held to.

A real Prometheus scrapes it; the loop's own sweep finds the broken SLO, and the mail says where the time goes.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import numpy as np
import pytest
import requests

from demo.prometheus import Prometheus, Target
from detection.sources.prometheus import PrometheusSource
from tests.fakes.actuators import FakeConnections
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails
from tests.triton_server import find_triton, triton_server
from tuning import actuators, planning, verification
from tuning.formats import ms
from tuning.loop import act, once, tell
from tuning.loop.parts import Parts
from tuning.model import Plan
from tuning.planning.stages import STAGES
from tuning.services_yaml import loads

BINARY = find_triton()
pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(240),
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
        time.sleep(0.004)
        return [pb.InferenceResponse([pb.Tensor("y", np.zeros((1, 250_000), np.float32))]) for _ in requests]
"""
CONFIG = """name: "ranker"
backend: "onnxruntime"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
"""
SUMMARIES = ("--metrics-config=summary_latencies=true", "--metrics-config=summary_quantiles=0.95:0.001")
SERVICES = """
prometheus: {rate_window: 2m, step: 1s}
detection: {lookback: 5m, detectors: [rules]}
planning: {recent: 3s}
mail: {to: [oncall@example.com]}
services:
  - name: ranker
    serving: triton
    selectors: {model: ranker}
    slo: {p95: 1ms, for: 2s}
    levers:
      batch_size: {actuator: triton, connection: triton, min: 1, max: 8}
"""
TOLD_BY_TRITON = {
    "queue": "queue",
    "pre-processing": "compute_input",
    "compute": "compute_infer",
    "post-processing": "compute_output",
}
REQUESTS, WIDTH = 30, 1_000_000
"""Rows of 4 MB, so that what Triton does with an input before the model can be measured beside the model's 4 ms."""


@dataclass(frozen=True)
class Seen:
    """truth: mean ms of each stage by Triton's own statistics; plan and text: what the loop made of the metrics."""

    truth: dict[str, float]
    plan: Plan
    text: str


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    assert BINARY is not None
    root = tmp_path_factory.mktemp("triton")
    (root / "repository/ranker/1").mkdir(parents=True)
    (root / "repository/ranker/1/model.onnx").write_text("the backend needs none")
    (root / "repository/ranker/config.pbtxt").write_text(CONFIG)
    prometheus = Prometheus(root / "prometheus.log")
    with triton_server(BINARY, root, root / "repository", more=SUMMARIES, backend=BACKEND) as server:
        prometheus.start()
        try:
            prometheus.targets([Target(server.metrics, "triton", "0")])
            time.sleep(8.0)  # counters are seen at 0 before they move: the window then holds all requests
            for _ in range(REQUESTS):
                ask(server.url)
            time.sleep(8.0)
            stats = requests.get(f"{server.url}/v2/models/ranker/stats", timeout=10).json()["model_stats"][0]
            plan, text = swept(prometheus.url, server.url)
        finally:
            prometheus.stop()
    told = {name: stats["inference_stats"][theirs] for name, theirs in TOLD_BY_TRITON.items()}
    return Seen({name: one["ns"] / one["count"] / 1e6 for name, one in told.items()}, plan, text)


def ask(url: str) -> None:
    rows = np.zeros(WIDTH, np.float32).tobytes()
    tensor = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": len(rows)}}
    output = {"name": "y", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    answer = requests.post(
        f"{url}/v2/models/ranker/infer",
        data=head + rows,
        headers={"Inference-Header-Content-Length": str(len(head))},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text[:500]


def swept(prometheus_url: str, triton_url: str) -> tuple[Plan, str]:
    """What one sweep of the loop decides, and the mail about it."""
    settings, mails = loads(SERVICES), KeptMails()
    lever = actuators.get("triton")(FakeConnections({"triton": triton_url}), time.time, time.sleep)
    parts = Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=PrometheusSource(prometheus_url, rate_window_s=settings.prometheus.rate_window_s),
        actuator=lambda _service, _lever: lever,
        planner=planning.get("model")(settings.planning),
        verifier=verification.get("before_after")(settings.verification),
        ledger=FakeLedger(),
        notifiers=[mails],
    )
    (request,) = once.sweep(parts, time.time(), alive=lambda _run: True)
    plan = act.choose_action(parts, request.incident, time.time(), attempt=request.attempt)
    act.hold(parts, plan, time.time())
    tell.email_report(parts, plan, time.time())
    return plan, mails.mails[-1].text


def test_each_stage_takes_what_triton_itself_says(seen: Seen) -> None:
    told = dict(seen.plan.diagnosis.stages)
    assert list(told) == list(STAGES)
    assert told == pytest.approx(seen.truth, rel=0.02, abs=0.01)
    assert told["compute"] >= 4.0 and told["pre-processing"] > 0.0 and told["post-processing"] > 0.0


def test_the_mail_says_where_the_time_goes(seen: Seen) -> None:
    words = " ".join(seen.text.split())
    assert "A request takes " in words
    for stage in STAGES:
        assert f"{stage} {ms(dict(seen.plan.diagnosis.stages)[stage])}" in words, words
