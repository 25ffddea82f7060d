"""What the joint detectors see of a series that leaves normal and comes back."""

from __future__ import annotations

import numpy as np

from detection import ensemble
from detection.features import FREE_JUMP
from detection.model import MetricWindow, Span
from detection.panel import group_windows


def test_a_return_to_normal_is_no_jump_and_a_departure_is_one() -> None:
    span = Span(0.0, 4 * 86_400.0 - 300.0, 300.0)
    values = 100 * np.exp(0.05 * np.random.default_rng(0).normal(size=span.points))
    values[-60:-40] *= 10
    (panel,) = group_windows({"s": MetricWindow("s", span, {"qps": values})})
    rows = ensemble.joint_features(ensemble.learn_panel(panel), 1, 0)[0]
    jump = rows[:, 1]
    assert jump[-59] > 3 * FREE_JUMP
    assert np.abs(jump[-40:-28]).max() < 3 * FREE_JUMP
