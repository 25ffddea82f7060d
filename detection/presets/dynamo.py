"""NVIDIA Dynamo: the frontend's metrics (`dynamo_frontend_*`), as a client sees the whole graph of workers behind it.

The KV cache is the workers' (`dynamo_component_*`); their series carry `model` only in later releases, so that a
service whose selectors name it sees them then. The engines' own metrics (`vllm:*`, ...) have presets of their own.
"""

from __future__ import annotations

from detection.presets._preset import (
    LANGUAGE_ENGINE,
    Preset,
    increases,
    instances,
    latencies,
    share,
    tokens,
    total_rate,
    whole_requests,
)

_REQUESTS = "$(prefix)_requests_total"
_FINISHED = total_rate(_REQUESTS)
_GROWTH = "sum by ($by) (deriv($(prefix)_inflight_requests{$sel}[$w]))"

PRESET = Preset(
    name="dynamo",
    title="NVIDIA Dynamo (frontend)",
    versions="0.4 to 0.9",
    replica_label="instance",
    engine=LANGUAGE_ENGINE,
    presence="$(prefix)_inflight_requests{$sel}",
    signals={
        **whole_requests(),
        "qps": _FINISHED,
        "error_rate": share(_REQUESTS, 'status="error"', _REQUESTS),
        "queue_depth": "sum by ($by) ($(prefix)_queued_requests{$sel})",
        "replicas": instances("$(prefix)_inflight_requests{$sel}"),
        **latencies("ttft", "$(prefix)_time_to_first_token_seconds"),
        **latencies("itl", "$(prefix)_inter_token_latency_seconds"),
        **latencies("e2e", "$(prefix)_request_duration_seconds"),
        "running": "avg by ($by) (avg_over_time($(prefix)_inflight_requests{$sel}[$w]))",
        "kv_usage": (
            "avg by ($by) (dynamo_component_gpu_cache_usage_percent{$sel}) or "
            "avg by ($by) (dynamo_component_kvstats_gpu_cache_usage_percent{$sel})"
        ),
        "prefix_hit_rate": "avg by ($by) (dynamo_component_kvstats_gpu_prefix_cache_hit_rate{$sel})",
        "prompt_tokens_per_s": total_rate("$(prefix)_input_sequence_tokens_sum"),
        "generation_tokens_per_s": total_rate("$(prefix)_output_sequence_tokens_sum"),
        **tokens("prompt_tokens", "$(prefix)_input_sequence_tokens"),
        **tokens("output_tokens", "$(prefix)_output_sequence_tokens"),
        "arrivals_per_s": f"clamp_min(({_FINISHED}) + ({_GROWTH}), 0)",
    },
    buckets=increases("$(duration)_bucket"),
    names={"duration": "$(prefix)_request_duration_seconds", "prefix": "dynamo_frontend"},
)
