"""NVIDIA Triton: counters of cumulated microseconds; percentiles only where its summaries or histograms are on.

P95 is that of `--metrics-config summary_latencies=true --metrics-config
summary_quantiles=0.5:0.05,0.95:0.001,0.99:0.001` (any version; a sliding minute of each replica), else that of
`histogram_latencies=true`. The summaries go first: the histogram's default bounds are 100, 500, 2000 and 5000 ms, so
that below 100 ms its P95 is always 95 ms; it exists since 24.11, and for models that are not decoupled only in newer
releases; of a decoupled model it is the time to the FIRST response. With neither the signal is absent: mean_ms is never
passed off as a percentile. Queue rejections (503) are in none of its failure counters; nor is an error that a model of
the Python backend puts into its response (`InferenceResponse(error=...)`): Triton counts that as a success, and only
what its `execute` raises as a failure.

Compute time is summed per REQUEST (each request of a batch is charged with the whole batch), so a batch takes compute
time / requests, whatever the rows. `busy` is per replica: with several instances in its instance_group a replica can
show more than 1. The GPU's series carry no model: they are those of the replica that serves it.
"""

from __future__ import annotations

from detection.presets._preset import Preset, increases, quantile_ms, ratio, summary_or_ms, total_rate

_OK = total_rate("nv_inference_request_success")
_FAILED = total_rate("nv_inference_request_failure")
_ROWS = total_rate("nv_inference_count")
_BATCHES = total_rate("nv_inference_exec_count")
_BATCH_US = ratio(total_rate("nv_inference_compute_infer_duration_us"), _OK)
_HISTOGRAM = "nv_inference_first_response_histogram_ms_bucket"
_PLACES = "group by ($by instance) (nv_inference_exec_count{$sel})"


def _quantile_ms(quantile: float) -> str:
    return summary_or_ms(quantile_ms(quantile, _HISTOGRAM, 1.0), quantile, "nv_inference_request_summary_us", 1e-3)


def _of_gpus(per_instance: str) -> str:
    """A figure of each server's GPUs, averaged over the servers of a service."""
    return f"avg by ($by) ({_PLACES} * on (instance) group_left () ({per_instance}))"


PRESET = Preset(
    versions="2.40 to 2.60; percentiles by histogram from 24.11 on",
    replica_label="instance",
    presence="nv_inference_exec_count{$sel}",
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
        "batch_ms": f"1e-3 * {_BATCH_US}",
        "pre_ms": "1e-3 * " + ratio(total_rate("nv_inference_compute_input_duration_us"), _OK),
        "compute_ms": f"1e-3 * {_BATCH_US}",
        "post_ms": "1e-3 * " + ratio(total_rate("nv_inference_compute_output_duration_us"), _OK),
        "rows_per_batch": ratio(_ROWS, _BATCHES),
        "busy": f"1e-6 * {_BATCH_US} * {_BATCHES} / count by ($by) ({_PLACES})",
        "replicas": f"count by ($by) ({_PLACES})",
        "gpu_util": _of_gpus("avg by (instance) (nv_gpu_utilization)"),
        "gpu_memory": _of_gpus(
            "sum by (instance) (nv_gpu_memory_used_bytes) / sum by (instance) (nv_gpu_memory_total_bytes)"
        ),
    },
    served=_OK,
    buckets=increases(_HISTOGRAM),
    bucket_scale_ms=1.0,
)
