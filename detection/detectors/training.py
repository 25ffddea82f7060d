"""Training jobs: what is wrong with their iterations and their loss, each a finding of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow, Score, Service
from detection.ports import Baseline
from detection.settings import DetectionSettings
from detection.training import Finding, findings

SYMPTOM = "training"


class TrainingJobs:
    """Speaks of services of kind `training` alone; needs no history. Tier act means a plan and a mail: a training job
    has no lever."""

    name = "training"

    def __init__(self, services: Sequence[Service], settings: DetectionSettings) -> None:
        self._jobs = frozenset(service.name for service in services if service.kind == "training")

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """Nothing."""
        return {}

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """One score for each finding."""
        return [
            _score(name, one, at_s)
            for name, window in windows.items()
            if name in self._jobs
            for one in findings(window.between(window.span.start_s, at_s))
        ]

    def may_speak(self, window: MetricWindow, times_s: FloatArray) -> NDArray[np.bool_]:
        """Everywhere, for a training job."""
        return np.full(times_s.size, window.service in self._jobs)


def _score(service: str, found: Finding, at_s: float) -> Score:
    return Score(
        service=service,
        detector=TrainingJobs.name,
        signal=found.signal,
        at_s=at_s,
        score=1.0,
        tier="act",
        observed=found.observed if np.isfinite(found.observed) else None,
        expected_high=found.usual if np.isfinite(found.usual) else None,
        contributions={"since_s": found.since_s},
        reason=found.sentence,
        kind="rule",
        symptom=SYMPTOM,
    )
