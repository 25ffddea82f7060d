"""Text exporters of serving systems, with the names and labels that these systems use, whose counters grow with time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler

from tests.fakes.actuators import serving

Labels = Mapping[str, str]
PER_S = 40.0


class Page:
    """One scrape: counters are `PER_S` times the seconds since the exporter began, or that times a factor."""

    def __init__(self, age_s: float) -> None:
        self.lines: list[str] = []
        self._age_s = age_s

    def gauge(self, name: str, value: float, **labels: str) -> None:
        self.lines.append(f"{name}{_braces(labels)} {value:g}")

    def counter(self, name: str, factor: float = 1.0, **labels: str) -> None:
        self.gauge(name, PER_S * self._age_s * factor, **labels)

    def histogram(self, name: str, bounds: Sequence[float], typical: float, **labels: str) -> None:
        """Nine of ten below `typical`, all below twice of it."""
        total = PER_S * self._age_s
        for bound in (*bounds, float("inf")):
            part = 0.9 * bound / typical if bound <= typical else min(1.0, 0.9 + 0.1 * (bound / typical - 1))
            le = "+Inf" if bound == float("inf") else f"{bound:g}"
            self.gauge(f"{name}_bucket", total * part, **labels, le=le)
        self.gauge(f"{name}_sum", total * 0.5 * typical, **labels)
        self.gauge(f"{name}_count", total, **labels)


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
MILLIS = tuple(1000 * bound for bound in SECONDS)


def triton(page: Page) -> None:
    for model in ("ranker", "embedder"):
        key = {"model": model, "version": "1"}
        page.histogram("nv_inference_first_response_histogram_ms", MILLIS, 80, **key)
        for name, factor in {
            "request_success": 1, "count": 4, "exec_count": 1, "request_duration_us": 40e3, "queue_duration_us": 9e3,
            "compute_infer_duration_us": 20e3, "compute_input_duration_us": 1e3, "compute_output_duration_us": 1e3,
        }.items():  # fmt: skip
            page.counter(f"nv_inference_{name}", factor, **key)
        page.counter("nv_inference_request_failure", 0, **key, reason="OTHER")
        page.gauge("nv_inference_pending_request_count", 2, **key)
    page.gauge("nv_gpu_utilization", 0.6, gpu_uuid="GPU-1")
    page.gauge("nv_gpu_memory_used_bytes", 6e9, gpu_uuid="GPU-1")
    page.gauge("nv_gpu_memory_total_bytes", 16e9, gpu_uuid="GPU-1")


def vllm(page: Page, prefix: str = "vllm", model: str = "llama") -> None:
    key = {"model_name": model, "engine": "0"}
    for name in ("e2e_request_latency_seconds", "request_queue_time_seconds", "time_to_first_token_seconds"):
        page.histogram(f"{prefix}:{name}", (0.3, 0.5, 0.8, 1.0, 2.5), 0.8, **key)
    page.counter(f"{prefix}:request_success_total", **key, finished_reason="stop")
    for name, value in {"num_requests_running": 8, "num_requests_waiting": 1, "kv_cache_usage_perc": 0.4}.items():
        page.gauge(f"{prefix}:{name}", value, **key)
    page.counter("http_requests_total", handler="/v1/completions", method="POST", status="2xx")
    page.histogram("http_request_duration_seconds", SECONDS, 0.8, handler="/v1/completions", method="POST")


def prefixed_vllm(page: Page) -> None:
    vllm(page, "kserve_vllm", "mistral")


def torchserve(page: Page) -> None:
    key = {"model_name": "resnet", "model_version": "default", "hostname": "h"}
    for name, factor in {"inference_requests_total": 1, "inference_latency_microseconds": 30e3, "queue_latency_microseconds": 2e3}.items():
        page.counter(f"ts_{name}", factor, **key)


def kserve(page: Page) -> None:
    page.histogram("request_predict_seconds", SECONDS, 0.1, model_name="iris")


def ray_serve(page: Page) -> None:
    app = {"application": "chat"}
    key = {**app, "deployment": "Chat", "replica": "Chat#1"}
    page.histogram("ray_serve_http_request_latency_ms", MILLIS, 90, **app, route="/", method="POST", status_code="200")
    page.counter("ray_serve_num_http_requests_total", **app, route="/", method="POST", status_code="200")
    for name in ("actual_batch_size", "batch_execution_time_ms", "request_router_fulfillment_time_ms"):
        page.histogram(f"ray_serve_{name}", (1, 2, 4, 8, 16), 8, **key)
    page.histogram("ray_serve_batch_utilization_percent", (25, 50, 75, 100), 50, **key)
    page.gauge("ray_serve_deployment_queued_queries", 3, **app, deployment="Chat")
    page.gauge("ray_serve_replica_processing_queries", 2, **key)


def mlserver(page: Page) -> None:
    page.counter("model_infer_request_success_total", model="iris-sk", version="v1")
    page.counter("model_infer_request_failure_total", 0, model="iris-sk", version="v1")
    route = {"app_name": "mlserver", "method": "POST", "path": "/v2/models/{model_name}/infer", "status_code": "200"}
    page.histogram("rest_server_request_duration_seconds", SECONDS, 0.05, **route)
    page.histogram("batch_request_queue", (1, 2, 4, 8), 4)


def bentoml(page: Page) -> None:
    key = {"service_name": "Summary", "runner_name": "Summary", "endpoint": "/predict", "service_version": "x"}
    page.histogram("bentoml_service_request_duration_seconds", SECONDS, 0.2, **key, http_response_code="200")
    page.counter("bentoml_service_request_total", **key, http_response_code="200")
    page.gauge("bentoml_service_request_in_progress", 1, **key)
    page.histogram("bentoml_service_adaptive_batch_size", (1, 2, 4, 8), 4, **key)


def fastapi(page: Page) -> None:
    page.histogram("http_request_duration_seconds", SECONDS, 0.1, handler="/predict", method="POST")
    page.histogram("http_request_duration_highr_seconds", SECONDS, 0.1)
    page.counter("http_requests_total", handler="/predict", method="POST", status="2xx")


def bystander(page: Page) -> None:
    """What is no serving system, and must not be taken for one."""
    page.histogram("prometheus_http_request_duration_seconds", SECONDS, 0.1, handler="/metrics")
    page.histogram("http_client_request_duration_seconds", SECONDS, 0.1, host="db")
    page.gauge("up_since", 1)


EXPORTERS: dict[str, Callable[[Page], None]] = {
    "triton": triton, "vllm": vllm, "vllm-prefixed": prefixed_vllm, "torchserve": torchserve, "kserve": kserve, "ray": ray_serve,
    "mlserver": mlserver, "bentoml": bentoml, "fastapi": fastapi, "bystander": bystander,
}  # fmt: skip


@contextmanager
def running(exporters: Mapping[str, Callable[[Page], None]]) -> Iterator[dict[str, str]]:
    """Each exporter on a port of its own; yields host:port by name."""
    began_s = time.monotonic() - 100.0

    def answering(write: Callable[[Page], None]) -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            page = Page(time.monotonic() - began_s)
            write(page)
            data = ("\n".join(page.lines) + "\n").encode()
            handler.send_response(200)
            handler.send_header("Content-Type", "text/plain; version=0.0.4")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        return answer

    with ExitStack() as stack:
        yield {
            name: stack.enter_context(serving(answering(write))).removeprefix("http://")
            for name, write in exporters.items()
        }


def _braces(labels: Labels) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""
