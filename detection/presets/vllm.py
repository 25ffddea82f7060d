"""vLLM: an engine for language models with continuous batching (`vllm:*`, version 1 of its engine).

`duration` is what `slo.p95` speaks of: the whole request by default, whose first bucket ends at 300 ms. Time to first
token and time per output token have objectives of their own. `queue_depth` is what waits in the engine, `running` what
runs at once in one replica. Where a platform put another word before all names (`kserve_vllm:...`), `metric.prefix` is
that word; several engines of one service (data parallel ranks) are added up.

What ended is not what came: `qps` counts requests that ended, `arrivals_per_s` first tokens and the growth of the
queue. A client that gives up is counted by the HTTP server as 2xx and by the engine nowhere: `unanswered_rate` is the
share of answered HTTP requests (where those are counted: of first tokens) that no finished request stands behind. An
engine that hangs looks idle otherwise.

Failed requests are counted by the HTTP server in front (`metric.requests`), if at all. vLLM's own has no model's name,
so that requests of the instances that serve the model are counted too; what checks health and scrapes is left out.
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

_PLACES = "group by ($by instance) ($(prefix):num_requests_running{$sel})"
_PEOPLE = 'handler!~"/health|/metrics|/ping|/version|/load"'
_ANSWERS = 'status=~"2..",handler=~".*(completions|responses|messages)"'


def _of_instances(matcher: str) -> str:
    """Requests per second of the instances that serve a model, from a counter that knows no models."""
    rates = f"sum by (instance) (rate($(requests){{{matcher}}}[$w]))"
    return f"sum by ($by) ({_PLACES} * on (instance) group_left () {rates})"


_FAILED = 'status=~"5..",'
_BASE = _of_instances(_PEOPLE)
_ERRORS = share("$(requests)", _FAILED + _PEOPLE, "$(requests)", _PEOPLE)
_ERRORS_OF_INSTANCES = ratio(f"{_of_instances(_FAILED + _PEOPLE)} or 0 * {_BASE}", _BASE)

_ENDED = "$(prefix):request_success_total"
_FINISHED = total_rate(_ENDED)
_BEGUN = total_rate("$(prefix):time_to_first_token_seconds_count")
_ANSWERED = f"({total_rate('$(requests)', _ANSWERS)}) or on ($by) ({_of_instances(_ANSWERS)})"
_WAITING = "sum by ($by) ($(prefix):num_requests_waiting{$sel})"
_GROWTH = "sum by ($by) (deriv($(prefix):num_requests_waiting{$sel}[$w]))"
_MORE_RUNNING = "clamp_min(sum by ($by) (deriv($(prefix):num_requests_running{$sel}[$w])), 0)"
_LOST = f"clamp_min(1 - (({_FINISHED}) + ({_MORE_RUNNING})) / (({_ANSWERED}) > 0), 0)"
_LOST_BY_TOKENS = f"clamp_min(1 - (({_FINISHED}) + ({_MORE_RUNNING})) / (({_BEGUN}) > 0), 0)"
_STEPS = "$(prefix):iteration_tokens_total"
_EDGES_S = {
    "ttft_p95_ms": (
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
        *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
    ),
    "itl_p95_ms": (
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
        *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    ),
    "e2e_p95_ms": (
        *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0),
        *(30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
    ),
}
"""Of vLLM 0.32 as it comes."""

PRESET = Preset(
    name="vllm",
    title="vLLM",
    versions="0.8 to 0.32; the KV cache, the time per output token and preemptions also by their older names",
    replica_label="instance",
    engine=LANGUAGE_ENGINE,
    presence="$(prefix):num_requests_running{$sel}",
    signals={
        **whole_requests(),
        "qps": _FINISHED,
        "error_rate": f"({_ERRORS}) or on ($by) ({_ERRORS_OF_INSTANCES})",
        "queue_ms": mean_ms("$(prefix):request_queue_time_seconds"),
        "queue_depth": _WAITING,
        "rows_per_batch": "avg by ($by) (avg_over_time($(prefix):num_requests_running{$sel}[$w]))",
        "replicas": instances("$(prefix):num_requests_running{$sel}"),
        **latencies("ttft", "$(prefix):time_to_first_token_seconds"),
        **latencies("itl", ["$(prefix):inter_token_latency_seconds", "$(prefix):time_per_output_token_seconds"]),
        **latencies("e2e", "$(prefix):e2e_request_latency_seconds"),
        "prompt_tokens_per_s": total_rate("$(prefix):prompt_tokens_total"),
        "generation_tokens_per_s": total_rate("$(prefix):generation_tokens_total"),
        "running": "avg by ($by) (avg_over_time($(prefix):num_requests_running{$sel}[$w]))",
        "kv_usage": (
            "avg by ($by) ($(prefix):kv_cache_usage_perc{$sel}) or avg by ($by) ($(prefix):gpu_cache_usage_perc{$sel})"
        ),
        "preemptions_per_s": total_rate("$(prefix):num_preemptions_total"),
        "prefix_hit_rate": ratio(
            total_rate(["$(prefix):prefix_cache_hits_total", "$(prefix):gpu_prefix_cache_hits_total"]),
            total_rate(["$(prefix):prefix_cache_queries_total", "$(prefix):gpu_prefix_cache_queries_total"]),
        ),
        "prefill_ms": mean_ms("$(prefix):request_prefill_time_seconds"),
        "decode_ms": mean_ms("$(prefix):request_decode_time_seconds"),
        **tokens("prompt_tokens", "$(prefix):request_prompt_tokens"),
        **tokens("output_tokens", "$(prefix):request_generation_tokens"),
        "steps_per_s": total_rate(f"{_STEPS}_count"),
        "step_tokens": ratio(total_rate(f"{_STEPS}_sum"), total_rate(f"{_STEPS}_count")),
        "arrivals_per_s": f"clamp_min(({_BEGUN}) + ({_GROWTH}), 0)",
        "length_rate": share(_ENDED, 'finished_reason="length"', _ENDED),
        "abort_rate": share(_ENDED, 'finished_reason="abort"', _ENDED),
        "unanswered_rate": f"({_LOST}) or on ($by) ({_LOST_BY_TOKENS})",
        "rejected_per_s": total_rate("$(prefix):admission_rejections_total"),
    },
    served="count by ($by) ($(prefix):num_requests_running{$sel})",
    version_label="model_name",
    buckets=increases("$(duration)_bucket"),
    edges_ms={signal: tuple(1e3 * edge for edge in edges) for signal, edges in _EDGES_S.items()},
    names={"duration": "$(prefix):e2e_request_latency_seconds", "prefix": "vllm", "requests": "http_requests_total"},
)
