"""Any HTTP service with a Prometheus histogram of request durations in seconds; every name can be overridden.

`Service.labels` overrides names as `metric.<name>`, e.g. {"metric.duration": "my_latency_seconds"}: `duration` is the
histogram without its _bucket ending, `requests` the counter with a `code`, `status` or `status_code` label, and the GPU
names are those of dcgm-exporter. A metric that a service does not export gives no signal, which is fine.
"""

from __future__ import annotations

from detection.presets._preset import (
    Preset,
    increases,
    instances,
    mean_ms,
    native_histogram,
    quantile_ms,
    ratio,
    total_rate,
)

_ALL = total_rate("$(requests)")
_FAILED = " or ".join(
    (
        total_rate("$(requests)", 'code=~"5.."'),
        total_rate("$(requests)", 'status=~"5.."'),
        total_rate("$(requests)", 'status_code=~"5.."'),
        f"0 * {_ALL}",
    )
)

PRESET = Preset(
    versions="any",
    replica_label="instance",
    presence="$(duration)_count{$sel}",
    name="generic_histogram",
    title="any service with a Prometheus histogram",
    signals={
        "p50_ms": quantile_ms(0.5, "$(duration)_bucket"),
        "p95_ms": quantile_ms(0.95, "$(duration)_bucket"),
        "p99_ms": quantile_ms(0.99, "$(duration)_bucket"),
        "mean_ms": mean_ms("$(duration)"),
        "qps": total_rate("$(duration)_count"),
        "error_rate": ratio(_FAILED, _ALL),
        "queue_ms": mean_ms("$(queue_duration)"),
        "queue_depth": "sum by ($by) ($(queue_depth){$sel})",
        "gpu_util": "avg by ($by) ($(gpu_util){$sel}) / 100",
        "gpu_memory": (
            "sum by ($by) ($(gpu_memory_used){$sel}) / "
            "(sum by ($by) ($(gpu_memory_used){$sel}) + sum by ($by) ($(gpu_memory_free){$sel}))"
        ),
        "replicas": instances("$(duration)_count{$sel}"),
    },
    buckets=increases("$(duration)_bucket"),
    native=native_histogram("$(duration)"),
    names={
        "duration": "http_request_duration_seconds",
        "requests": "http_requests_total",
        "queue_duration": "http_request_queue_duration_seconds",
        "queue_depth": "http_requests_in_queue",
        "gpu_util": "DCGM_FI_DEV_GPU_UTIL",
        "gpu_memory_used": "DCGM_FI_DEV_FB_USED",
        "gpu_memory_free": "DCGM_FI_DEV_FB_FREE",
    },
)
