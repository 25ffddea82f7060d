"""Ray Serve: histograms in milliseconds at the HTTP proxy and around `@serve.batch`.

Select by `application`. The queue's time is that of the router, the batch's figures those of all `@serve.batch`
functions of the application together; the batch limit follows from how full the batches are said to be. Counters end in
`_total` except in a few releases, which is asked for as well. Where a relabelling changed the beginning of all names,
`metric.prefix` is the other beginning.
"""

from __future__ import annotations

from detection.presets._preset import Preset, increases, mean_ms, quantile_ms, ratio, share, total_rate

_LATENCY = "$(prefix)_serve_http_request_latency_ms"
_REQUESTS = ("$(prefix)_serve_num_http_requests_total", "$(prefix)_serve_num_http_requests")
_ROWS = "$(prefix)_serve_actual_batch_size"
_FULL = "$(prefix)_serve_batch_utilization_percent"

PRESET = Preset(
    name="ray_serve",
    title="Ray Serve",
    versions="2.10 to 2.60; batch figures from 2.52 on",
    replica_label="replica",
    presence="$(prefix)_serve_replica_processing_queries{$sel}",
    signals={
        "p50_ms": quantile_ms(0.5, f"{_LATENCY}_bucket", 1.0),
        "p95_ms": quantile_ms(0.95, f"{_LATENCY}_bucket", 1.0),
        "p99_ms": quantile_ms(0.99, f"{_LATENCY}_bucket", 1.0),
        "mean_ms": mean_ms(_LATENCY, 1.0),
        "qps": total_rate(_REQUESTS),
        "error_rate": share(_REQUESTS, 'status_code=~"5.."', _REQUESTS),
        "queue_ms": mean_ms("$(prefix)_serve_request_router_fulfillment_time_ms", 1.0),
        "queue_depth": "sum by ($by) ($(prefix)_serve_deployment_queued_queries{$sel})",
        "batch_ms": mean_ms("$(prefix)_serve_batch_execution_time_ms", 1.0),
        "rows_per_batch": ratio(total_rate(f"{_ROWS}_sum"), total_rate(f"{_ROWS}_count")),
        # each batch is rows / limit full: the sums' quotient is the limit
        "batch_size": "100 * " + ratio(total_rate(f"{_ROWS}_sum"), total_rate(f"{_FULL}_sum")),
        "replicas": "count by ($by) (count by ($by replica) ($(prefix)_serve_replica_processing_queries{$sel}))",
    },
    buckets=increases(f"{_LATENCY}_bucket"),
    bucket_scale_ms=1.0,
    names={"prefix": "ray"},
)
