"""A training job: what is wrong with it, and what a person could do. It has no lever: the plan is always a hold. Pure.

The findings are those of detection (`detection.training`), on the window of now; the first is the cause, the others
stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.model import Incident
from detection.signals import shown, title
from detection.training import Finding, findings
from tuning.model import Advice, Diagnosis, Observation, Option
from tuning.planning import reading as rd
from tuning.planning.settings import PlanningSettings

WATCHED = "a training job is only watched"
_ADVICE: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    (
        "data loading",
        ("data_bound",),
        "load with more workers and prefetch beside the computing; keep decoded or packed samples on local disk; "
        "decode on the GPU",
        "Performance Tuning Guide: Enable async data loading and augmentation, PyTorch",
    ),
    (
        "profiling",
        ("gpu_rests", "slower_iterations"),
        "profile some iterations: what stands beside the kernels (synchronisation, copies, a slow worker) shows there",
        "PyTorch Profiler With TensorBoard, PyTorch Tutorials",
    ),
    (
        "larger batches",
        ("gpu_rests",),
        "give each iteration more to compute: a larger batch where memory allows it, and mixed precision where "
        "accuracy does",
        "Train With Mixed Precision, NVIDIA Deep Learning Performance Documentation",
    ),
    (
        "learning rate",
        ("loss_rising",),
        "go back to the last checkpoint before it with a lower learning rate or clipped gradients, and look at the "
        "data of those iterations",
        "On the Difficulty of Training Recurrent Neural Networks, Pascanu, Mikolov and Bengio, ICML 2013",
    ),
    (
        "stopping",
        ("loss_flat",),
        "look at the loss of held-back data: where that stands still too, stop, or lower the learning rate",
        "Early Stopping - But When?, Prechelt, 1998",
    ),
    (
        "hang",
        ("training_stalled",),
        "look what each worker waits for (py-spy dump): one that is gone leaves the others in a collective call",
        "Torch Distributed Elastic, PyTorch documentation",
    ),
)
"""(name, causes, what to do, title and publisher of the document that describes it)."""


def diagnosed(incident: Incident, observation: Observation, settings: PlanningSettings) -> Diagnosis:
    """The cause with its evidence and advice; never curable."""
    found = findings(observation.window)
    if found:
        told = (found[0].sentence, *(f"beside it, {one.sentence}" for one in found[1:]))
        return Diagnosis(cause=found[0].name, evidence=told, curable=False, advice=_advice(found))
    stale = rd.is_stale(observation, settings)
    if stale:
        return Diagnosis(cause="stale_data", evidence=(stale,), curable=False)
    promise = observation.promise
    now = rd.level(observation.window, promise.signal, rd.recent_s(observation, settings)) or 0.0
    is_now, limit = shown(promise.signal, now), shown(promise.signal, promise.limit_ms)
    kept = f"the {title(promise.signal)} is {is_now}, the SLO is {limit}"
    if now <= promise.limit_ms:
        return Diagnosis(cause="healthy", evidence=(kept,), curable=False)
    moved = "nothing that is exported has moved in the look-back"
    return Diagnosis(cause="unknown", evidence=(kept, moved), curable=False)


def _advice(found: Sequence[Finding]) -> tuple[Advice, ...]:
    return tuple(
        Advice(name=name, because=one.sentence, text=text, source=source)
        for one in found
        for name, causes, text, source in _ADVICE
        if one.name in causes
    )


def held(diagnosis: Diagnosis) -> Option:
    """Why nothing is done about it."""
    evidence = "; ".join(diagnosis.evidence)
    if diagnosis.cause == "healthy":
        return Option(changes=(), reason=f"hold: it recovered by itself: {evidence}")
    return Option(changes=(), reason=f"hold: {evidence}: {WATCHED}")
