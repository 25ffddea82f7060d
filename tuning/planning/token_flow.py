"""What the exported series say of a language model's engine: equations of the iteration time, lengths, the cache."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, MetricWindow
from tuning.model import Observation
from tuning.planning import thresholds as th
from tuning.planning.reading import first, number, tail
from tuning.planning.step_model import Measured

_EDGES = tuple(step * 10.0**power for power in range(8) for step in (1, 2, 5))
_TAIL = 0.95
SIGNALS = (
    "itl_ms",
    "generation_tokens_per_s",
    "prompt_tokens_per_s",
    "prefix_hit_rate",
    "steps_per_s",
    "step_tokens",
    "preemptions_per_s",
    "running",
    "qps",
    "replicas",
    "ttft_ms",
    "queue_ms",
    "queue_depth",
    "prefill_ms",
    "prompt_tokens",
    "output_tokens",
)
"""What the iteration time is learned from."""
_NEEDED = ("itl_ms", "generation_tokens_per_s")


@dataclass(frozen=True)
class Lengths:
    """Tokens per request: mean and 95th percentile of prompts (prefix hits not taken off) and answers; hit_rate: the
    share of prompt tokens that is found in the prefix cache."""

    prompt: float
    prompt_p95: float
    output: float
    output_p95: float
    hit_rate: float = 0.0

    @property
    def context(self) -> float:
        """Mean tokens of a running sequence: long answers are seen more often, and half of one is there."""
        wide = spread(self.output, self.output_p95)
        return self.prompt + 0.5 * self.output * math.exp(wide**2)

    @property
    def computed(self) -> float:
        """Prompt tokens of a request that are computed."""
        return self.prompt * (1 - self.hit_rate)


@functools.lru_cache(maxsize=512)
def spread(mean: float, p95: float) -> float:
    """Log scatter of the lognormal with this mean whose 95th percentile is exported as `p95`.

    Servers count tokens in buckets that end at 1, 2 and 5 times powers of ten, between which a percentile is a straight
    line: one of 1,950 is shown as 2,500. What is exported of each scatter is computed, and the one that fits is taken.
    """
    low, high = th.LENGTH_SPREAD
    if not (mean > 0 and p95 > mean):
        return low
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _exported_p95(mean, middle) < p95 else (low, middle)
    return (low + high) / 2


def _exported_p95(mean: float, sigma: float) -> float:
    """The interpolated 95th percentile of a lognormal in buckets of 1, 2, 5, 10, ... tokens."""
    last, below = 0.0, 0.0
    for edge in _EDGES:
        until = 0.5 * (1 + math.erf((math.log(edge / mean) / sigma + sigma / 2) / math.sqrt(2)))
        if until >= _TAIL:
            return last + (edge - last) * (_TAIL - below) / (until - below)
        last, below = edge, until
    return last


def drawn(mean: float, p95: float, z: FloatArray) -> list[int]:
    """Lengths of the lognormal with this mean and 95th percentile at standard normal values z; at least 1 token."""
    sigma = spread(mean, p95)
    return [max(1, round(value)) for value in (mean * np.exp(sigma * z - sigma**2 / 2)).tolist()]


def lengths(windows: Sequence[MetricWindow | None], since_s: float) -> Lengths | None:
    """Lengths from the first of the windows that has them: medians since `since_s` in the first, over all in others."""

    def level(signal: str) -> float | None:
        for k, window in enumerate(windows):
            values = tail(window, signal, since_s if k == 0 else -math.inf)[1] if window is not None else np.empty(0)
            if values.size:
                return float(np.median(values))
        return None

    prompt, output = level("prompt_tokens"), level("output_tokens")
    if not prompt or not output:
        return None
    return Lengths(
        prompt=prompt,
        prompt_p95=level("prompt_tokens_p95") or th.LENGTH_P95 * prompt,
        output=max(1.0, output),
        output_p95=level("output_tokens_p95") or th.LENGTH_P95 * output,
        hit_rate=float(np.clip(level("prefix_hit_rate") or 0.0, 0.0, th.HIT_MAX)),
    )


def kv_tokens(observation: Observation, size: Lengths, since_s: float) -> float:
    """Tokens that one replica's cache holds: as the server tells, else from what running sequences take of it.

    inf where nothing tells: then the cache limits nothing, which is true of a service that never filled it.
    """
    told = first(*(_fact(setting.facts, "kv_cache_tokens") for setting in observation.settings.values()))
    if told:
        return told
    _, usage = tail(observation.window, "kv_usage", since_s)
    _, running = tail(observation.window, "running", since_s)
    if not usage.size or not running.size:
        return math.inf
    used, sequences = float(np.median(usage)), float(np.median(running))
    if used < th.KV_SEEN or sequences <= 0:
        return math.inf
    return sequences * (size.context + th.BLOCK_TOKENS / 2) / used


def _fact(facts: Mapping[str, object], name: str) -> float | None:
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None


def block_tokens(observation: Observation) -> int:
    told = first(*(_fact(setting.facts, "block_size") for setting in observation.settings.values()))
    return round(told) if told else th.BLOCK_TOKENS


def knob(observation: Observation, name: str) -> int | None:
    """A knob of the batch lever as it was read; None where it was not."""
    value = number(observation.settings.get("batch_size"), name)
    return round(value) if value else None


def measured(
    window: MetricWindow | None,
    stride_s: float,
    *,
    until_s: float = math.inf,
    since_s: float = -math.inf,
    limit: float | None = None,
    budget: float | None = None,
) -> list[Measured]:
    """The equations of a window, oldest first, one time per `stride_s`: rates over one window are not independent.

    limit, budget: max_num_seqs and max_num_batched_tokens where they are known. A time right after a gap is left out:
    counters that began anew (a restart) make rates over the seam that nothing ran at.
    """
    if window is None or any(name not in window.values for name in _NEEDED):
        return []
    times, step_s = window.span.times(), window.span.step_s
    good = np.all([np.isfinite(window.values[name]) & (window.values[name] > 0) for name in _NEEDED], axis=0)
    seam = np.zeros_like(good)
    for back in range(1, max(1, round(stride_s / step_s)) + 1):
        seam[back:] |= ~good[:-back]
    usable = good & ~seam & (times < until_s) & (times >= since_s - 1e-9)
    stride = max(1, round(stride_s / step_s))
    found: list[Measured] = []
    for i in np.flatnonzero(usable)[::-1][::stride][::-1]:
        at = {name: float(values[i]) for name, values in window.values.items() if math.isfinite(values[i])}
        found += _equations(float(times[i]), at, limit, budget)
    return found


def _equations(at_s: float, at: Mapping[str, float], limit: float | None, budget: float | None) -> list[Measured]:
    replicas = max(1.0, at.get("replicas", 1.0))
    itl, generated = at["itl_ms"], at["generation_tokens_per_s"] / replicas / 1e3
    decoded = max(0.0, generated - at.get("qps", 0.0) / replicas / 1e3)
    prompts = at.get("prompt_tokens_per_s", 0.0) / replicas / 1e3 * (1 - min(at.get("prefix_hit_rate", 0.0), 1.0))
    context = at.get("prompt_tokens", 0.0) + 0.5 * at.get("output_tokens", 0.0)
    mean = decoded * itl
    found = []
    steps = at.get("steps_per_s", 0.0) / replicas
    preempted = at.get("preemptions_per_s", 0.0) > th.PREEMPTED * at.get("qps", 0.0)
    if steps > 0 and at.get("running", 0.0) >= th.NEVER_RESTS:
        y = 1e3 / steps
        n = decoded * y
        # What is computed again after a preemption is in no counter of prompts, only in the iterations' own.
        tokens = max(0.0, at["step_tokens"] - n) if "step_tokens" in at else prompts * y
        if not preempted or "step_tokens" in at:
            found.append(Measured(at_s, y, (1.0, n, tokens, n * context), n, tokens, exact=True))
    elif not preempted:
        n = mean + max(0.0, 1 - mean / limit) if limit else mean + 1
        found.append(Measured(at_s, itl, (1.0, n, prompts * itl, n * context), n, prompts * itl))
    prefill, prompt = at.get("prefill_ms", 0.0), at.get("prompt_tokens", 0.0)
    if prefill > 0 and prompt > 0 and not preempted:
        own = prompt * (1 - min(at.get("prefix_hit_rate", 0.0), 1.0))
        chunks = iterations(own, budget - mean) if budget else 1.0
        tokens = own + prompts * _shared_ms(itl, prefill, at.get("qps", 0.0) / replicas / 1e3)
        # Where prompts fill their iterations, how many each is spread over is the queue's doing and in no mean.
        if not budget or tokens <= chunks * max(0.0, budget - mean):
            features = (chunks, chunks * mean, tokens, chunks * mean * context)
            found.append(Measured(at_s, prefill, features, mean, own))
    return found


def _shared_ms(itl_ms: float, prefill_ms: float, per_ms: float) -> float:
    """How long the iteration lasts in which a request comes, whose other arrivals are read together with it.

    Long iterations are hit more often: E[t^2] / E[t] over iterations with prompts in them (a share 1 - exp(-rate *
    mean) of all, as long as a prefill) and without.
    """
    share = min(1 - math.exp(-per_ms * itl_ms), th.SHARED_MAX)
    without = max(0.0, (itl_ms - share * prefill_ms) / (1 - share))
    return ((1 - share) * without**2 + share * prefill_ms**2) / itl_ms


def iterations(prompt: float, room: float) -> float:
    """Mean number of iterations that prompts of mean length `prompt` take where each has `room` for prompt tokens."""
    share = prompt / max(1.0, room)
    return 1.0 if share < th.WHOLE_PROMPT else share + th.WHOLE_PROMPT


@dataclass(frozen=True)
class Answered:
    """What a service answered while its queue never emptied, and how sure that is (Poisson): that is its capacity."""

    per_s: float
    error: float


def answered(window: MetricWindow, since_s: float, rate_window_s: float) -> Answered | None:
    """From the newest stretch without an empty queue; None where there is none of a rate window's length.

    The rates of its first rate window are left out: they hold answers of the time before.
    """
    depth, rate = window.values.get("queue_depth"), window.values.get("qps")
    if depth is None or rate is None:
        return None
    times = window.span.times()
    stands = np.nan_to_num(depth, nan=th.WAITS) >= th.WAITS
    empty = np.flatnonzero(~stands | (times < since_s))
    first = int(empty[-1]) + 1 if empty.size else 0
    if first >= times.size or not np.isfinite(depth[first:]).any():
        return None
    inside = np.isfinite(rate) & (times >= times[first] + rate_window_s)
    if not inside.any():
        return None
    per_s = float(rate[inside].mean())
    count = per_s * (float(times[-1]) - float(times[first]))
    return Answered(per_s, 1.0 / math.sqrt(max(count, 1.0)))


def overhead_ms(window: MetricWindow | None, since_s: float, until_s: float = math.inf) -> float | None:
    """Time to first token outside queue and prefill (parsing, tokenising, the network), ms; None where it is not
    exported, or where requests waited all the time.

    A server tells the time to first token when that token comes, and the other two when the request has its answer:
    where a queue grows, the first is of later requests than the others, and their difference is the queue's.
    """
    if window is None or not {"ttft_ms", "queue_ms", "prefill_ms"} <= set(window.values):
        return None
    ttft, queue, prefill = (window.values[name] for name in ("ttft_ms", "queue_ms", "prefill_ms"))
    times, waiting = window.span.times(), window.values.get("queue_depth")
    nobody_waits = queue <= prefill if waiting is None else (queue <= prefill) & ~(waiting > 0)
    rest = ttft - queue - prefill
    rest = rest[np.isfinite(rest) & nobody_waits & (times >= since_s) & (times < until_s)]
    return max(0.0, float(np.median(rest))) if rest.size else None
