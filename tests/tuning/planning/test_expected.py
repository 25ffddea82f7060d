"""The P95 expected at another load."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes.planning import make_observation, make_settings, make_window
from tuning.planning.expected import expected_p95_ms
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings(rate_window_s=10, simulated_batches=400)
ROWS = 2.5 + 1.5 * np.sin(np.linspace(0, 12, 61))
CALM = {"qps": 60.0, "p95_ms": 60.0, "mean_ms": 40.0, "queue_ms": 15.0, "queue_depth": 0.0, "batch_ms": 20 + 2 * ROWS,
        "rows_per_batch": ROWS, "batch_size": 8.0, "busy": 0.4, "replicas": 2.0, "arrival_cv2": 1.0}  # fmt: skip


def calm():
    return make_observation(CALM, settings=make_settings(batch=8))


def test_more_load_means_more_latency_and_too_much_means_no_answer():
    own = expected_p95_ms(calm(), SETTINGS)
    more = expected_p95_ms(calm(), SETTINGS, make_window({"qps": 200.0}))
    assert own == pytest.approx(60, rel=0.5)
    assert more > 1.2 * own
    assert expected_p95_ms(calm(), SETTINGS, make_window({"qps": 5000.0})) is None


def test_no_load_and_no_batch_times_are_no_answer():
    assert expected_p95_ms(calm(), SETTINGS, make_window({"p95_ms": 5.0})) is None
    assert expected_p95_ms(make_observation({"p95_ms": 5.0}), SETTINGS) is None
