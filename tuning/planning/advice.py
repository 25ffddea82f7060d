"""What a person could do that no lever does: one table from a cause and what was measured to an advice. Pure.

An advice is given only where its evidence was measured: a signal that is not exported points nowhere. None of them
changes anything; each names the document that says how it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tuning.formats import ms
from tuning.model import Advice
from tuning.planning import thresholds as th
from tuning.planning.facts import Facts
from tuning.planning.reading import level, recent_s
from tuning.planning.stages import Dominant


@dataclass(frozen=True, slots=True)
class Row:
    """name: a word for it. causes: under which it is looked for (none: any that hurts). because: the evidence in a
    sentence, "" where there is none. source: title and publisher of the document that describes it."""

    name: str
    causes: tuple[str, ...]
    because: Callable[[Facts], str]
    text: str
    source: str


def _now(f: Facts, signal: str) -> float | None:
    return level(f.observation.window, signal, recent_s(f.observation, f.settings))


def _shared_gpu(f: Facts) -> str:
    util = _now(f, "gpu_util")
    return f"batch times come and go on a GPU that is {util:.0%} busy" if util is not None else ""


def _shared_cpu(f: Facts) -> str:
    cpu, gpu = _now(f, "cpu"), _now(f, "gpu_util")
    return f"batch times come and go, and the CPU is {cpu:.0%} busy" if cpu is not None and gpu is None else ""


def _warms(f: Facts) -> str:
    return f.warming


def _gpu_rests(f: Facts) -> str:
    util, busy = _now(f, "gpu_util"), f.now.busy
    if util is None or busy is None or util >= th.GPU_RESTS or busy < th.ALWAYS_COMPUTES:
        return ""
    return f"the model computes {min(busy, 1.0):.0%} of the time, and the GPU is {util:.0%} busy"


def _alone_too_slow(f: Facts) -> str:
    """No waiting to take away: what a batch takes by itself is what breaks the promise."""
    if f.language is not None or f.saturated or f.now.batch_ms is None or f.now.batch_ms < f.slo_ms:
        return ""
    return f"a batch takes {ms(f.now.batch_ms)} by itself with no queue before it, and the SLO is {ms(f.slo_ms)}"


def _not_int8(f: Facts) -> str:
    alone = _alone_too_slow(f)
    if not alone or "precision" in f.observation.service.levers:
        return ""
    return f"{alone}; there is no lever `precision`"


def _one_by_one(f: Facts) -> str:
    """Rows are computed one by one while others wait, and nothing here could change that."""
    rows, lever = f.now.rows_per_batch, f.observation.service.levers.get("batch_size")
    if rows is None or rows >= th.HARDLY_BATCHED or not f.saturated or lever is not None:
        return ""
    return f"a batch holds {rows:.1f} rows while requests wait"


def _stage(name: str) -> Callable[[Facts], str]:
    def because(f: Facts) -> str:
        found: Dominant | None = f.stage
        return found.sentence if found is not None and found.stage == name else ""

    return because


def _hot(f: Facts) -> str:
    degrees = _now(f, "gpu_temperature_c")
    return f"the GPU is at {degrees:.0f} degrees" if degrees is not None and degrees >= th.GPU_HOT_C else ""


def _prefix(f: Facts) -> str:
    rate = f.language.prefix_hit_rate if f.language is not None else None
    if rate is None or rate >= th.CACHE_MISSES:
        return ""
    return f"{rate:.0%} of the prompt tokens are found in the prefix cache"


def _kv_full(f: Facts) -> str:
    usage = f.language.kv_usage if f.language is not None else None
    return f"the KV cache is {usage:.0%} full" if usage is not None and usage >= th.KV_FULL else ""


def _prefill(f: Facts) -> str:
    prefill, decode = (f.language.prefill_ms, f.language.decode_ms) if f.language is not None else (None, None)
    if prefill is None or decode is None or prefill <= decode:
        return ""
    return f"the prompt takes {ms(prefill)} of a request and the answer {ms(decode)}"


TABLE = (
    Row(
        "MIG",
        ("noisy_neighbour",),
        _shared_gpu,
        "give each of those who share the card a part of its own (Multi-Instance GPU), or move one of them away",
        "NVIDIA Multi-Instance GPU User Guide, NVIDIA",
    ),
    Row(
        "CPU affinity",
        ("noisy_neighbour",),
        _shared_cpu,
        "give the server cores of its own: the CPU manager's static policy with whole cores as request and limit",
        "Control CPU Management Policies on the Node, Kubernetes documentation",
    ),
    Row(
        "warm-up",
        ("warming_up",),
        _warms,
        "let the server warm up before it takes traffic: sample requests at load, and readiness only after them",
        "Model Configuration: Model Warmup, NVIDIA Triton Inference Server User Guide",
    ),
    Row(
        "several instances",
        ("load_surge", "batch_too_small", "slower_service", "lost_capacity", "unknown"),
        _gpu_rests,
        "let two or more instances of the model compute at once on the card, each in a stream of its own "
        "(instance_group count)",
        "Concurrent Model Execution, NVIDIA Triton Inference Server User Guide",
    ),
    Row(
        "dynamic batching",
        ("load_surge", "slower_service", "lost_capacity", "unknown"),
        _one_by_one,
        "let the server put waiting requests into one batch, and give the service the lever `batch_size`",
        "Model Configuration: Dynamic Batcher, NVIDIA Triton Inference Server User Guide",
    ),
    Row(
        "INT8",
        ("slower_service", "unknown"),
        _not_int8,
        "try the model in INT8 (`slotune quantize` measures speed and agreement before anything serves it)",
        "Quantize ONNX Models, ONNX Runtime documentation",
    ),
    Row(
        "distillation",
        ("slower_service", "unknown"),
        _alone_too_slow,
        "no capacity shortens that: train a smaller model on the answers of this one, and serve it as a variant",
        "Distilling the Knowledge in a Neural Network, Hinton, Vinyals and Dean, 2015",
    ),
    Row(
        "pruning",
        ("slower_service", "unknown"),
        _alone_too_slow,
        "remove whole channels or heads that matter least and train on: fewer of them is less to compute",
        "Pruning Filters for Efficient ConvNets, Li, Kadav, Durdanovic, Samet and Graf, ICLR 2017",
    ),
    Row(
        "pre-processing elsewhere",
        (),
        _stage("pre-processing"),
        "decode and resize on the GPU, on more cores, or at the client; send tensors in binary and no larger than the "
        "model reads",
        "NVIDIA DALI Documentation, NVIDIA",
    ),
    Row(
        "post-processing elsewhere",
        (),
        _stage("post-processing"),
        "take the work after the model into its graph or a service of its own, and return no more than is read",
        "Ensemble Models, NVIDIA Triton Inference Server User Guide",
    ),
    Row(
        "cooling",
        ("slower_service", "slow_replica", "slower_engine"),
        _hot,
        "look whether the card slows its clocks for its temperature (nvidia-smi -q -d PERFORMANCE), and cool it",
        "nvidia-smi: Clocks Event Reasons, NVIDIA System Management Interface documentation",
    ),
    Row(
        "prefix cache",
        ("prefill_bound", "longer_prompts", "prefix_cache_lost"),
        _prefix,
        "put what prompts share at their beginning, switch the prefix cache on, and send those that share it to one "
        "replica",
        "Automatic Prefix Caching, vLLM documentation",
    ),
    Row(
        "smaller KV cache",
        ("kv_cache_full",),
        _kv_full,
        "keep the KV cache in FP8: about twice as many tokens fit, at a loss that has to be measured",
        "Quantized KV Cache, vLLM documentation",
    ),
    Row(
        "chunked prefill",
        ("prefill_bound", "longer_prompts"),
        _prefill,
        "let long prompts be computed in pieces beside the answers of others",
        "Optimization and Tuning: Chunked Prefill, vLLM documentation",
    ),
)
"""Every advice; a row for one cause says nothing under another one."""
NEVER = frozenset({"stale_data", "healthy", "idle_capacity", "fresh_release", "bad_release", "errors"})
"""Causes under which nothing is wrong with how the service is run, or nobody can tell."""


def advise(cause: str, facts: Facts) -> tuple[Advice, ...]:
    """What the evidence points to, in the table's order; () where it points nowhere."""
    if cause in NEVER:
        return ()
    return tuple(_given(cause, facts))


def _given(cause: str, facts: Facts) -> Iterable[Advice]:
    for row in TABLE:
        if row.causes and cause not in row.causes:
            continue
        because = row.because(facts)
        if because:
            yield Advice(name=row.name, because=because, text=row.text, source=row.source)
