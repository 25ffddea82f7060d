"""The signals that only servers of language models have: tokens instead of rows, a KV cache, two latencies instead of
one.

Time to first token (TTFT) is what a person waits before anything happens, time per output token (ITL, the time between
two tokens of one answer) how fast the answer runs afterwards. A mean over requests is a mean over those that ended.
"""

from __future__ import annotations

from detection.signal import Signal

_NO_TTFT = "the time to the first token cannot be an objective"
_NO_ITL = "the time per output token cannot be an objective"
_NO_MODEL = "the model of continuous batching learns nothing: options are not predicted"
_NO_MIX = "longer requests are not told apart from more of them"

LANGUAGE = (
    Signal("ttft_ms", "ms", "up", "mean TTFT", log=True, floor=5.0, without=_NO_MODEL),
    Signal("ttft_p50_ms", "ms", "up", "median TTFT", log=True, floor=5.0, without="the middle is not watched"),
    Signal("ttft_p95_ms", "ms", "up", "TTFT P95", log=True, floor=5.0, without=_NO_TTFT),
    Signal("ttft_p99_ms", "ms", "up", "TTFT P99", log=True, floor=5.0, without="the worst give no warning"),
    Signal("itl_ms", "ms", "up", "mean time per output token", log=True, floor=1.0, without=_NO_MODEL),
    Signal("itl_p50_ms", "ms", "up", "median ITL", log=True, floor=1.0, without="the middle is not watched"),
    Signal("itl_p95_ms", "ms", "up", "ITL P95", log=True, floor=1.0, without=_NO_ITL),
    Signal("itl_p99_ms", "ms", "up", "ITL P99", log=True, floor=1.0, without="the worst give no warning"),
    Signal("e2e_ms", "ms", "up", "mean time of a whole request", log=True, floor=20.0, without="p95_ms says it alone"),
    Signal("e2e_p50_ms", "ms", "up", "median end to end", log=True, floor=20.0, without="p50_ms says it alone"),
    Signal("e2e_p95_ms", "ms", "up", "end-to-end P95", log=True, floor=20.0, without="p95_ms says it alone"),
    Signal("e2e_p99_ms", "ms", "up", "end-to-end P99", log=True, floor=20.0, without="p99_ms says it alone"),
    Signal("prompt_tokens_per_s", "tokens/s", "none", "prompt tokens computed", without=_NO_MODEL),
    Signal(
        "generation_tokens_per_s",
        "tokens/s",
        "none",
        "tokens generated",
        without="a change that makes fewer tokens is not noticed",
    ),
    Signal(
        "running",
        "requests",
        "none",
        "requests that run at once in a replica",
        without="whether the limit of concurrent requests is what they wait for is unknown",
    ),
    Signal(
        "kv_usage",
        "share",
        "none",
        "KV cache in use",
        floor=0.03,
        without="a full KV cache is not told apart from a low limit: no change of the limit is proposed",
    ),
    Signal(
        "preemptions_per_s",
        "1/s",
        "up",
        "requests thrown out of the KV cache and computed again",
        floor=0.05,
        without="a full KV cache is seen by its usage alone",
    ),
    Signal(
        "prefix_hit_rate",
        "share",
        "none",
        "prompt tokens found in the prefix cache",
        floor=0.05,
        without="a lost prefix cache is not told apart from longer prompts",
    ),
    Signal("prefill_ms", "ms", "none", "mean time to compute a prompt", log=True, floor=5.0, without=_NO_MODEL),
    Signal("decode_ms", "ms", "none", "mean time to generate an answer", log=True, floor=20.0, without=_NO_MODEL),
    Signal("prompt_tokens", "tokens", "none", "mean prompt", without=_NO_MIX),
    Signal("prompt_tokens_p95", "tokens", "none", "P95 of prompts", without="lengths are drawn from the mean alone"),
    Signal("output_tokens", "tokens", "none", "mean answer", without=_NO_MIX),
    Signal("output_tokens_p95", "tokens", "none", "P95 of answers", without="lengths are drawn from the mean alone"),
    Signal("steps_per_s", "1/s", "none", "iterations of the engine", without=_NO_MODEL),
    Signal("step_tokens", "tokens", "none", "mean tokens of an iteration", without=_NO_MODEL),
    Signal(
        "arrivals_per_s",
        "1/s",
        "none",
        "requests that came",
        without="requests that ended stand for those that came, which is too few where a queue grows",
    ),
    Signal(
        "length_rate",
        "share",
        "none",
        "answers cut off at their longest length",
        floor=0.05,
        without="answers that became longer only up to their limit look like longer answers",
    ),
    Signal(
        "abort_rate",
        "share",
        "up",
        "requests that were aborted",
        floor=0.01,
        without="aborted requests are not watched",
    ),
    Signal(
        "unanswered_rate",
        "share",
        "up",
        "requests that ended without an answer",
        floor=0.02,
        without="clients that gave up, and an engine that hangs, are not noticed",
    ),
    Signal(
        "rejected_per_s",
        "1/s",
        "up",
        "requests turned away at a limit of the queue",
        floor=0.05,
        without="requests that are turned away show as errors alone",
    ),
)
"""In the order in which they are told."""
