"""Every preset's queries, asked of a real Prometheus that scrapes what such a serving system exports.

Each server answers RATE requests a second, all of them in LATENCY_MS, one in ten of them with an error; what the
signals have to say about that is written below, by hand.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import numpy as np
import pytest

from detection import presets
from detection.errors import ConfigError
from detection.model import MetricWindow, Service, Slo, Span
from detection.signals import SIGNALS
from detection.sources.prometheus import PrometheusSource
from tests.prometheus_pages import scraped

RATE, LATENCY_MS, QUEUE_MS, ROWS = 50.0, 80.0, 30.0, 5.0
BOUNDS_MS = (25, 50, 75, 100, 200, 500)


def histogram(name: str, count: float, value: float, unit_ms: float, labels: str) -> str:
    """Cumulative buckets of `count` observations of `value` ms; unit_ms: 1000 for seconds."""
    lines = [
        f'{name}_bucket{{{labels},le="{bound / unit_ms:g}"}} {count if value <= bound else 0:.3f}'
        for bound in BOUNDS_MS
    ]
    lines += [f'{name}_bucket{{{labels},le="+Inf"}} {count:.3f}', f"{name}_count{{{labels}}} {count:.3f}"]
    return "\n".join([*lines, f"{name}_sum{{{labels}}} {count * value / unit_ms:.6f}"])


def rows(name: str, batches: float, labels: str) -> str:
    return f"{name}_sum{{{labels}}} {batches * ROWS:.3f}\n{name}_count{{{labels}}} {batches:.3f}"


def triton(n: float, quantiles: str) -> str:
    m = 'model="m",version="1"'
    return f"""nv_inference_request_success{{{m}}} {0.9 * n}
nv_inference_request_failure{{{m},reason="OTHER"}} {0.1 * n}
nv_inference_count{{{m}}} {n}
nv_inference_exec_count{{{m}}} {n / ROWS}
nv_inference_request_duration_us{{{m}}} {0.9 * n * LATENCY_MS * 1e3}
nv_inference_queue_duration_us{{{m}}} {0.9 * n * QUEUE_MS * 1e3}
nv_inference_compute_infer_duration_us{{{m}}} {0.9 * n * 40e3}
nv_inference_pending_request_count{{{m}}} 7
nv_gpu_utilization{{gpu_uuid="GPU-1"}} 0.5
nv_gpu_utilization{{gpu_uuid="GPU-2"}} 0.7
nv_gpu_memory_used_bytes{{gpu_uuid="GPU-1"}} 6e9
nv_gpu_memory_total_bytes{{gpu_uuid="GPU-1"}} 8e9
{quantiles}"""


def triton_summary(n: float) -> str:
    m = 'model="m",version="1"'
    quantiles = "\n".join(
        f'nv_inference_request_summary_us{{{m},quantile="{q}"}} {LATENCY_MS * 1e3}' for q in ("0.5", "0.95", "0.99")
    )
    return triton(n, quantiles)


def triton_histogram(n: float) -> str:
    return triton(
        n, histogram("nv_inference_first_response_histogram_ms", 0.9 * n, LATENCY_MS, 1.0, 'model="m",version="1"')
    )


def triton_both(n: float) -> str:
    return "\n".join([triton_histogram(n), *(line for line in triton_summary(n).splitlines() if "summary" in line)])


def vllm(n: float) -> str:
    m = 'model_name="m",engine="0"'
    return f"""{histogram("vllm:e2e_request_latency_seconds", n, LATENCY_MS, 1e3, m)}
{histogram("vllm:request_queue_time_seconds", n, QUEUE_MS, 1e3, m)}
vllm:request_success_total{{{m},finished_reason="stop"}} {0.9 * n}
vllm:request_success_total{{{m},finished_reason="length"}} {0.1 * n}
vllm:num_requests_running{{{m}}} {ROWS}
vllm:num_requests_waiting{{{m}}} 7
vllm:kv_cache_usage_perc{{{m}}} 0.4
http_requests_total{{handler="/v1/completions",method="POST",status="2xx"}} {0.9 * n}
http_requests_total{{handler="/v1/completions",method="POST",status="5xx"}} {0.1 * n}"""


def torchserve(n: float) -> str:
    m = 'model_name="m",model_version="default",hostname="h"'
    return f"""ts_inference_requests_total{{{m}}} {n}
ts_inference_latency_microseconds{{{m}}} {n * LATENCY_MS * 1e3}
ts_queue_latency_microseconds{{{m}}} {n * QUEUE_MS * 1e3}"""


def kserve(n: float) -> str:
    return f"""{histogram("request_predict_seconds", n, LATENCY_MS, 1e3, 'model_name="m"')}
revision_app_request_count{{configuration_name="m",response_code_class="2xx"}} {0.9 * n}
revision_app_request_count{{configuration_name="m",response_code_class="5xx"}} {0.1 * n}
revision_queue_depth{{configuration_name="m"}} 7"""


def ray_serve(n: float) -> str:
    a, r = 'application="m"', 'application="m",deployment="d",replica="r1"'
    return f"""{histogram("ray_serve_http_request_latency_ms", n, LATENCY_MS, 1.0, a)}
{histogram("ray_serve_request_router_fulfillment_time_ms", n, QUEUE_MS, 1.0, a)}
{rows("ray_serve_actual_batch_size", n / ROWS, r)}
ray_serve_num_http_requests_total{{{a},status_code="200"}} {0.9 * n}
ray_serve_num_http_requests_total{{{a},status_code="500"}} {0.1 * n}
ray_serve_deployment_queued_queries{{{a}}} 7
ray_serve_replica_processing_queries{{{r}}} 3"""


def mlserver(n: float) -> str:
    route = 'app_name="x",method="POST",path="/v2/models/{model_name}/infer",status_code="200"'
    other = 'app_name="x",method="GET",path="/v2/health/ready",status_code="200"'
    return f"""{histogram("rest_server_request_duration_seconds", n, LATENCY_MS, 1e3, route)}
{histogram("rest_server_request_duration_seconds", 9 * n, 1.0, 1e3, other)}
model_infer_request_success_total{{model="m",version="1"}} {0.9 * n}
model_infer_request_failure_total{{model="m",version="1"}} {0.1 * n}"""


def bentoml(n: float) -> str:
    e = 'service_name="m",endpoint="/predict",service_version="1",runner_name=""'
    return f"""{histogram("bentoml_service_request_duration_seconds", n, LATENCY_MS, 1e3, e)}
{rows("bentoml_service_adaptive_batch_size", n / ROWS, e)}
bentoml_service_request_total{{{e},http_response_code="200"}} {0.9 * n}
bentoml_service_request_total{{{e},http_response_code="500"}} {0.1 * n}
bentoml_service_request_in_progress{{{e}}} 7"""


def own(n: float) -> str:
    """A service of one's own: durations in ms and us, and names that only it has."""
    r = 'route="/score"'
    return f"""{histogram("score_latency_ms", n, LATENCY_MS, 1.0, r)}
score_wait_us_sum{{{r}}} {n * QUEUE_MS * 1e3}
score_wait_us_count{{{r}}} {n}
score_batch_ms_sum {n / ROWS * 40}
score_batch_ms_count {n / ROWS}
{rows("score_rows", n / ROWS, r)}
score_requests_total{{{r},status="200"}} {0.9 * n}
score_requests_total{{{r},status="503"}} {0.1 * n}
score_in_flight 12
score_batch_limit 5
score_agreement{{shadow="b"}} 0.97
score_busy 0.4"""


OWN = {
    "metric.duration": "score_latency_ms", "unit.duration": "ms", "metric.queue_duration": "score_wait_us",
    "unit.queue_duration": "us", "metric.batch_duration": "score_batch_ms", "unit.batch_duration": "ms",
    "metric.batch_rows": "score_rows", "metric.requests": "score_requests_total", "metric.in_flight": "score_in_flight",
    "metric.batch_limit": "score_batch_limit", "metric.busy": "score_busy",
}  # fmt: skip
SERVERS = {
    "own": ("generic_histogram", own),
    "triton_summary": ("triton", triton_summary),
    "triton_histogram": ("triton", triton_histogram),
    "triton_both": ("triton", triton_both),
    "vllm": ("vllm", vllm),
    "torchserve": ("torchserve", torchserve),
    "kserve": ("kserve", kserve),
    "ray_serve": ("ray_serve", ray_serve),
    "mlserver": ("mlserver", mlserver),
    "bentoml": ("bentoml", bentoml),
}
P95 = (75.0, 100.0)
"""A histogram places 80 ms somewhere between its bounds."""
LATENCY, QUEUE, ERRORS, WAITING, BATCH = (79.0, 81.0), (29.5, 30.5), (0.099, 0.101), (7.0, 7.0), (4.99, 5.01)
QPS = (45.0, 55.0)
COMMON = {"mean_ms": LATENCY, "qps": QPS, "error_rate": ERRORS, "replicas": (1.0, 1.0)}
EXPECTED: dict[str, dict[str, tuple[float, float]]] = {
    "triton_summary": {
        "p95_ms": LATENCY, "mean_ms": LATENCY, "qps": (40.0, 50.0), "error_rate": ERRORS, "queue_ms": QUEUE,
        "queue_depth": WAITING, "rows_per_batch": BATCH, "batch_ms": (39.5, 40.5), "busy": (0.36, 0.44),
        "gpu_util": (0.599, 0.601), "gpu_memory": (0.749, 0.751)},
    "vllm": {**COMMON, "p95_ms": P95, "queue_ms": QUEUE, "queue_depth": WAITING, "rows_per_batch": BATCH, "kv_usage": (0.4, 0.4)},
    "torchserve": {"mean_ms": LATENCY, "qps": QPS, "queue_ms": QUEUE, "replicas": (1.0, 1.0)},
    "kserve": {**COMMON, "p95_ms": P95, "queue_depth": WAITING},
    "ray_serve": {**COMMON, "p95_ms": P95, "queue_ms": QUEUE, "queue_depth": WAITING, "rows_per_batch": BATCH},
    "mlserver": {**COMMON, "p95_ms": P95},
    "own": {
        **COMMON, "p95_ms": P95, "queue_ms": QUEUE, "queue_depth": WAITING, "rows_per_batch": BATCH, "batch_ms": (39.5, 40.5),
        "busy": (0.4, 0.4), "accuracy": (0.97, 0.97), "batch_size": (5.0, 5.0)},
    "bentoml": {"p95_ms": P95, "mean_ms": LATENCY, "qps": QPS, "error_rate": ERRORS, "rows_per_batch": BATCH, "replicas": (1.0, 1.0)},
}  # fmt: skip
EXPECTED["triton_both"] = EXPECTED["triton_summary"]
EXPECTED["triton_histogram"] = {**EXPECTED["triton_summary"], "p95_ms": P95}
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH"),
]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, MetricWindow]]:
    pages = {name: lambda s, server=server: server[1](RATE * s) for name, server in SERVERS.items()}
    with scraped(tmp_path_factory.mktemp("presets"), pages, {"triton_two": "triton_summary"}) as url:
        found = _read(url)
        both = Service(name="triton_two", serving="triton", selectors={"job": "triton_two"}, slo=Slo(p95_ms=100))
        signals, now = list(presets.get("triton").signals), float(int(time.time()))
        source, span = PrometheusSource(url, rate_window_s=10, retries=5), Span(now - 4, now, 1.0)
        found |= source.read([both], signals, span)
        found |= {
            f"one of two: {label.partition(':')[0]}": one
            for label, one in source.read_replicas([both], signals, span)["triton_two"].items()
        }
        yield found


def _read(url: str) -> dict[str, MetricWindow]:
    """All services' windows, once the last of them has a rate over a full window of 10 s."""
    services = [
        Service(
            name=name, serving=preset, selectors={"job": name}, slo=Slo(p95_ms=100), labels=OWN if name == "own" else {},
            queries={"accuracy": "avg by ($by) (score_agreement{$sel})"} if name == "own" else {},
        )
        for name, (preset, _) in SERVERS.items()
    ]
    signals = tuple(SIGNALS)
    source = PrometheusSource(url, rate_window_s=10, retries=5)
    until = time.monotonic() + 60
    while True:
        time.sleep(2)
        now = float(int(time.time()))
        found = dict(source.read(services, signals, Span(now - 4, now, 1.0)))
        rates = [found[name].values.get("qps", np.array([np.nan])) for name in SERVERS if name in found]
        if (len(rates) == len(SERVERS) and all(np.isfinite(rate).all() for rate in rates)) or time.monotonic() > until:
            time.sleep(6)
            now = float(int(time.time()))
            return dict(source.read(services, signals, Span(now - 4, now, 1.0)))


@pytest.mark.parametrize("name", SERVERS)
def test_the_signals_say_what_the_server_did(name: str, windows: dict[str, MetricWindow]) -> None:
    window = windows[name]
    for signal, (low, high) in EXPECTED[name].items():
        last = window.last(signal)
        assert last is not None, f"{signal} is absent"
        assert low <= last <= high, f"{signal}: {last}"


def test_what_replicas_share_is_not_added_up(windows: dict[str, MetricWindow]) -> None:
    one, both = EXPECTED["triton_summary"], windows["triton_two"]
    for signal in ("p95_ms", "batch_ms", "busy", "gpu_util", "gpu_memory"):
        for window in (both, windows["one of two: localhost"], windows["one of two: 127.0.0.1"]):
            last = window.last(signal)
            assert last is not None, f"{signal} is absent"
            assert one[signal][0] <= last <= one[signal][1], f"{signal}: {last}"
    qps = both.last("qps")
    assert qps is not None and 80 <= qps <= 100


def test_a_percentile_says_where_it_comes_from(windows: dict[str, MetricWindow]) -> None:
    assert windows["triton_summary"].percentile_source == "summary"
    assert windows["triton_histogram"].percentile_source == "histogram"
    assert windows["triton_both"].percentile_source == "summary", "its default buckets cannot tell 5 ms from 95 ms"
    assert windows["torchserve"].percentile_source == "none", "a mean is never passed off as a percentile"
    assert "p95_ms" not in windows["torchserve"].values


def test_a_gap_in_one_source_is_filled_from_the_other() -> None:
    from detection.sources.prometheus import _filled

    assert _filled(np.array([1.0, np.nan]), np.array([5.0, 6.0])).tolist() == [1.0, 6.0]


def test_every_preset_is_tried() -> None:
    tried = {preset for preset, _ in SERVERS.values()}
    elsewhere = {"slotune_demo", "training"}  # tests/demo, test_training.py
    elsewhere |= {"dynamo", "llamacpp", "sglang", "tensorrt_llm", "tgi"}  # test_language_presets.py
    assert tried | elsewhere == set(presets.REGISTRY)


def test_the_bounds_of_a_histogram_are_in_ms_whatever_its_unit(windows: dict[str, MetricWindow]) -> None:
    assert windows["own"].bounds_ms == windows["kserve"].bounds_ms == tuple(map(float, BOUNDS_MS))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"unit.duration": "sec"}, "'sec' is no unit of a duration (label 'unit.duration'): write s, ms, us"),
        ({"unit.rows": "ms"}, "has no duration 'rows' with a unit; it has: batch_duration, duration, queue_duration"),
    ],
)
def test_a_wrong_unit_is_a_sentence(labels: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        presets.get("generic_histogram").resolved(labels)
    assert words in str(caught.value)
