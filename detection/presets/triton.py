"""NVIDIA Triton: counters of cumulated microseconds; percentiles only where its histograms are switched on (24.11+).

Without `--metrics-config histogram_latencies=true` there is no P95 and the signal is absent: mean_ms is never passed
off as a percentile. Queue rejections (503) are in none of its failure counters.
"""

from __future__ import annotations

from detection.presets._preset import Preset, quantile_ms, ratio, total_rate

_OK = total_rate("nv_inference_request_success")
_FAILED = total_rate("nv_inference_request_failure")
_ROWS = total_rate("nv_inference_count")
_BATCHES = total_rate("nv_inference_exec_count")
_COMPUTE = total_rate("nv_inference_compute_infer_duration_us")
_HISTOGRAM = "nv_inference_first_response_histogram_ms_bucket"

PRESET = Preset(
    replica_label="instance",
    name="triton",
    title="NVIDIA Triton Inference Server",
    signals={
        "p50_ms": quantile_ms(0.5, _HISTOGRAM, 1.0),
        "p95_ms": quantile_ms(0.95, _HISTOGRAM, 1.0),
        "p99_ms": quantile_ms(0.99, _HISTOGRAM, 1.0),
        "mean_ms": "1e-3 * " + ratio(total_rate("nv_inference_request_duration_us"), _OK),
        "qps": _OK,
        "error_rate": ratio(_FAILED, f"{_OK} + {_FAILED}"),
        "queue_ms": "1e-3 * " + ratio(total_rate("nv_inference_queue_duration_us"), _OK),
        "queue_depth": "sum by ($by) (nv_inference_pending_request_count{$sel})",
        "batch_ms": "1e-3 * " + ratio(_COMPUTE, _ROWS),
        "rows_per_batch": ratio(_ROWS, _BATCHES),
        # busy seconds per second and instance; exact while each request is one row
        "busy": f"1e-6 * ({_COMPUTE}) / (({_ROWS}) / (({_BATCHES}) > 0) > 0)",
        "gpu_util": "avg by ($by) (nv_gpu_utilization{$sel})",
        "gpu_memory": "sum by ($by) (nv_gpu_memory_used_bytes{$sel}) / sum by ($by) (nv_gpu_memory_total_bytes{$sel})",
    },
    buckets=f"sum by ($by le) (increase({_HISTOGRAM}{{$sel}}[$w]))",
    bucket_scale_ms=1.0,
)
