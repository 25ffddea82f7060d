"""What the pods of a workload are doing, and the steps in which a floor is lowered. Pure functions of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuning.actuators._options import bounded

Pod = dict[str, Any]
START_S = 300.0
"""A pod that runs for longer than this and is not ready is not starting any more: it is in trouble."""


@dataclass(frozen=True)
class Pods:
    """Pods by state; terminating and finished ones are not counted. why: the scheduler's words, "" when none.

    unready: running for longer than a start takes, and not ready (an overloaded pod fails its probe): they do not
    hold a scale-up back.
    """

    ready: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    starting: tuple[str, ...] = ()
    unschedulable: tuple[str, ...] = ()
    why: str = ""

    @property
    def total(self) -> int:
        return len(self.ready) + len(self.unready) + self.waiting

    @property
    def waiting(self) -> int:
        return len(self.starting) + len(self.unschedulable)

    def text(self) -> str:
        parts = [f"{len(self.ready)} ready"]
        parts += [f"{len(self.unready)} running but not ready"] if self.unready else []
        parts += [f"{len(self.starting)} starting"] if self.starting else []
        parts += [f"{len(self.unschedulable)} unschedulable ({self.why})"] if self.unschedulable else []
        return ", ".join(parts)


def read_pods(pods: Sequence[Pod], at_s: float) -> Pods:
    """Sorts pods into ready, unready, starting (younger than START_S, or not running yet) and unschedulable."""
    ready, unready, starting, unschedulable, why = [], [], [], [], ""
    for pod in pods:
        meta, state = pod.get("metadata") or {}, pod.get("status") or {}
        if meta.get("deletionTimestamp") or state.get("phase") in ("Succeeded", "Failed"):
            continue
        conditions = {c.get("type"): c for c in state.get("conditions") or [] if isinstance(c, dict)}
        scheduled = conditions.get("PodScheduled") or {}
        if (conditions.get("Ready") or {}).get("status") == "True":
            ready.append(str(meta.get("name")))
        elif scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            unschedulable.append(str(meta.get("name")))
            why = why or bounded(str(scheduled.get("message") or "no reason given"), 160)
        elif state.get("phase") == "Running" and _age_s(meta, at_s) > START_S:
            unready.append(str(meta.get("name")))
        else:
            starting.append(str(meta.get("name")))
    return Pods(
        tuple(sorted(ready)), tuple(sorted(unready)), tuple(sorted(starting)), tuple(sorted(unschedulable)), why
    )


def _age_s(meta: Pod, at_s: float) -> float:
    try:
        return at_s - datetime.fromisoformat(str(meta.get("creationTimestamp"))).timestamp()
    except ValueError:
        return 0.0


def next_step_down(current: int, floor: int, *, step: int = 1, queue: Sequence[float] = ()) -> int | None:
    """The next floor on the way from `current` down to `floor`; None when there is none, or the queue says stop.

    Lowering minReplicas is not cushioned by the HPA (from 10 to 2 in one step, whatever its stabilisation window), so
    slotune goes down by itself: one step per interval, the predictor asked again before each with load*N/(N-1).

    queue: queue depth (or queue time) at equal intervals since the last step, oldest first. It is rising, and the way
    down stops, when its later half lies more than a quarter above its earlier half; fewer than four numbers tell
    nothing and do not stop.
    """
    if current <= floor or step < 1:
        return None
    return None if _rising(queue) else max(floor, current - step)


def _rising(queue: Sequence[float]) -> bool:
    if len(queue) < 4:
        return False
    half = len(queue) // 2
    before, after = sum(queue[:half]) / half, sum(queue[-half:]) / half
    return after > max(1.25 * before, before + 0.5)
