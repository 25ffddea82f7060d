"""What the emulated engine exports: vLLM's names and bounds, so that the preset `vllm` reads it like the real one."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
           160.0, 640.0, 2560.0)  # fmt: skip
_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_WHOLE_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
            960.0, 1920.0, 7680.0)  # fmt: skip
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_STEP = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
HISTOGRAMS: dict[str, Sequence[float]] = {
    "time_to_first_token_seconds": _TTFT_S,
    "inter_token_latency_seconds": _TOKEN_S,
    "e2e_request_latency_seconds": _WHOLE_S,
    "request_queue_time_seconds": _WHOLE_S,
    "request_prefill_time_seconds": _WHOLE_S,
    "request_decode_time_seconds": _WHOLE_S,
    "request_prompt_tokens": _TOKENS,
    "request_generation_tokens": _TOKENS,
    "iteration_tokens_total": _STEP,
}
COUNTERS = ("num_preemptions_total", "prompt_tokens_total", "generation_tokens_total", "prefix_cache_queries_total",
            "prefix_cache_hits_total")  # fmt: skip


class Metrics:
    """Counts of one engine since it started."""

    def __init__(self, model: str) -> None:
        self._labels = f'engine="0",model_name="{model}"'
        self._bins = {name: [0] * (len(bounds) + 1) for name, bounds in HISTOGRAMS.items()}
        self._sums = dict.fromkeys(HISTOGRAMS, 0.0)
        self._counters = dict.fromkeys(COUNTERS, 0.0)
        self._finished = dict.fromkeys(("stop", "length", "abort"), 0)
        self._http = dict.fromkeys(("2xx", "4xx", "5xx"), 0)

    def observe(self, name: str, value: float) -> None:
        self._bins[name][bisect.bisect_left(HISTOGRAMS[name], value)] += 1
        self._sums[name] += value

    def add(self, name: str, value: float = 1.0) -> None:
        self._counters[name] += value

    def finished(self, reason: str) -> None:
        self._finished[reason] += 1

    def http(self, status: str) -> None:
        self._http[status] += 1

    def text(self, *, running: int, waiting: int, kv_usage: float) -> str:
        """The page that Prometheus scrapes."""
        gauges = {"num_requests_running": running, "num_requests_waiting": waiting, "kv_cache_usage_perc": kv_usage}
        lines = [f"vllm:{name}{{{self._labels}}} {value:g}" for name, value in gauges.items()]
        lines += [f"vllm:{name}{{{self._labels}}} {value:g}" for name, value in self._counters.items()]
        lines += [
            f'vllm:request_success_total{{{self._labels},finished_reason="{reason}"}} {count}'
            for reason, count in self._finished.items()
        ]
        for name, bounds in HISTOGRAMS.items():
            total = 0
            for bound, count in zip((*map(str, bounds), "+Inf"), self._bins[name], strict=True):
                total += count
                lines.append(f'vllm:{name}_bucket{{{self._labels},le="{bound}"}} {total}')
            lines.append(f"vllm:{name}_count{{{self._labels}}} {total}")
            lines.append(f"vllm:{name}_sum{{{self._labels}}} {self._sums[name]:.9g}")
        lines += [
            f'http_requests_total{{handler="/v1/completions",method="POST",status="{status}"}} {count}'
            for status, count in self._http.items()
        ]
        lines.append(f"slotune_demo_emulated{{{self._labels}}} 1")
        return "\n".join(lines) + "\n"
