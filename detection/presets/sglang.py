"""SGLang: an engine for language models with continuous batching (`sglang:*`, started with --enable-metrics).

Failed requests are in no metric of its own; where an HTTP server's counter knows the model, `metric.requests` names it.
`preemptions_per_s` counts requests that were retracted for want of KV cache.
"""

from __future__ import annotations

from detection.presets._preset import (
    LANGUAGE_ENGINE,
    Preset,
    increases,
    instances,
    latencies,
    mean_ms,
    ratio,
    share,
    tokens,
    total_rate,
    whole_requests,
)

_REQUESTS = "$(prefix):num_requests_total"
_FINISHED = total_rate(_REQUESTS)
_BEGUN = total_rate("$(prefix):time_to_first_token_seconds_count")
_GROWTH = "sum by ($by) (deriv($(prefix):num_queue_reqs{$sel}[$w]))"
_HITS = ratio(total_rate("$(prefix):cached_tokens_total"), total_rate("$(prefix):prompt_tokens_total"))

PRESET = Preset(
    name="sglang",
    title="SGLang",
    versions="0.4 to 0.5; the time between tokens also by its older name",
    replica_label="instance",
    engine=LANGUAGE_ENGINE,
    presence="$(prefix):num_running_reqs{$sel}",
    signals={
        **whole_requests(),
        "qps": _FINISHED,
        "error_rate": share("$(requests)", 'status_code=~"5.."', "$(requests)"),
        "queue_ms": mean_ms("$(prefix):queue_time_seconds"),
        "queue_depth": "sum by ($by) ($(prefix):num_queue_reqs{$sel})",
        "replicas": instances("$(prefix):num_running_reqs{$sel}"),
        **latencies("ttft", "$(prefix):time_to_first_token_seconds"),
        **latencies("itl", ["$(prefix):inter_token_latency_seconds", "$(prefix):time_per_output_token_seconds"]),
        **latencies("e2e", "$(prefix):e2e_request_latency_seconds"),
        "prompt_tokens_per_s": total_rate("$(prefix):prompt_tokens_total"),
        "generation_tokens_per_s": total_rate("$(prefix):generation_tokens_total"),
        "running": "avg by ($by) (avg_over_time($(prefix):num_running_reqs{$sel}[$w]))",
        "kv_usage": "avg by ($by) ($(prefix):token_usage{$sel})",
        "preemptions_per_s": total_rate(
            ["$(prefix):num_retracted_requests_total", "$(prefix):num_retracted_reqs_total"]
        ),
        "prefix_hit_rate": f"({_HITS}) or on ($by) (avg by ($by) ($(prefix):cache_hit_rate{{$sel}}))",
        **tokens("prompt_tokens", "$(prefix):prompt_tokens_histogram"),
        **tokens("output_tokens", "$(prefix):generation_tokens_histogram"),
        "arrivals_per_s": f"clamp_min(({_BEGUN}) + ({_GROWTH}), 0)",
        "abort_rate": share("$(prefix):num_aborted_requests_total", "", _REQUESTS),
    },
    served="count by ($by) ($(prefix):num_running_reqs{$sel})",
    version_label="model_name",
    buckets=increases("$(duration)_bucket"),
    names={
        "duration": "$(prefix):e2e_request_latency_seconds",
        "prefix": "sglang",
        "requests": "$(prefix):http_responses_total",
    },
)
