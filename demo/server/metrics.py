"""What the server exports. Children of labels are resolved once, because the request path touches them thousands of
times a second. Durations in seconds (Prometheus' convention)."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4


def log_buckets(low_s: float, high_s: float, count: int) -> tuple[float, ...]:
    """`count` bounds from low_s to high_s, evenly spaced in the logarithm: a quantile is off by one ratio at most."""
    ratio = (high_s / low_s) ** (1 / (count - 1))
    return tuple(float(f"{low_s * ratio**i:.4g}") for i in range(count))


SECONDS = log_buckets(0.001, 30.0, 40)
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


class Metrics:
    """All series of one server process, in a registry of its own."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.registry = registry = CollectorRegistry()
        self._versions: dict[tuple[str, str], VersionMetrics] = {}
        self._codes: dict[int, Counter] = {}
        one: dict[str, Any] = {"labelnames": ["model"], "registry": registry}
        self.request_seconds = Histogram(
            "inference_request_duration_seconds", "From the request's arrival to its answer",
            ["model", "version"], buckets=SECONDS, registry=registry)  # fmt: skip
        self.queue_seconds = Histogram(
            "inference_queue_duration_seconds", "From arrival to the start of the batch", buckets=SECONDS, **one
        ).labels(model)
        self.batch_rows = Histogram("inference_batch_rows", "Rows in a batch", buckets=ROWS, **one).labels(model)
        batch = ["model", "version", "precision"]
        self.batch_seconds = Histogram(
            "inference_batch_duration_seconds", "Computing one batch", batch, buckets=SECONDS, registry=registry
        )
        sized = [*batch, "batch_size"]
        self.batches = Counter("inference_batches", "Batches by rows in them", sized, registry=registry)
        self.batch_sum = Counter("inference_batch_seconds", "Seconds in batches of this size", sized, registry=registry)
        self.batch_square = Counter("inference_batch_seconds_squared", "Their squares", sized, registry=registry)
        self._requests = Counter("inference_requests", "Answers by code", ["model", "code"], registry=registry)
        self.load_attempts = Counter("inference_load_attempts", "Loads of a version", **one).labels(model)
        self.load_failures = Counter("inference_load_failures", "Loads that failed", **one).labels(model)
        gap = "inference_interarrival_seconds"
        self.interarrival_sum = Gauge(f"{gap}_sum", "Seconds between arrivals", **one).labels(model)
        self.interarrival_square = Gauge(f"{gap}_squared_sum", "Their squares", **one).labels(model)
        self.interarrival_count = Gauge(f"{gap}_count", "How many", **one).labels(model)
        self.shadow = Counter("inference_shadow", "Rows also run through the reference", **one).labels(model)
        self.shadow_agree = Counter("inference_shadow_agree", "Of these: same argmax", **one).labels(model)
        self.busy = Counter("inference_busy_seconds", "Seconds spent computing", **one).labels(model)
        self.queue_depth = Gauge("inference_queue_depth", "Requests that wait", **one).labels(model)
        self.batch_limit = Gauge("inference_batch_size_limit", "Configured largest batch", **one).labels(model)
        self.batch_timeout = Gauge("inference_batch_timeout_seconds", "Configured wait", **one).labels(model)
        self.memory_limit = Gauge("inference_memory_limit_bytes", "Memory that it may use", registry=registry)
        ProcessCollector(registry=registry)
        self.info = Gauge("inference_model_info", "1 for what serves", batch, registry=registry)
        self.emulated = Gauge("inference_emulated", "1: waits instead of computing", **one).labels(model)

    def answered(self, code: int) -> None:
        child = self._codes.get(code)
        if child is None:
            child = self._codes[code] = self._requests.labels(self.model, str(code))
        child.inc()

    def of(self, version: str, precision: str) -> VersionMetrics:
        key = (version, precision)
        if key not in self._versions:
            self._versions[key] = VersionMetrics(self, version, precision)
        return self._versions[key]

    def serve(self, version: str, precision: str) -> None:
        """Say which version answers now."""
        self.info.clear()
        self.info.labels(self.model, version, precision).set(1)

    def text(self) -> tuple[bytes, str]:
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4


class VersionMetrics:
    """The children of one version."""

    def __init__(self, parent: Metrics, version: str, precision: str) -> None:
        self._parent, self._labels = parent, (parent.model, version, precision)
        self.request_seconds = parent.request_seconds.labels(parent.model, version)
        self._batch_seconds = parent.batch_seconds.labels(*self._labels)
        self._sizes: dict[int, tuple[Counter, Counter, Counter]] = {}

    def batch(self, rows: int, seconds: float) -> None:
        children = self._sizes.get(rows)
        if children is None:
            p, labels = self._parent, (*self._labels, str(rows))
            children = self._sizes[rows] = (
                p.batches.labels(*labels), p.batch_sum.labels(*labels), p.batch_square.labels(*labels))  # fmt: skip
        count, total, square = children
        count.inc()
        total.inc(seconds)
        square.inc(seconds * seconds)
        self._batch_seconds.observe(seconds)
        self._parent.batch_rows.observe(rows)
        self._parent.busy.inc(seconds)
