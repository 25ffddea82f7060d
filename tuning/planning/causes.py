"""The one list of causes: name, what it means for a person, whether a lever cures it, and which ones.

A diagnosis names one of these; the mail, the ledger's posterior and the benchmarks use the same names. How each is
recognised stands in `diagnosis`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuning.planning import thresholds as th


@dataclass(frozen=True, slots=True)
class Cause:
    """name: the word in the ledger. title: for people. levers: those that can cure it (none: a person has to).

    pair_adds: how many replicas two levers at once may add at most (None: any).
    told_by: the signals without which it cannot be told, all of one group; none for what is left when nothing else is
    told. What the lever itself says (the batch limit, the timeout, the replicas) is read from the lever where no signal
    has it.
    """

    name: str
    title: str
    levers: tuple[str, ...] = ()
    curable: bool = True
    pair_adds: int | None = None
    told_by: tuple[tuple[str, ...], ...] = ()


_ALL = ("batch_size", "replicas", "precision", "variant", "admission")

_TABLE = (
    Cause(
        "bad_release",
        "a new version of the model is worse than the one before it",
        ("release", *_ALL),
        told_by=(("p95_ms", "batch_ms"), ("p95_ms", "qps"), ("error_rate",), ("accuracy",), ("agreement",)),
    ),
    Cause(
        "fresh_release",
        "a version was just released, and what it moved cannot be told yet",
        curable=False,
        told_by=(("p95_ms", "qps"), ("error_rate",), ("accuracy",), ("agreement",)),
    ),
    Cause("load_surge", "more traffic than usual", _ALL, told_by=(("p95_ms", "qps"),)),
    Cause("lost_capacity", "replicas are missing", _ALL, told_by=(("p95_ms", "qps", "replicas"),)),
    Cause(
        "slower_service",
        "each batch takes longer than it did",
        _ALL,
        told_by=(("p95_ms", "batch_ms"), ("p95_ms", "busy")),
    ),
    Cause(
        "batch_too_small",
        "full batches while requests queue",
        _ALL,
        told_by=(("p95_ms", "queue_ms", "rows_per_batch"), ("p95_ms", "queue_depth", "rows_per_batch")),
    ),
    Cause(
        "batch_wait_too_long",
        "requests wait for a batch that does not fill",
        ("batch_size",),
        told_by=(("p95_ms", "queue_ms", "rows_per_batch", "batch_ms"),),
    ),
    Cause(
        "slow_replica",
        "one replica is slower than the others",
        ("restart", "replicas", "precision", "variant", "admission"),
        pair_adds=th.STAND_INS,
        told_by=(("p95_ms", "replicas"),),
    ),
    Cause(
        "wrong_replica",
        "the answers of one replica fail or differ from its peers'",
        ("restart",),
        told_by=(("error_rate", "replicas"), ("agreement", "replicas"), ("accuracy", "replicas")),
    ),
    Cause(
        "leaking_replica",
        "the memory of a replica grows towards its limit",
        ("restart",),
        told_by=(("memory_gb", "memory_limit_gb"),),
    ),
    Cause(
        "warming_up",
        "a replica was just started, and is slow until it is warm",
        curable=False,
        told_by=(("p95_ms", "uptime_s"),),
    ),
    Cause(
        "slow_stage",
        "most of the time goes into work around the model, which no lever of the model shortens",
        curable=False,
        told_by=(("p95_ms", "pre_ms", "compute_ms"), ("p95_ms", "post_ms", "compute_ms")),
    ),
    Cause(
        "noisy_neighbour",
        "batch times come and go with something else on the machine",
        _ALL,
        told_by=(("p95_ms", "batch_ms"),),
    ),
    Cause(
        "kv_cache_full",
        "the KV cache is full while requests wait",
        _ALL,
        told_by=(("ttft_p95_ms", "kv_usage", "queue_depth"), ("ttft_p95_ms", "preemptions_per_s")),
    ),
    Cause(
        "concurrency_limited",
        "requests wait for a free place while the KV cache has room",
        _ALL,
        told_by=(("ttft_p95_ms", "running", "queue_depth"),),
    ),
    Cause(
        "decode_bound",
        "many requests run at once, and each token takes its time",
        _ALL,
        told_by=(("itl_p95_ms", "running", "queue_depth"),),
    ),
    Cause(
        "prefill_bound",
        "the computing of prompts fills the time",
        _ALL,
        told_by=(("itl_p50_ms", "itl_p95_ms"), ("ttft_ms", "prefill_ms")),
    ),
    Cause("longer_prompts", "prompts are longer than usual", _ALL, told_by=(("prompt_tokens",),)),
    Cause("longer_outputs", "answers are longer than usual", _ALL, told_by=(("output_tokens",),)),
    Cause(
        "prefix_cache_lost", "prompts are no longer found in the prefix cache", _ALL, told_by=(("prefix_hit_rate",),)
    ),
    Cause(
        "slower_engine", "each iteration of the engine takes longer than it did", _ALL, told_by=(("itl_ms", "running"),)
    ),
    Cause(
        "engine_stalled",
        "requests come and none is answered",
        curable=False,
        told_by=(("qps", "steps_per_s"), ("qps", "unanswered_rate")),
    ),
    Cause(
        "data_drift",
        "what the service is fed is unlike what it was",
        curable=False,
        told_by=(("data_drift",), ("data_missing",), ("data_outside",), ("data_schema",), ("data_age",)),
    ),
    Cause(
        "training_stalled", "a training job makes no progress", curable=False, told_by=(("iterations_per_s",),)
    ),
    Cause("loss_rising", "the loss of a training job rises", curable=False, told_by=(("loss",),)),
    Cause("slower_iterations", "an iteration takes longer than it did", curable=False, told_by=(("iteration_ms",),)),
    Cause(
        "data_bound",
        "a training job waits for its data",
        curable=False,
        told_by=(("iteration_ms", "data_wait_ms"),),
    ),
    Cause("gpu_rests", "the GPU of a training job rests", curable=False, told_by=(("iteration_ms", "gpu_util"),)),
    Cause("loss_flat", "the loss of a training job stands still", curable=False, told_by=(("loss",),)),
    Cause("errors", "requests fail", curable=False, told_by=(("error_rate",),)),
    Cause("idle_capacity", "far more capacity than the traffic needs", ("replicas",), told_by=(("qps", "busy"),)),
    Cause("stale_data", "the numbers are old or missing", curable=False, told_by=((),)),
    Cause("healthy", "the SLO is met", curable=False),
    Cause("unknown", "what is exported does not tell", _ALL),
)

CAUSES: dict[str, Cause] = {cause.name: cause for cause in _TABLE}
