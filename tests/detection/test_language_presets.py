"""The presets of language model servers, asked of a real Prometheus that scrapes pages written as those servers write
them: names, labels, units and bounds of the releases that each preset names. The figures behind them are by hand."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import numpy as np
import pytest

from detection import presets
from detection.model import MetricWindow, Service, Slo, Span
from detection.sources.prometheus import PrometheusSource
from tests.prometheus_pages import scraped

RATE = 20.0
"""Requests a second, each of 100 prompt tokens and 40 of an answer; one in ten is cut off at its length."""
TTFT_S, ITL_S, E2E_S, QUEUE_S = 0.3, 0.03, 1.5, 0.2
BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
TOKENS = (10, 50, 200, 1000)
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH"),
]


def histogram(name: str, count: float, value: float, labels: str, bounds: tuple[float, ...] = BOUNDS_S) -> str:
    inner = f"{labels}," if labels else ""
    lines = [f'{name}_bucket{{{inner}le="{bound}"}} {count if value <= bound else 0:.3f}' for bound in bounds]
    lines.append(f'{name}_bucket{{{inner}le="+Inf"}} {count:.3f}')
    return "\n".join([*lines, f"{name}_count{{{labels}}} {count:.3f}", f"{name}_sum{{{labels}}} {count * value:.6f}"])


def vllm(n: float, prefix: str = "vllm", itl: str = "inter_token_latency_seconds", kv: str = "kv_cache_usage_perc") -> str:
    m = 'model_name="m",engine="0"'
    ended = f"{prefix}:request_success_total"
    return f"""{histogram(f"{prefix}:time_to_first_token_seconds", n, TTFT_S, m)}
{histogram(f"{prefix}:{itl}", 39 * n, ITL_S, m)}
{histogram(f"{prefix}:e2e_request_latency_seconds", n, E2E_S, m)}
{histogram(f"{prefix}:request_queue_time_seconds", n, QUEUE_S, m)}
{histogram(f"{prefix}:request_prefill_time_seconds", n, 0.1, m)}
{histogram(f"{prefix}:request_decode_time_seconds", n, 1.2, m)}
{histogram(f"{prefix}:request_prompt_tokens", n, 100, m, TOKENS)}
{histogram(f"{prefix}:request_generation_tokens", n, 40, m, TOKENS)}
{histogram(f"{prefix}:iteration_tokens_total", 30 * n / RATE, 50, m, TOKENS)}
{ended}{{{m},finished_reason="stop"}} {0.9 * n}
{ended}{{{m},finished_reason="length"}} {0.1 * n}
{prefix}:prompt_tokens_total{{{m}}} {100 * n}
{prefix}:generation_tokens_total{{{m}}} {40 * n}
{prefix}:prefix_cache_queries_total{{{m}}} {100 * n}
{prefix}:prefix_cache_hits_total{{{m}}} {25 * n}
{prefix}:num_preemptions_total{{{m}}} {0.01 * n}
{prefix}:admission_rejections_total{{model_name="m",reason="max_num_queued_reqs"}} {0.05 * n}
{prefix}:num_requests_running{{{m}}} 26
{prefix}:num_requests_waiting{{{m}}} 7
{prefix}:{kv}{{{m}}} 0.4
http_requests_total{{handler="/v1/completions",method="POST",status="2xx"}} {1.25 * n}
http_requests_total{{handler="/v1/completions",method="POST",status="5xx"}} {0.05 * n}
http_requests_total{{handler="/health",method="GET",status="2xx"}} {50 * n}"""


def two_engines(n: float) -> str:
    """Data parallel ranks of one server: the same page twice, under another engine's number."""
    one = vllm(n)
    other = "\n".join(line.replace('engine="0"', 'engine="1"') for line in one.splitlines() if 'engine="0"' in line)
    return f"{one}\n{other}"


def sglang(n: float) -> str:
    m = 'model_name="m"'
    return f"""{histogram("sglang:time_to_first_token_seconds", n, TTFT_S, m)}
{histogram("sglang:inter_token_latency_seconds", 39 * n, ITL_S, m)}
{histogram("sglang:e2e_request_latency_seconds", n, E2E_S, m)}
{histogram("sglang:queue_time_seconds", n, QUEUE_S, m)}
{histogram("sglang:prompt_tokens_histogram", n, 100, m, TOKENS)}
{histogram("sglang:generation_tokens_histogram", n, 40, m, TOKENS)}
sglang:num_requests_total{{{m}}} {n}
sglang:num_aborted_requests_total{{{m}}} {0.1 * n}
sglang:prompt_tokens_total{{{m}}} {100 * n}
sglang:cached_tokens_total{{{m}}} {25 * n}
sglang:generation_tokens_total{{{m}}} {40 * n}
sglang:num_retracted_requests_total{{{m}}} {0.01 * n}
sglang:num_running_reqs{{{m}}} 26
sglang:num_queue_reqs{{{m}}} 7
sglang:token_usage{{{m}}} 0.4"""


def tgi(n: float) -> str:
    return f"""{histogram("tgi_request_duration", n, E2E_S, "")}
{histogram("tgi_request_queue_duration", n, QUEUE_S, "")}
{histogram("tgi_request_mean_time_per_token_duration", n, ITL_S, "")}
{histogram("tgi_request_input_length", n, 100, "", TOKENS)}
{histogram("tgi_request_generated_tokens", n, 40, "", TOKENS)}
{histogram("tgi_batch_inference_duration", n, 0.1, 'method="prefill"')}
{histogram("tgi_batch_inference_duration", 30 * n / RATE, 0.03, 'method="decode"')}
tgi_request_success {0.9 * n}
tgi_request_failure{{err="generation"}} {0.1 * n}
tgi_request_count {n}
tgi_queue_size 7
tgi_batch_current_size 26"""


def trtllm(n: float) -> str:
    m = 'model_name="m",engine_type="trtllm"'
    return f"""{histogram("trtllm_time_to_first_token_seconds", n, TTFT_S, m)}
{histogram("trtllm_time_per_output_token_seconds", n, ITL_S, m)}
{histogram("trtllm_e2e_request_latency_seconds", n, E2E_S, m)}
{histogram("trtllm_request_queue_time_seconds", n, QUEUE_S, m)}
trtllm_request_success_total{{{m},finished_reason="stop"}} {0.9 * n}
trtllm_request_success_total{{{m},finished_reason="length"}} {0.1 * n}
trtllm_num_requests_running{{{m}}} 26
trtllm_num_requests_waiting{{{m}}} 7
trtllm_kv_cache_hit_rate{{{m}}} 0.25
trtllm_kv_cache_utilization{{{m}}} 0.4"""


def triton_trtllm(n: float) -> str:
    m = 'model="m",version="1"'
    first = histogram("nv_inference_first_response_histogram_ms", 0.9 * n, 1e3 * TTFT_S, m, (100, 250, 500, 2000))
    return f"""{first}
nv_inference_request_success{{{m}}} {0.9 * n}
nv_inference_request_failure{{{m},reason="OTHER"}} {0.1 * n}
nv_inference_queue_duration_us{{{m}}} {0.9 * n * QUEUE_S * 1e6}
nv_trt_llm_request_metrics{{{m},request_type="waiting"}} 7
nv_trt_llm_request_metrics{{{m},request_type="scheduled"}} 26
nv_trt_llm_request_metrics{{{m},request_type="max"}} 512
nv_trt_llm_kv_cache_block_metrics{{{m},kv_cache_block_type="fraction"}} 0.4
nv_trt_llm_kv_cache_block_metrics{{{m},kv_cache_block_type="max"}} 6239"""


def llamacpp(n: float) -> str:
    return f"""llamacpp:prompt_tokens_total {100 * n}
llamacpp:tokens_predicted_total {40 * n}
llamacpp:tokens_predicted_seconds_total {40 * n * ITL_S}
llamacpp:n_decode_total {30 * n / RATE}
llamacpp:requests_processing 26
llamacpp:requests_deferred 7"""


def dynamo(n: float) -> str:
    m = 'model="m"'
    done = f'{m},endpoint="chat_completions",request_type="stream"'
    return f"""{histogram("dynamo_frontend_time_to_first_token_seconds", n, TTFT_S, m)}
{histogram("dynamo_frontend_inter_token_latency_seconds", 39 * n, ITL_S, m)}
{histogram("dynamo_frontend_request_duration_seconds", n, E2E_S, m)}
{histogram("dynamo_frontend_input_sequence_tokens", n, 100, m, TOKENS)}
{histogram("dynamo_frontend_output_sequence_tokens", n, 40, m, TOKENS)}
dynamo_frontend_requests_total{{{done},status="success"}} {0.9 * n}
dynamo_frontend_requests_total{{{done},status="error"}} {0.1 * n}
dynamo_frontend_inflight_requests{{{m}}} 26
dynamo_frontend_queued_requests{{{m}}} 7"""


OLD = {"itl": "time_per_output_token_seconds", "kv": "gpu_cache_usage_perc"}
SERVERS = {
    "vllm": ("vllm", vllm, {}),
    "vllm_old": ("vllm", lambda n: vllm(n, **OLD), {}),
    "vllm_kserve": ("vllm", lambda n: vllm(n, prefix="kserve_vllm"), {"metric.prefix": "kserve_vllm"}),
    "vllm_ranks": ("vllm", two_engines, {}),
    "sglang": ("sglang", sglang, {}),
    "tgi": ("tgi", tgi, {}),
    "tensorrt_llm": ("tensorrt_llm", trtllm, {}),
    "tensorrt_llm_triton": ("tensorrt_llm", triton_trtllm, {}),
    "llamacpp": ("llamacpp", llamacpp, {}),
    "dynamo": ("dynamo", dynamo, {}),
}


def near(value: float, share: float = 0.12) -> tuple[float, float]:
    return value * (1 - share), value * (1 + share)


FIRST = {"ttft_ms": near(300, 0.01), "ttft_p95_ms": (250.0, 500.0)}
TOKEN = {"itl_ms": near(30, 0.01), "itl_p95_ms": (25.0, 50.0)}
WHOLE = {"e2e_ms": near(1500, 0.01), "e2e_p95_ms": (1000.0, 2500.0), "p95_ms": (1000.0, 2500.0), "mean_ms": near(1500, 0.01)}
MIX = {"prompt_tokens": near(100, 0.01), "output_tokens": near(40, 0.01), "output_tokens_p95": (10.0, 50.0)}
FLOW = {"prompt_tokens_per_s": near(2000), "generation_tokens_per_s": near(800)}
STATE = {"running": (26.0, 26.0), "queue_depth": (7.0, 7.0), "replicas": (1.0, 1.0)}
VLLM = {
    **FIRST, **TOKEN, **WHOLE, **MIX, **FLOW, **STATE, "qps": near(20), "arrivals_per_s": near(20), "queue_ms": near(200, 0.01),
    "prefill_ms": near(100, 0.01), "decode_ms": near(1200, 0.01), "kv_usage": (0.4, 0.4), "prefix_hit_rate": near(0.25, 0.02),
    "preemptions_per_s": near(0.2), "steps_per_s": near(30), "step_tokens": near(50, 0.01), "length_rate": near(0.1, 0.02),
    "abort_rate": (0.0, 0.0), "error_rate": near(0.05 / 1.3, 0.02), "unanswered_rate": near(0.2, 0.02), "rejected_per_s": near(1),
}  # fmt: skip
TWICE = {"qps", "arrivals_per_s", "prompt_tokens_per_s", "generation_tokens_per_s", "preemptions_per_s", "steps_per_s"}
EXPECTED: dict[str, dict[str, tuple[float, float]]] = {
    "vllm": VLLM,
    "vllm_old": VLLM,
    "vllm_kserve": VLLM,
    "vllm_ranks": {
        **{name: (2 * low, 2 * high) if name in TWICE else (low, high) for name, (low, high) in VLLM.items()},
        "queue_depth": (14.0, 14.0), "unanswered_rate": (0.0, 0.0),
    },
    "sglang": {
        **FIRST, **TOKEN, **WHOLE, **MIX, **FLOW, **STATE, "qps": near(20), "arrivals_per_s": near(20), "queue_ms": near(200, 0.01),
        "kv_usage": (0.4, 0.4), "prefix_hit_rate": near(0.25, 0.02), "preemptions_per_s": near(0.2), "abort_rate": near(0.1, 0.02)},
    "tgi": {
        **TOKEN, **WHOLE, **MIX, **FLOW, **STATE, "qps": near(18), "arrivals_per_s": near(20), "error_rate": near(0.1, 0.02),
        "queue_ms": near(200, 0.01), "prefill_ms": near(100, 0.01)},
    "tensorrt_llm": {
        **FIRST, **TOKEN, **WHOLE, **STATE, "qps": near(20), "queue_ms": near(200, 0.01), "kv_usage": (0.4, 0.4),
        "prefix_hit_rate": (0.25, 0.25), "length_rate": near(0.1, 0.02)},
    "tensorrt_llm_triton": {
        **FIRST, **STATE, "qps": near(18), "error_rate": near(0.1, 0.02), "queue_ms": near(200, 0.01), "kv_usage": (0.4, 0.4)},
    "llamacpp": {**FLOW, **STATE, "itl_ms": near(30, 0.01), "steps_per_s": near(30)},
    "dynamo": {
        **FIRST, **TOKEN, **WHOLE, **MIX, **FLOW, **STATE, "qps": near(20), "error_rate": near(0.1, 0.02), "arrivals_per_s": near(20)},
}  # fmt: skip


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, MetricWindow]]:
    pages = {name: lambda s, server=server: server[1](RATE * s) for name, server in SERVERS.items()}
    with scraped(tmp_path_factory.mktemp("language"), pages) as url:
        yield _read(url)


def _read(url: str) -> dict[str, MetricWindow]:
    """All services' windows, once all have a rate over a full window of 10 s."""
    services = [
        Service(name=name, serving=preset, selectors={"job": name}, slo=Slo(ttft_p95_ms=500), labels=labels)
        for name, (preset, _, labels) in SERVERS.items()
    ]
    signals = tuple(dict.fromkeys(signal for expected in EXPECTED.values() for signal in expected))
    source, until = PrometheusSource(url, rate_window_s=10, retries=5), time.monotonic() + 90
    found: dict[str, MetricWindow] = {}
    while time.monotonic() < until:
        time.sleep(2)
        now = float(int(time.time()))
        found = dict(source.read(services, signals, Span(now - 4, now, 1.0)))
        rates = [found[name].values.get("generation_tokens_per_s", found[name].values.get("qps")) for name in found]
        if len(found) == len(SERVERS) and all(rate is not None and np.isfinite(rate).all() for rate in rates):
            break
    time.sleep(7)
    now = float(int(time.time()))
    return dict(source.read(services, signals, Span(now - 4, now, 1.0)))


@pytest.mark.parametrize("name", SERVERS)
def test_the_signals_say_what_the_server_did(name: str, windows: dict[str, MetricWindow]) -> None:
    window = windows[name]
    wrong = {}
    for signal, (low, high) in EXPECTED[name].items():
        last = window.last(signal)
        if last is None or not low - 1e-9 <= last <= high + 1e-9:
            wrong[signal] = (last, low, high)
    assert wrong == {}


@pytest.mark.parametrize("name", SERVERS)
def test_every_signal_of_the_preset_is_expected_or_was_not_written(name: str, windows: dict[str, MetricWindow]) -> None:
    """What a preset reads and this table forgot would be a signal that nobody has ever seen."""
    shown = {signal for signal in windows[name].values if windows[name].last(signal) is not None}
    also = {"p50_ms", "p99_ms", "rows_per_batch", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms", "e2e_p50_ms",
            "e2e_p99_ms", "prompt_tokens_p95"}  # fmt: skip
    assert shown - also <= set(EXPECTED[name]) | {"steps_per_s", "error_rate", "abort_rate", "unanswered_rate"}


def test_a_server_without_a_first_token_promises_none() -> None:
    assert "ttft_p95_ms" not in presets.get("tgi").signals and "p95_ms" not in presets.get("llamacpp").signals
