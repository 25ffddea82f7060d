"""NVIDIA Triton: counters of cumulated microseconds; percentiles only where its histograms or summaries are on.

P95 is that of `--metrics-config histogram_latencies=true` (24.11 and newer), else that of
`--metrics-config summary_latencies=true --metrics-config summary_quantiles=0.5:0.05,0.95:0.001,0.99:0.001` (any
version; a sliding minute of each replica). With neither the signal is absent: mean_ms is never passed off as a
percentile. Queue rejections (503) are in none of its failure counters.
"""

from __future__ import annotations

from detection.presets._preset import Preset, or_summary_ms, quantile_ms, ratio, total_rate

_OK = total_rate("nv_inference_request_success")
_FAILED = total_rate("nv_inference_request_failure")
_ROWS = total_rate("nv_inference_count")
_BATCHES = total_rate("nv_inference_exec_count")
_COMPUTE = total_rate("nv_inference_compute_infer_duration_us")
_HISTOGRAM = "nv_inference_first_response_histogram_ms_bucket"


def _quantile_ms(quantile: float) -> str:
    return or_summary_ms(quantile_ms(quantile, _HISTOGRAM, 1.0), quantile, "nv_inference_request_summary_us", 1e-3)


PRESET = Preset(
    replica_label="instance",
    name="triton",
    title="NVIDIA Triton Inference Server",
    signals={
        "p50_ms": _quantile_ms(0.5),
        "p95_ms": _quantile_ms(0.95),
        "p99_ms": _quantile_ms(0.99),
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
