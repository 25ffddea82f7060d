"""What every engine derives from an observation: load, burstiness, slowness, backlog, baseline.

An engine's own situation extends `Situation` by what its model needs; diagnosis, ranking and texts read this part only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.model import MetricWindow
from tuning.model import Observation
from tuning.planning import thresholds as th
from tuning.planning.forecast import Forecast
from tuning.planning.reading import Reading, settled
from tuning.planning.settings import PlanningSettings

BASELINE_SIGNALS = (
    "qps",
    "batch_ms",
    "rows_per_batch",
    "queue_ms",
    "p95_ms",
    "replicas",
    "batch_size",
    "batch_timeout_ms",
    "busy",
)


HISTORY_SIGNALS = (*BASELINE_SIGNALS, "arrival_cv2", "batch_cv2", "pre_ms", "compute_ms", "post_ms")
"""What a planner looks at further back than the look-back."""


@dataclass(frozen=True)
class Baseline:
    """The service before the incident: medians; None where it is not known. variation: of batch times, 0..1."""

    qps: float | None = None
    batch_ms: float | None = None
    rows_per_batch: float | None = None
    queue_ms: float | None = None
    p95_ms: float | None = None
    replicas: float | None = None
    batch_size: float | None = None
    batch_timeout_ms: float | None = None
    busy: float | None = None
    variation: float | None = None
    points: int = 0


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The service as an engine sees it. Rates per second, times in ms.

    arrivals: the rate at which requests come, which under saturation is more than what is answered (None: not
    exported). cv2: squared variation of their gaps. slow: the present service time over the learned one (1: as
    learned; None: none was learned before); slow_sd: its relative standard error; slower_per_min: by how
    much of itself it grows a minute. variation: of service times, that
    comes and goes on top of `spread`, the usual one. replica_slow: relative service time of each replica, slowest
    last, () where not exported; slowest: that one's label. limit_cost: what a row costs at the present limit over what
    it cost at the baseline's (None: the limit is as it was, or no model). backlog: requests waiting. identified:
    whether a prediction is possible at all.
    """

    now: Reading
    base: Baseline
    arrivals: Forecast | None
    cv2: float
    slow: float | None = None
    slow_sd: float = 0.0
    slower_per_min: float = 0.0
    variation: float | None = None
    spread: float = 0.1
    replica_slow: tuple[float, ...] = ()
    slowest: str = ""
    limit_cost: float | None = None
    backlog: float = 0.0
    identified: bool = False


def narrowed(observation: Observation, onset: float, settings: PlanningSettings) -> Observation:
    """The observation cut to what lies after the onset (with the rate window gone by, where that leaves 3 points)."""
    window = observation.window
    start = settled(window, onset, settings)
    if start <= window.span.start_s:
        return observation
    return Observation(
        service=observation.service,
        window=window.between(start, window.span.end_s),
        at_s=observation.at_s,
        settings=observation.settings,
        unreadable=observation.unreadable,
        objective=observation.objective,
    )


def calm_window(observation: Observation, onset: float, settings: PlanningSettings) -> MetricWindow | None:
    """What was before the onset: the look-back where it reaches back 3 points, else the history of some hours."""
    until = onset - settings.rate_window_s
    before = observation.window.between(observation.window.span.start_s, until)
    if before.span.points >= th.LEVEL_POINTS and before.values:
        return before
    if observation.history is None:
        return None
    history = observation.history.between(onset - th.BASELINE_HISTORY_S, until)
    return history if history.span.points >= th.LEVEL_POINTS else None


def baseline(calm: MetricWindow | None, variation: float | None) -> Baseline:
    """Medians of the calm window. variation: of its batch times."""
    if calm is None:
        return Baseline()

    def level(signal: str) -> float | None:
        values = calm.values.get(signal)
        finite = values[np.isfinite(values)] if values is not None else np.empty(0)
        return float(np.median(finite)) if finite.size else None

    levels = {name: level(name) for name in BASELINE_SIGNALS}
    return Baseline(**levels, variation=variation, points=calm.span.points)
