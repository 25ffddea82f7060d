"""vLLM: an engine for language models with continuous batching (`vllm:*`, version 1 of its engine).

`duration` is what the SLO speaks of: the whole request by default, whose first bucket ends at 300 ms; override it with
`metric.duration: vllm:time_to_first_token_seconds` where the first token is what counts. `rows_per_batch` is how many
requests run at once. `gpu_memory` is the share of the KV cache in use: the rest of the GPU's memory vLLM takes at start
whatever the load. Where a platform put another word before all names (`kserve_vllm:...`), `metric.prefix` is that word.

Failed requests are counted by the HTTP server in front (`metric.requests`), if at all. vLLM's own has no model's name,
so that requests of the instances that serve the model are counted too; what checks health and scrapes is left out.
"""

from __future__ import annotations

from detection.presets._preset import Preset, increases, instances, mean_ms, quantile_ms, ratio, share, total_rate

_PLACES = "group by ($by instance) ($(prefix):num_requests_running{$sel})"
_PEOPLE = 'handler!~"/health|/metrics|/ping|/version|/load"'


def _of_instances(matcher: str) -> str:
    """Requests per second of the instances that serve a model, from a counter that knows no models."""
    rates = f"sum by (instance) (rate($(requests){{{matcher}{_PEOPLE}}}[$w]))"
    return f"sum by ($by) ({_PLACES} * on (instance) group_left () {rates})"


_FAILED = 'status=~"5..",'
_BASE = _of_instances("")
_ERRORS = share("$(requests)", _FAILED + _PEOPLE, "$(requests)", _PEOPLE)
_ERRORS_OF_INSTANCES = ratio(f"{_of_instances(_FAILED)} or 0 * {_BASE}", _BASE)

PRESET = Preset(
    name="vllm",
    title="vLLM",
    versions="0.8 to 0.32; the KV cache also by its name before 0.9",
    replica_label="instance",
    presence="$(prefix):num_requests_running{$sel}",
    signals={
        "p50_ms": quantile_ms(0.5, "$(duration)_bucket"),
        "p95_ms": quantile_ms(0.95, "$(duration)_bucket"),
        "p99_ms": quantile_ms(0.99, "$(duration)_bucket"),
        "mean_ms": mean_ms("$(duration)"),
        "qps": total_rate("$(prefix):request_success_total"),
        "error_rate": f"({_ERRORS}) or on ($by) ({_ERRORS_OF_INSTANCES})",
        "queue_ms": mean_ms("$(prefix):request_queue_time_seconds"),
        "queue_depth": "sum by ($by) ($(prefix):num_requests_waiting{$sel})",
        "rows_per_batch": "avg by ($by) (avg_over_time($(prefix):num_requests_running{$sel}[$w]))",
        "gpu_memory": (
            "avg by ($by) ($(prefix):kv_cache_usage_perc{$sel}) or avg by ($by) ($(prefix):gpu_cache_usage_perc{$sel})"
        ),
        "replicas": instances("$(prefix):num_requests_running{$sel}"),
    },
    buckets=increases("$(duration)_bucket"),
    names={"duration": "$(prefix):e2e_request_latency_seconds", "prefix": "vllm", "requests": "http_requests_total"},
)
