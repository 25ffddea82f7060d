"""Ray Serve: histograms in milliseconds at the HTTP proxy and around `@serve.batch`.

Select by `application`. The queue's time is that of the router, the batch's figures those of all `@serve.batch`
functions of the application together.
"""

from __future__ import annotations

from detection.presets._preset import Preset, mean_ms, quantile_ms, ratio, share, total_rate

_LATENCY = "ray_serve_http_request_latency_ms"
_REQUESTS = "ray_serve_num_http_requests_total"
_ROWS = "ray_serve_actual_batch_size"

PRESET = Preset(
    name="ray_serve",
    title="Ray Serve",
    replica_label="replica",
    signals={
        "p50_ms": quantile_ms(0.5, f"{_LATENCY}_bucket", 1.0),
        "p95_ms": quantile_ms(0.95, f"{_LATENCY}_bucket", 1.0),
        "p99_ms": quantile_ms(0.99, f"{_LATENCY}_bucket", 1.0),
        "mean_ms": mean_ms(_LATENCY, 1.0),
        "qps": total_rate(_REQUESTS),
        "error_rate": share(_REQUESTS, 'status_code=~"5.."', _REQUESTS),
        "queue_ms": mean_ms("ray_serve_request_router_fulfillment_time_ms", 1.0),
        "queue_depth": "sum by ($by) (ray_serve_deployment_queued_queries{$sel})",
        "batch_ms": mean_ms("ray_serve_batch_execution_time_ms", 1.0),
        "rows_per_batch": ratio(total_rate(f"{_ROWS}_sum"), total_rate(f"{_ROWS}_count")),
        "replicas": "count by ($by) (count by ($by replica) (ray_serve_replica_processing_queries{$sel}))",
    },
    buckets=f"sum by ($by le) (increase({_LATENCY}_bucket{{$sel}}[$w]))",
    bucket_scale_ms=1.0,
)
