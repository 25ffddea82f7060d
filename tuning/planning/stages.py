"""The stages of a request: waiting, work before the model, the model, work after it, as far as a server shows them.

A server that does not show one has it in another; the shares are of what is shown. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from detection.model import MetricWindow
from tuning.formats import ms
from tuning.planning import thresholds as th
from tuning.planning.reading import level

STAGES = {
    "queue": "queue_ms",
    "pre-processing": "pre_ms",
    "compute": "compute_ms",
    "post-processing": "post_ms",
}
"""The stages in the order in which a request meets them, and the signal of each (mean ms of a request)."""
AROUND = ("pre-processing", "post-processing")
"""What is done around the model, usually on the CPU: no batch size and no precision makes it shorter."""


@dataclass(frozen=True)
class Dominant:
    """A stage around the model that takes most of a request's time and takes longer than it did. share: 0..1."""

    stage: str
    share: float
    now_ms: float
    before_ms: float
    cpu: float | None = None

    @property
    def sentence(self) -> str:
        cpu = f", and the CPU is {self.cpu:.0%} busy" if self.cpu is not None else ""
        return (
            f"{self.stage} on the CPU takes {self.share:.0%} of a request's time ({ms(self.now_ms)}, before "
            f"{ms(self.before_ms)}){cpu}"
        )


def stages_of(window: MetricWindow, within_s: float) -> tuple[tuple[str, float], ...]:
    """(stage, mean ms) now; () where nothing around the model is shown: queue and compute alone are told elsewhere."""
    found = {name: level(window, signal, within_s) for name, signal in STAGES.items()}
    known = tuple((name, value) for name, value in found.items() if value is not None)
    return known if any(name in AROUND for name, _ in known) else ()


def dominant(now: MetricWindow, within_s: float, calm: MetricWindow | None) -> Dominant | None:
    """The stage around the model that dominates and grew since the calm; None: there is none, or nothing to compare."""
    stages = dict(stages_of(now, within_s))
    total = sum(stages.values())
    name = max(stages, key=stages.__getitem__, default="")
    if calm is None or name not in AROUND or not total or stages[name] < th.STAGE_DOMINATES * total:
        return None
    before = level(calm, STAGES[name], calm.span.end_s - calm.span.start_s)
    if before is None or before <= 0 or math.log(stages[name] / before) <= th.MOVED:
        return None
    return Dominant(name, stages[name] / total, stages[name], before, level(now, "cpu", within_s))
