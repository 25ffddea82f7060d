"""BentoML: a histogram of requests and one of adaptive batch sizes per endpoint. It exports no time in queue.

Select by `service_name` and `endpoint`. Releases before 1.2 name the same figures after the API server and its runners.
"""

from __future__ import annotations

from detection.presets._preset import Preset, increases, instances, mean_ms, quantile_ms, ratio, share, total_rate

_LATENCY = ("bentoml_service_request_duration_seconds", "bentoml_api_server_request_duration_seconds")
_BUCKETS = tuple(f"{name}_bucket" for name in _LATENCY)
_REQUESTS = ("bentoml_service_request_total", "bentoml_api_server_request_total")
_ROWS = ("bentoml_service_adaptive_batch_size", "bentoml_runner_adaptive_batch_size")

PRESET = Preset(
    name="bentoml",
    title="BentoML",
    versions="1.2 and later; 1.0 and 1.1 by their older names",
    replica_label="instance",
    presence="bentoml_service_request_in_progress{$sel}",
    signals={
        "p50_ms": quantile_ms(0.5, _BUCKETS),
        "p95_ms": quantile_ms(0.95, _BUCKETS),
        "p99_ms": quantile_ms(0.99, _BUCKETS),
        "mean_ms": mean_ms(_LATENCY),
        "qps": total_rate(_REQUESTS),
        "error_rate": share(_REQUESTS, 'http_response_code=~"5.."', _REQUESTS),
        "rows_per_batch": ratio(
            total_rate([f"{name}_sum" for name in _ROWS]), total_rate([f"{name}_count" for name in _ROWS])
        ),
        "replicas": instances(
            "bentoml_service_request_in_progress{$sel} or bentoml_api_server_request_in_progress{$sel}"
        ),
    },
    served=total_rate(_REQUESTS),
    version_label="service_version",
    buckets=increases(_BUCKETS),
)
