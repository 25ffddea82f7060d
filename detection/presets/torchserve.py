"""TorchServe: counters of cumulated microseconds per model; it exports no percentile of its own.

P95 needs a histogram in seconds from elsewhere, with the labels that the service's selectors name: the proxy or
gateway in front, or one that the handler declares in metrics.yaml (`metric.duration` is its name). Without one the
signal is absent: mean_ms is never passed off as a percentile. `Requests2XX` and its like count a whole host, not a
model, so the error rate is asked of `metric.requests`, a counter with a `code` label.
"""

from __future__ import annotations

from detection.presets._preset import Preset, increases, instances, quantile_ms, ratio, share, total_rate

_REQUESTS = total_rate("ts_inference_requests_total")

PRESET = Preset(
    name="torchserve",
    title="TorchServe",
    versions="0.8 to 0.12",
    replica_label="instance",
    presence="ts_inference_requests_total{$sel}",
    signals={
        "p50_ms": quantile_ms(0.5, "$(duration)_bucket"),
        "p95_ms": quantile_ms(0.95, "$(duration)_bucket"),
        "p99_ms": quantile_ms(0.99, "$(duration)_bucket"),
        "mean_ms": "1e-3 * " + ratio(total_rate("ts_inference_latency_microseconds"), _REQUESTS),
        "qps": _REQUESTS,
        "error_rate": share("$(requests)", 'code=~"5.."', "$(requests)"),
        "queue_ms": "1e-3 * " + ratio(total_rate("ts_queue_latency_microseconds"), _REQUESTS),
        "replicas": instances("ts_inference_requests_total{$sel}"),
    },
    served=_REQUESTS,
    version_label="model_version",
    buckets=increases("$(duration)_bucket"),
    names={"duration": "http_request_duration_seconds", "requests": "http_requests_total"},
)
