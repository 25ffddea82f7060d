"""vLLM: an engine for language models with continuous batching (`vllm:*`, version 1 of its engine).

`duration` is what the SLO speaks of: the whole request by default, whose first bucket ends at 300 ms; override it with
`metric.duration: vllm:time_to_first_token_seconds` where the first token is what counts. `rows_per_batch` is how many
requests run at once. `gpu_memory` is the share of the KV cache in use: the rest of the GPU's memory vLLM takes at start
whatever the load. Failed requests are counted by the HTTP server in front (`metric.requests`), if at all.
"""

from __future__ import annotations

from detection.presets._preset import Preset, mean_ms, quantile_ms, share, total_rate

PRESET = Preset(
    name="vllm",
    title="vLLM",
    replica_label="instance",
    signals={
        "p50_ms": quantile_ms(0.5, "$(duration)_bucket"),
        "p95_ms": quantile_ms(0.95, "$(duration)_bucket"),
        "p99_ms": quantile_ms(0.99, "$(duration)_bucket"),
        "mean_ms": mean_ms("$(duration)"),
        "qps": total_rate("vllm:request_success_total"),
        "error_rate": share("$(requests)", 'status=~"5.."', "$(requests)"),
        "queue_ms": mean_ms("vllm:request_queue_time_seconds"),
        "queue_depth": "sum by ($by) (vllm:num_requests_waiting{$sel})",
        "rows_per_batch": "avg by ($by) (avg_over_time(vllm:num_requests_running{$sel}[$w]))",
        # the gauge had another name before 0.9
        "gpu_memory": "avg by ($by) (vllm:kv_cache_usage_perc{$sel}) or avg by ($by) (vllm:gpu_cache_usage_perc{$sel})",
        "replicas": "count by ($by) (count by ($by instance) (vllm:num_requests_running{$sel}))",
    },
    buckets="sum by ($by le) (increase($(duration)_bucket{$sel}[$w]))",
    names={"duration": "vllm:e2e_request_latency_seconds", "requests": "http_requests_total"},
)
