"""Text Generation Inference (`tgi_*`). It exports no time to the first token: `slo.ttft_p95` cannot be watched here.

`itl_ms` is its mean time per token of each request. `kv_usage` is not exported either, so that a full cache is not
told apart from a full batch.
"""

from __future__ import annotations

from detection.presets._preset import (
    LANGUAGE_ENGINE,
    Preset,
    increases,
    instances,
    latencies,
    mean_ms,
    share,
    tokens,
    total_rate,
    whole_requests,
)

_FINISHED = total_rate("tgi_request_success")

PRESET = Preset(
    name="tgi",
    title="Text Generation Inference",
    versions="1.4 to 3.3",
    replica_label="instance",
    engine=LANGUAGE_ENGINE,
    presence="tgi_queue_size{$sel}",
    signals={
        **whole_requests(),
        "qps": _FINISHED,
        "error_rate": share("tgi_request_failure", "", "tgi_request_count"),
        "queue_ms": mean_ms("tgi_request_queue_duration"),
        "queue_depth": "sum by ($by) (tgi_queue_size{$sel})",
        "replicas": instances("tgi_queue_size{$sel}"),
        **latencies("itl", "tgi_request_mean_time_per_token_duration"),
        **latencies("e2e", "tgi_request_duration"),
        "running": "avg by ($by) (avg_over_time(tgi_batch_current_size{$sel}[$w]))",
        "prompt_tokens_per_s": total_rate("tgi_request_input_length_sum"),
        "generation_tokens_per_s": total_rate("tgi_request_generated_tokens_sum"),
        "prefill_ms": (
            '1000 * (sum by ($by) (rate(tgi_batch_inference_duration_sum{$sel method="prefill"}[$w]))) / '
            '((sum by ($by) (rate(tgi_batch_inference_duration_count{$sel method="prefill"}[$w]))) > 0)'
        ),
        **tokens("prompt_tokens", "tgi_request_input_length"),
        **tokens("output_tokens", "tgi_request_generated_tokens"),
        "steps_per_s": total_rate("tgi_batch_inference_duration_count"),
        "arrivals_per_s": total_rate("tgi_request_count"),
    },
    buckets=increases("$(duration)_bucket"),
    names={"duration": "tgi_request_duration"},
)
