"""The preset `vllm` against a real vLLM (scripts/vllm-wheel builds one): what it exports is what its clients saw.

SLOTUNE_TEST_VLLM names the Python of vLLM's environment; default: .vllm/bin/python. About a minute on two cores.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.llm.vllm_service import Host, Server
from demo.open_loop import Control
from demo.processes import Child
from demo.prometheus import Prometheus, Target
from detection import presets
from detection.model import MetricWindow, Service, Slo, Span
from detection.sources.prometheus import PrometheusSource

PYTHON = Path(os.environ.get("SLOTUNE_TEST_VLLM") or Path(__file__).parents[2] / ".vllm/bin/python")
pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON.is_file(), reason="no vLLM here: scripts/vllm-wheel builds one"),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH"),
]
LIMIT, WINDOW_S = 2, 15.0
RATE, PROMPT, OUTPUT = 2.0, 60, 24
CHAT = Service(name="chat", serving="vllm", selectors={"model_name": "tiny"}, slo=Slo(ttft_p95_ms=500, itl_p95_ms=80))
SELDOM = {"preemptions_per_s", "rejected_per_s", "abort_rate", "prefix_hit_rate"}
"""Whose counters have nothing to count here: present at 0, or absent where there was nothing to share."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    host = Host(PYTHON, tmp_path_factory.mktemp("vllm"))
    try:
        yield host.start(LIMIT, 256, 24 * 2**20)
    finally:
        host.close()


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    one = Prometheus(tmp_path_factory.mktemp("prometheus") / "log")
    one.start()
    one.targets([Target(f"127.0.0.1:{server.port}", "chat", "a")])
    try:
        yield one
    finally:
        one.stop()


def read(prometheus: Prometheus) -> MetricWindow:
    now = float(int(time.time()))
    source = PrometheusSource(prometheus.url, rate_window_s=WINDOW_S, retries=5)
    return source.read([CHAT], tuple(presets.of(CHAT).signals), Span(now - 4, now, 1.0))["chat"]


@pytest.fixture(scope="module")
def loaded(
    server: Server, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MetricWindow, list[dict]]:
    """What the preset reads under load, and what the clients counted over the same time."""
    folder = tmp_path_factory.mktemp("load")
    control, out = folder / "control.json", folder / "load.jsonl"
    Control((f"127.0.0.1:{server.port}",), ((RATE, None),), 1, "tiny").write(control)
    load = Child("load", [sys.executable, "-m", "demo.language.load", "--control", control, "--out", out, "--prompt",
                          f"{PROMPT}", "--output", f"{OUTPUT}"], folder / "load.log", cwd=Path(__file__).parents[2])  # fmt: skip
    try:
        time.sleep(WINDOW_S + 12)
        window = read(prometheus)
    finally:
        load.stop()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return window, rows


def test_every_signal_of_the_preset_is_there(loaded):
    window, _ = loaded
    missing = {name for name in presets.of(CHAT).signals if window.last(name) is None}
    assert missing <= SELDOM, missing


def test_the_signals_say_what_the_clients_saw(loaded):
    window, rows = loaded
    recent = rows[-int(WINDOW_S) :]
    tokens = sum(row["tokens"] for row in recent) / len(recent)
    assert window.last("generation_tokens_per_s") == pytest.approx(tokens, rel=0.35)
    assert window.last("output_tokens") == pytest.approx(OUTPUT, rel=0.02)
    assert window.last("prompt_tokens") == pytest.approx(PROMPT, rel=0.02)
    assert 0.5 <= window.last("running") <= LIMIT
    assert window.last("error_rate") == 0.0
    assert window.last("arrivals_per_s") == pytest.approx(RATE, rel=0.6)
    assert window.last("ttft_ms") < window.last("e2e_ms")
    assert window.last("itl_ms") * OUTPUT < 2 * window.last("decode_ms")
    assert 0 < window.last("kv_usage") <= 1
    assert window.last("replicas") == 1


def test_an_iteration_is_the_time_between_two_tokens(loaded):
    """steps_per_s and itl_ms come from different metrics: an engine that never rests makes a token an iteration."""
    window, _ = loaded
    assert window.last("generation_tokens_per_s") / window.last("steps_per_s") == pytest.approx(
        window.last("running"), rel=0.5
    )


def test_clients_that_give_up_are_seen(server, prometheus):
    """vLLM counts them as HTTP 2xx and as no finished request."""
    body = json.dumps(
        {"model": "tiny", "prompt": [5] * 30, "max_tokens": 900, "ignore_eos": True, "stream": True}
    ).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    until = time.monotonic() + WINDOW_S + 5
    while time.monotonic() < until:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
            client.sendall(head.encode() + body)
            client.recv(4096)
            time.sleep(0.8)
    window = read(prometheus)
    assert window.last("unanswered_rate") > 0.5
    assert window.last("error_rate") == 0.0, "no failure by the HTTP server's count"


def test_the_buckets_of_its_histograms_end_where_the_preset_says(server: Server):
    names = {"ttft": "time_to_first_token", "itl": "inter_token_latency", "e2e": "e2e_request_latency"}
    for signal, metric in names.items():
        start = f"vllm:{metric}_seconds_bucket@"
        ends = {float(key.removeprefix(start)) for key in server.metrics() if key.startswith(start)}
        shown = tuple(1e3 * end for end in sorted(ends) if math.isfinite(end))
        assert presets.get("vllm").edges_ms[f"{signal}_p95_ms"] == pytest.approx(shown), signal
