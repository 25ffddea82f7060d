"""llama.cpp's server (`llamacpp:*`, started with --metrics). It exports no histogram: no percentile, no objective.

What it does say: tokens, how many requests run and wait, and mean times of prompts and tokens. Where a gateway in front
measures latencies, `signals` of the service adds them by PromQL, and then they can be promised.
"""

from __future__ import annotations

from detection.presets._preset import LANGUAGE_ENGINE, Preset, instances, ratio, total_rate

_STEPS = total_rate("llamacpp:n_decode_total")
_PER_TOKEN = ratio(total_rate("llamacpp:tokens_predicted_seconds_total"), total_rate("llamacpp:tokens_predicted_total"))

PRESET = Preset(
    name="llamacpp",
    title="llama.cpp server",
    versions="builds 3000 to 7500; the KV cache where a build still exports it",
    percentile_source="none",
    replica_label="instance",
    engine=LANGUAGE_ENGINE,
    presence="llamacpp:requests_processing{$sel}",
    signals={
        "queue_depth": "sum by ($by) (llamacpp:requests_deferred{$sel})",
        "replicas": instances("llamacpp:requests_processing{$sel}"),
        "itl_ms": f"1000 * {_PER_TOKEN}",
        "prompt_tokens_per_s": total_rate("llamacpp:prompt_tokens_total"),
        "generation_tokens_per_s": total_rate("llamacpp:tokens_predicted_total"),
        "running": "avg by ($by) (avg_over_time(llamacpp:requests_processing{$sel}[$w]))",
        "kv_usage": "avg by ($by) (llamacpp:kv_cache_usage_ratio{$sel})",
        "steps_per_s": _STEPS,
    },
)
