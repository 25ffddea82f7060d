"""BentoML: a histogram of requests and one of adaptive batch sizes per endpoint. It exports no time in queue.

Select by `service_name` and `endpoint`.
"""

from __future__ import annotations

from detection.presets._preset import Preset, mean_ms, quantile_ms, ratio, share, total_rate

_LATENCY = "bentoml_service_request_duration_seconds"
_REQUESTS = "bentoml_service_request_total"
_ROWS = "bentoml_service_adaptive_batch_size"

PRESET = Preset(
    name="bentoml",
    title="BentoML",
    replica_label="instance",
    signals={
        "p50_ms": quantile_ms(0.5, f"{_LATENCY}_bucket"),
        "p95_ms": quantile_ms(0.95, f"{_LATENCY}_bucket"),
        "p99_ms": quantile_ms(0.99, f"{_LATENCY}_bucket"),
        "mean_ms": mean_ms(_LATENCY),
        "qps": total_rate(_REQUESTS),
        "error_rate": share(_REQUESTS, 'http_response_code=~"5.."', _REQUESTS),
        "rows_per_batch": ratio(total_rate(f"{_ROWS}_sum"), total_rate(f"{_ROWS}_count")),
        "replicas": "count by ($by) (count by ($by instance) (bentoml_service_request_in_progress{$sel}))",
    },
    buckets=f"sum by ($by le) (increase({_LATENCY}_bucket{{$sel}}[$w]))",
)
