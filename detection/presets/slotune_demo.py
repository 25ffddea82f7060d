"""The demo inference server (demo/server): Prometheus histograms of request, queue and batch times."""

from __future__ import annotations

from detection.presets._preset import Preset, increases, instances, mean_ms, quantile_ms, ratio, share, total_rate

_REQUEST = "inference_request_duration_seconds"
_GAP = "inference_interarrival_seconds"
_BATCHES, _SECONDS, _SQUARES = (
    f"rate(inference_batch{part}_total{{$sel}}[$w])" for part in ("es", "_seconds", "_seconds_squared")
)
_LEVEL = f"{_SECONDS} ^ 2 / ({_BATCHES} > 0)"
_GAPS = total_rate(f"{_GAP}_count")

PRESET = Preset(
    name="slotune_demo",
    title="slotune demo inference server",
    versions="of this release",
    presence="inference_batch_size_limit{$sel}",
    signals={
        "p50_ms": quantile_ms(0.5, f"{_REQUEST}_bucket"),
        "p95_ms": quantile_ms(0.95, f"{_REQUEST}_bucket"),
        "p99_ms": quantile_ms(0.99, f"{_REQUEST}_bucket"),
        "mean_ms": mean_ms(_REQUEST),
        "qps": total_rate("inference_requests_total"),
        "error_rate": share("inference_requests_total", 'code!~"2.."', "inference_requests_total"),
        "queue_ms": mean_ms("inference_queue_duration_seconds"),
        "queue_depth": "sum by ($by) (inference_queue_depth{$sel})",
        "batch_ms": mean_ms("inference_batch_duration_seconds"),
        "rows_per_batch": ratio(
            "sum by ($by) (rate(inference_batch_rows_sum{$sel}[$w]))", total_rate("inference_batch_rows_count")
        ),
        "batch_size": "max by ($by) (inference_batch_size_limit{$sel})",
        "batch_timeout_ms": "1e3 * max by ($by) (inference_batch_timeout_seconds{$sel})",
        "busy": "avg by ($by) (rate(inference_busy_seconds_total{$sel}[$w]))",
        "emulated": "max by ($by) (inference_emulated{$sel})",
        "load_failures": share("inference_load_failures_total", "", "inference_load_attempts_total"),
        "memory_gb": "max by ($by) (process_resident_memory_bytes{$sel}) / 1e9",
        "memory_limit_gb": "min by ($by) (inference_memory_limit_bytes{$sel}) / 1e9",
        "uptime_s": "time() - max by ($by) (process_start_time_seconds{$sel})",
        "replicas": instances("inference_batch_size_limit{$sel}"),
        # cv^2 = E[x^2] / E[x]^2 - 1 of the times between arrivals
        "arrival_cv2": (
            f"({total_rate(f'{_GAP}_squared_sum')}) * ({_GAPS}) / (({total_rate(f'{_GAP}_sum')}) ^ 2 > 0) - 1"
        ),
        # Within each batch size, so that a mix of sizes is no variation: sum(x^2) - sum(x)^2 / n over sum(x)^2 / n
        "batch_cv2": f"sum by ($by) ({_SQUARES} - {_LEVEL}) / (sum by ($by) ({_LEVEL}) > 0)",
        "agreement": ratio(total_rate("inference_shadow_agree_total"), total_rate("inference_shadow_total")),
    },
    served="sum by ($by) (inference_model_info{$sel})",
    buckets=increases(f"{_REQUEST}_bucket"),
)
