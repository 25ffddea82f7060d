"""Any HTTP service with a Prometheus histogram of request durations; every name and unit can be overridden.

`Service.labels` overrides names as `metric.<name>`, e.g. {"metric.duration": "my_latency_seconds"}: `duration` is the
histogram without its _bucket ending, `requests` the counter with a `code`, `status` or `status_code` label, and the GPU
names are those of dcgm-exporter. `batch_rows`, `batch_duration` and `queue_duration` are histograms or summaries (their
_sum and _count are read); `busy` (0..1), `in_flight`, `queue_depth` and `batch_limit` are gauges. What is not in
seconds has its unit beside it: {"unit.duration": "ms"}. Requests in flight beyond one batch a replica are a queue,
where no gauge says how many wait. A metric that a service does not export gives no signal, which is fine.
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
        "p50_ms": quantile_ms(0.5, "$(duration)_bucket", "$(duration_ms)"),
        "p95_ms": quantile_ms(0.95, "$(duration)_bucket", "$(duration_ms)"),
        "p99_ms": quantile_ms(0.99, "$(duration)_bucket", "$(duration_ms)"),
        "mean_ms": mean_ms("$(duration)", "$(duration_ms)"),
        "qps": total_rate("$(duration)_count"),
        "error_rate": ratio(_FAILED, _ALL),
        "queue_ms": mean_ms("$(queue_duration)", "$(queue_duration_ms)"),
        "queue_depth": (
            "sum by ($by) ($(queue_depth){$sel}) or "
            "clamp_min(sum by ($by) ($(in_flight){$sel}) - sum by ($by) ($(batch_limit){$sel}), 0)"
        ),
        "batch_ms": mean_ms("$(batch_duration)", "$(batch_duration_ms)"),
        "rows_per_batch": ratio(total_rate("$(batch_rows)_sum"), total_rate("$(batch_rows)_count")),
        "batch_size": "max by ($by) ($(batch_limit){$sel})",
        "busy": "avg by ($by) ($(busy){$sel})",
        "gpu_util": "avg by ($by) ($(gpu_util){$sel}) / 100",
        "gpu_memory": (
            "sum by ($by) ($(gpu_memory_used){$sel}) / "
            "(sum by ($by) ($(gpu_memory_used){$sel}) + sum by ($by) ($(gpu_memory_free){$sel}))"
        ),
        "replicas": instances("$(duration)_count{$sel}"),
    },
    buckets=increases("$(duration)_bucket"),
    native=native_histogram("$(duration)", "$(duration_ms)"),
    names={
        "duration": "http_request_duration_seconds",
        "requests": "http_requests_total",
        "queue_duration": "http_request_queue_duration_seconds",
        "queue_depth": "http_requests_in_queue",
        "in_flight": "http_requests_inprogress",
        "batch_rows": "inference_batch_rows",
        "batch_duration": "inference_batch_duration_seconds",
        "batch_limit": "inference_batch_limit",
        "busy": "inference_busy",
        "gpu_util": "DCGM_FI_DEV_GPU_UTIL",
        "gpu_memory_used": "DCGM_FI_DEV_FB_USED",
        "gpu_memory_free": "DCGM_FI_DEV_FB_FREE",
    },
    units={"duration": "s", "queue_duration": "s", "batch_duration": "s"},
)
