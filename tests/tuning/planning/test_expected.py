"""The P95 expected at another load."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from detection.model import Span
from tests.fakes.planning import make_observation, make_settings, make_window
from tuning.planning.expected import expected_p95_ms, unhelped_p95_ms
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
    assert expected_p95_ms(calm(), SETTINGS, make_window({"qps": 5000.0})) == math.inf
    # Between 667/s, which full batches of 8 in 24 ms carry, and what they surely do not carry nobody can tell.
    assert expected_p95_ms(calm(), SETTINGS, make_window({"qps": 460.0})) is None


def test_no_load_and_no_batch_times_are_no_answer():
    assert expected_p95_ms(calm(), SETTINGS, make_window({"p95_ms": 5.0})) is None
    assert expected_p95_ms(make_observation({"p95_ms": 5.0}), SETTINGS) is None


@pytest.mark.parametrize(
    ("batch_ms", "same_model", "told"),
    [
        pytest.param(20 + 2 * ROWS, True, False, id="as fast as before: there is nothing to allow for"),
        pytest.param(21 + 2.1 * ROWS, True, False, id="a twentieth slower is noise"),
        pytest.param(160 + 16 * ROWS, True, True, id="eight times as slow: measured after the change"),
        pytest.param(8 + 0.8 * ROWS, True, False, id="faster by itself is not slower"),
        pytest.param(160 + 16 * ROWS, False, False, id="another model computes and no growth was seen before"),
    ],
)
def test_what_nothing_would_have_given_by_now_is_told_where_the_service_grew_slower(batch_ms, same_model, told):
    after = make_window({"qps": 60.0, "batch_ms": batch_ms, "rows_per_batch": ROWS})
    found = unhelped_p95_ms(calm(), SETTINGS, after, same_model=same_model)
    assert (found is not None) == told
    if told:
        assert found > 1.5 * expected_p95_ms(calm(), SETTINGS)


def test_a_growth_that_was_seen_is_forecast_where_another_model_computes_by_now():
    factor = np.concatenate((np.ones(20), np.linspace(1, 2, 41)))
    growing = make_observation({**CALM, "batch_ms": (20 + 2 * ROWS) * factor}, settings=make_settings(batch=8))
    later = make_window({"qps": 60.0, "batch_ms": 4.0, "rows_per_batch": ROWS})
    later = replace(later, span=Span(later.span.start_s + 400, later.span.end_s + 400, later.span.step_s))
    found = unhelped_p95_ms(growing, SETTINGS, later, same_model=False)
    assert found is not None
    assert found > expected_p95_ms(calm(), SETTINGS)


def test_without_traffic_nobody_can_tell_what_would_have_been():
    after = make_window({"batch_ms": 50 + 5 * ROWS, "rows_per_batch": ROWS})
    assert unhelped_p95_ms(calm(), SETTINGS, after, same_model=True) is None
