"""What can be shown: one dataclass per scenario, and the pure functions that turn measured capacity into numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Expected = Literal["resolved", "nothing", "hold", "refused", "returned", "healed"]


@dataclass(frozen=True)
class Language:
    """An emulated engine of a language model and its load.

    An iteration takes step_ms + seq_ms for each sequence + token_ms for each token of a prompt. prompt, output: tokens,
    mean and standard deviation of the logarithm. kv_tokens: what the KV cache holds. baseline_rps, fault_rps: requests
    a second before t0 and from then on; burst: (requests a second, seconds) right after t0, before that. ttft_ms,
    itl_ms: what is promised at P95 (None: nothing); the first that is promised is what the demo watches.
    """

    baseline_rps: float
    fault_rps: float
    burst: tuple[float, float] | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None
    kv_tokens: int = 65_536
    max_num_batched_tokens: int = 2048
    step_ms: float = 20.0
    seq_ms: float = 0.4
    token_ms: float = 0.05
    prompt: tuple[float, float] = (160.0, 0.5)
    output: tuple[float, float] = (60.0, 0.5)

    @property
    def watched(self) -> tuple[str, float]:
        """("ttft" or "itl", its limit in ms)."""
        return ("ttft", self.ttft_ms) if self.ttft_ms is not None else ("itl", self.itl_ms or 0.0)


@dataclass(frozen=True)
class Scenario:
    """A story: what runs, what goes wrong, and what must follow.

    serving: "real" is ONNX Runtime in one process, "replicas" the emulated accelerator behind a Deployment with an HPA,
    "pods" the same, each process as a pod of its own with a limit of memory_mb, "language" an emulated engine of a
    language model behind a Deployment (batch_size is its max-num-seqs then).
    baseline, fault_load: load as a share of what the service can carry before anything is changed. fault: body of
    POST /fault. expected: "resolved" needs a change that worked and its mail; "nothing" neither; "hold" only a mail
    that says why; "refused" that mail after a gate said no; "returned" a temporary
    change that worked, and the old setting back by itself once the load has fallen; "healed" one change, its mail with
    the proof, and meanwhile neither a failed request nor a process that was killed. leak_mb_per_s: what one of the pods
    leaks from t0 on. slo_factor: the SLO is this many
    times the latency of a single unloaded request, rounded up. calibration: the precision lever is there, with rows
    "matching" the traffic or rows from "another" distribution.
    """

    name: str
    title: str
    expected: Expected
    serving: Literal["real", "replicas", "pods", "language"] = "real"
    baseline: float = 0.4
    fault_load: float | None = None
    fault: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """hold: what the subject of its mail must say."""
    batch_size: int = 1
    batch_max: int = 32
    slo_factor: float = 15.0
    replicas: int = 2
    max_replicas: int = 4
    alpha_ms: float = 40.0
    beta_ms: float = 5.0
    calibration: Literal["matching", "another"] | None = None
    language: Language | None = None
    memory_mb: int = 0
    leak_mb_per_s: float = 0.0
    release: bool = False
    """Somebody else releases a version 2 that does three times the work per row; version 1 has to come back."""
    variant: bool = False
    """A smaller model stands by as version 2: right a little less often, and much faster."""
    admission: bool = False
    """The server's queue may be limited; nothing else is left to do."""
    price: str = "point-minutes"
    """returned: what the mail about the change that is over has to say of what it cost."""
    cause: str = ""
    """resolved: what the first plan with a change has to name as the cause, ..."""
    first: str = ""
    """... and the lever of its change ("": any)."""
    proof: str = ""
    """resolved: what the subject of the mail with the proof has to say."""
    mode: Literal["act", "approve"] = "act"
    """approve: a person is asked by mail, and the demo's person says yes in a browser."""
    duration_s: float = 180.0
    """How long the demo waits for the expected end after the fault ("nothing": how long it watches)."""


SCENARIOS: dict[str, Scenario] = {
    s.name: s
    for s in (
        Scenario(
            "batch",
            "traffic rises past what batch size 1 can carry (ONNX Runtime on one core)",
            "resolved",
            fault_load=1.5,
        ),
        Scenario(
            "approve",
            "as batch, in mode approve: a person follows the mail's link in a browser and says yes",
            "resolved",
            fault_load=1.5,
            mode="approve",
            duration_s=300.0,
        ),
        Scenario(
            "hold",
            "the service answers 500 to three requests in ten, without any load to speak of",
            "hold",
            fault={"error_share": 0.3},
            reason="of requests fail",
        ),
        Scenario(
            "replicas",
            "batch is at its bound and two replicas saturate (emulated accelerator)",
            "resolved",
            serving="replicas",
            fault_load=1.3,
            batch_size=8,
            batch_max=8,
            slo_factor=5.0,
        ),
        Scenario(
            "canary",
            "traffic rises past what three replicas carry at batch size 1: one replica is changed first (emulated)",
            "resolved",
            serving="replicas",
            fault_load=1.3,
            batch_max=16,
            slo_factor=5.0,
            replicas=3,
            max_replicas=3,
            duration_s=240.0,
        ),
        Scenario(
            "int8",
            "traffic rises past what FP32 can carry, and the batch size is at its bound (ONNX Runtime on one core)",
            "resolved",
            fault_load=1.25,
            batch_max=1,
            calibration="matching",
            duration_s=300.0,
        ),
        Scenario(
            "int8-bad",
            "as int8, but the calibration data come from another distribution than the traffic",
            "refused",
            fault_load=1.25,
            batch_max=1,
            calibration="another",
            duration_s=300.0,
        ),
        Scenario(
            "bad-release",
            "somebody releases a version 2 that does three times the work per row (ONNX Runtime on one core)",
            "resolved",
            baseline=0.45,
            batch_max=1,
            release=True,
            cause="bad_release",
            first="release",
            proof="Resolved",  # that the release was taken back is told at once, before anything is proven
        ),
        Scenario(
            "degrade",
            "traffic triples past what the only server carries; a smaller model stands by (ONNX Runtime on one core)",
            "returned",
            baseline=0.45,
            fault_load=1.4,
            batch_max=1,
            variant=True,
            first="variant",
            proof="Resolved",
            duration_s=300.0,
        ),
        Scenario(
            "admission",
            "more comes than the only replica carries, and nothing else is left: what is late is refused (emulated)",
            "returned",
            # Emulated, since refusing is work too: where the model computes on the same core, a request that is refused
            # takes time from one that is answered, and how much that is depends on the machine.
            serving="replicas",
            baseline=0.45,
            fault_load=1.5,
            batch_max=1,
            replicas=1,
            max_replicas=1,
            admission=True,
            first="admission",
            proof="Resolved",
            price="requests refused",
            duration_s=300.0,
        ),
        Scenario(
            "heal",
            "one of two replicas leaks memory, and would be killed at its limit (emulated accelerator)",
            "healed",
            serving="pods",
            memory_mb=300,
            leak_mb_per_s=1.2,
            cause="leaking_replica",
            first="restart",
            proof="Resolved",
            duration_s=220.0,
        ),
        Scenario(
            "llm-concurrency",
            "more requests than --max-num-seqs lets run at once, while the KV cache is nearly empty (emulated engine)",
            "resolved",
            serving="language",
            batch_size=4,
            batch_max=64,
            language=Language(baseline_rps=0.8, fault_rps=5.0, ttft_ms=400.0, itl_ms=80.0),
            duration_s=240.0,
        ),
        Scenario(
            "llm-kv",
            "a burst fills the KV cache, and requests that throw each other out keep it full (emulated engine)",
            "resolved",
            serving="language",
            batch_size=64,
            batch_max=128,
            language=Language(
                baseline_rps=0.6,
                burst=(3.0, 15.0),
                fault_rps=0.88,
                ttft_ms=5000.0,
                kv_tokens=8192,
                max_num_batched_tokens=512,
                step_ms=10.0,
                seq_ms=0.2,
                token_ms=1.0,
                prompt=(400.0, 0.2),
                output=(300.0, 0.25),
            ),
            duration_s=540.0,
        ),
        # Light load: on a busy machine batches take twice as long, and that alone must not break the SLO.
        Scenario("steady", "nothing goes wrong", "nothing", baseline=0.25, duration_s=300.0),
    )
}


def capacity_rps(service_s: Mapping[int, float], batch_size: int, replicas: int = 1) -> float:
    """Requests per second that `replicas` carry at this batch size; service_s[b]: seconds of a batch of b rows."""
    return replicas * batch_size / service_s[batch_size]


def slo_ms(service_s: Mapping[int, float], batch_size: int, factor: float) -> float:
    """The SLO: `factor` times a batch's time, rounded up to whole tens of milliseconds."""
    return math.ceil(factor * service_s[batch_size] * 100) * 10.0


def surge_rps(share: float, capacity_rps: float, now_rps: float | None = None) -> float | None:
    """The load of a surge: `share` of the capacity. None when `now_rps` is already as much as that, within 5 %."""
    wanted = share * capacity_rps
    return None if now_rps is not None and wanted <= 1.05 * now_rps else wanted
