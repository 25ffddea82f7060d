"""TensorRT-LLM: `trtllm-serve` (`trtllm_*`), and its backend in Triton (`nv_trt_llm_*`) where that runs it.

Behind Triton only counts are exported (waiting, scheduled, KV blocks), and latencies by Triton's own metrics: the time
to the first response of a streaming model is its time to the first token.
"""

from __future__ import annotations

from detection.presets._preset import (
    LANGUAGE_ENGINE,
    Preset,
    increases,
    latencies,
    mean_ms,
    share,
    total_rate,
    whole_requests,
)

_REQUESTS = "nv_trt_llm_request_metrics"
_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
_ENDED = "$(prefix)_request_success_total"
_FAILED = share("nv_inference_request_failure", "", ["nv_inference_request_success", "nv_inference_request_failure"])


def _gauge(how: str, serve: str, triton: str, kind: str) -> str:
    return f"{how} by ($by) ($(prefix)_{serve}{{$sel}}) or {how} by ($by) ({triton}{{$sel {kind}}})"


_FIRST = latencies("ttft", "$(prefix)_time_to_first_token_seconds")
_FIRST_OF_TRITON = latencies("ttft", "nv_inference_first_response_histogram_ms", 1.0)
_QUEUE_OF_TRITON = (
    "1e-3 * (sum by ($by) (rate(nv_inference_queue_duration_us{$sel}[$w]))) / "
    "((sum by ($by) (rate(nv_inference_request_success{$sel}[$w]))) > 0)"
)

PRESET = Preset(
    name="tensorrt_llm",
    title="TensorRT-LLM",
    versions="trtllm-serve 0.17 to 1.2; Triton's TensorRT-LLM backend 24.01 to 25.12",
    replica_label="instance",
    engine=LANGUAGE_ENGINE,
    presence="$(prefix)_kv_cache_utilization{$sel}",
    signals={
        **whole_requests(),
        "qps": f"{total_rate(_ENDED)} or {total_rate('nv_inference_request_success')}",
        "error_rate": _FAILED,
        "queue_ms": f"({mean_ms('$(prefix)_request_queue_time_seconds')}) or on ($by) ({_QUEUE_OF_TRITON})",
        "queue_depth": _gauge("sum", "num_requests_waiting", _REQUESTS, 'request_type="waiting"'),
        "replicas": (
            "count by ($by) (count by ($by instance) ($(prefix)_kv_cache_utilization{$sel}) or "
            "count by ($by instance) (nv_trt_llm_request_metrics{$sel}))"
        ),
        **{name: f"({query}) or on ($by) ({_FIRST_OF_TRITON[name]})" for name, query in _FIRST.items()},
        **latencies("itl", "$(prefix)_time_per_output_token_seconds"),
        **latencies("e2e", "$(prefix)_e2e_request_latency_seconds"),
        "running": _gauge("avg", "num_requests_running", _REQUESTS, 'request_type="scheduled"'),
        "kv_usage": _gauge("avg", "kv_cache_utilization", _BLOCKS, 'kv_cache_block_type="fraction"'),
        "prefix_hit_rate": "avg by ($by) ($(prefix)_kv_cache_hit_rate{$sel})",
        "length_rate": share(_ENDED, 'finished_reason="length"', _ENDED),
        "abort_rate": share(_ENDED, 'finished_reason="cancelled"', _ENDED),
    },
    buckets=increases("$(duration)_bucket"),
    names={"duration": "$(prefix)_e2e_request_latency_seconds", "prefix": "trtllm"},
)
