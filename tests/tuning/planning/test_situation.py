"""What is derived from an observation: a queue that turned, the variation that comes and goes, the newest count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.fakes.planning import AT_S, make_incident, make_observation, make_settings
from tuning import planning
from tuning.planning import latency_model as lm
from tuning.planning.arrivals import draining_arrivals
from tuning.planning.batching import assess
from tuning.planning.predict import learned_gain, phases_of
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings()
CALM = {"qps": 60.0, "p95_ms": 40.0, "mean_ms": 25.0, "queue_ms": 4.0, "queue_depth": 0.0, "batch_ms": 20.0,
        "rows_per_batch": 2.0, "batch_size": 4.0, "busy": 0.6, "replicas": 1.0}  # fmt: skip
ONSET = make_incident().model_copy(update={"opened_at_s": AT_S - 120.0})


def situation(**signals):
    return assess(ONSET, make_observation(CALM | signals, settings=make_settings(batch=4)), SETTINGS)


def from_onset(before: float, after: float) -> list[float]:
    return [before] * 37 + [after] * 24


def test_the_rate_of_arrivals_of_a_queue_that_falls_is_capacity_less_the_fall():
    window = make_observation({"queue_depth": [0.0] * 58 + [900.0, 650.0, 400.0]}).window
    found = draining_arrivals(window, capacity=100.0)
    assert found is not None and found.value == pytest.approx(50.0) and found.low < 50 < found.high


@pytest.mark.parametrize("tail", [[400.0, 650.0, 900.0], [900.0, 890.0, 880.0], [900.0, 950.0, 100.0]])
def test_a_queue_that_does_not_clearly_fall_tells_nothing(tail):
    assert draining_arrivals(make_observation({"queue_depth": [0.0] * 58 + tail}).window, 100.0) is None


def test_without_a_count_of_the_queue_nothing_is_told():
    assert draining_arrivals(make_observation({"qps": 5.0}).window, 100.0) is None


@pytest.mark.parametrize("ratio", [2.0, 2.5, 4.0])
@pytest.mark.parametrize("busy", [0.3, 1.0])
def test_a_neighbour_is_known_by_the_variation_within_a_batch_size(ratio, busy):
    # Half of the time `ratio` times as slow: half of the batches where it carries the load, 1 / (1 + ratio) of them
    # where it never rests.
    share = 1 / (1 + ratio) if busy == 1.0 else 0.5
    mean = share * ratio + 1 - share
    cv2 = (share * ratio**2 + 1 - share) / mean**2 - 1
    found = situation(batch_cv2=from_onset(0.01, 0.01 + cv2), batch_ms=from_onset(20.0, 20.0 * mean), busy=busy)
    assert found.model.spread == pytest.approx(0.1)
    slow, fast = phases_of(found)
    assert slow / fast == pytest.approx(ratio, rel=0.05)
    assert slow * mean == pytest.approx(ratio, rel=0.05)


def test_what_always_varied_is_no_neighbour():
    found = situation(batch_cv2=0.16)
    assert found.model.spread == pytest.approx(0.4) and phases_of(found) == (1.0,)


def test_the_backlog_is_the_newest_count():
    depth = list(np.concatenate([np.zeros(37), 40.0 * np.arange(1, 25)]))
    assert situation(queue_depth=depth).backlog == 960.0
    assert situation(queue_depth=[*depth[:-1], math.nan]).backlog == 920.0


@pytest.mark.parametrize("planner", ["model", "playbook"])
@pytest.mark.parametrize("busy", [0.3, 0.99])
def test_errors_are_not_over_because_latency_is_fine(planner, busy):
    signals = CALM | {"error_rate": 0.3, "busy": busy, "queue_depth": 40.0 if busy > 0.9 else 0.0}
    incident = ONSET.model_copy(update={"symptom": "errors"})
    plan = planning.get(planner)(SETTINGS).propose(
        incident, make_observation(signals, settings=make_settings(batch=4)), []
    )
    assert plan.diagnosis.cause == "errors" and plan.chosen.changes == ()
    assert "30.0% of requests fail" in plan.chosen.reason and "recovered" not in plan.chosen.reason


def test_a_service_that_fell_back_from_int8_is_expected_to_be_as_fast_again():
    """It was calm in INT8 at 20 ms a batch, and takes 50 ms in FP32, in which nobody has seen it before."""
    stored = lm.dump({"1/int8": lm.learn(lm.LatencyModel(), [(float(k), 2.0, 20.0) for k in range(1, 9)])})
    signals = CALM | {"batch_ms": from_onset(20.0, 50.0)}
    seen = make_observation(signals, settings=make_settings(batch=4), latency_model=stored)
    found = assess(ONSET, seen, SETTINGS)
    assert found.slow == pytest.approx(2.5, rel=0.02)
    assert learned_gain(found) == pytest.approx(2.5, rel=0.05)


def test_a_service_that_was_seen_in_both_gains_what_their_lines_say():
    """Twice as slow now in FP32, of which INT8 makes a half as it always did."""
    line = [(float(k), 2.0, 20.0) for k in range(1, 9)]
    int8 = lm.learn(lm.LatencyModel(), [(at_s, rows, 10.0) for at_s, rows, _ in line])
    stored = lm.dump({"1/int8": int8, "1/fp32": lm.learn(lm.LatencyModel(), line)})
    signals = CALM | {"batch_ms": from_onset(20.0, 40.0)}
    seen = make_observation(signals, settings=make_settings(batch=4), latency_model=stored)
    assert learned_gain(assess(ONSET, seen, SETTINGS)) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize(("share", "ratio"), [(0.5, 2.5), (0.4, 4.0)])
def test_what_comes_and_goes_is_explained_over_the_line_of_before(share, ratio):
    slow = 1 + share * (ratio - 1)
    cv2 = share * (1 - share) * (ratio - 1) ** 2 / slow**2
    found = situation(batch_cv2=from_onset(0.01, 0.01 + cv2), batch_ms=from_onset(20.0, 20.0 * slow), busy=0.3)
    middle = float(np.median([one.ratio for one in found.phases]))
    assert len(found.phases) == 16 and middle == pytest.approx(ratio, rel=0.25)
    # The line as it runs now is that of a server that never rests: what is fast in between is faster than it.
    assert found.slow == pytest.approx(slow, rel=0.02)
    assert float(np.median([one.fast for one in found.phases])) < 1.0
    assert float(np.median([one.sustained for one in found.phases])) == pytest.approx(1.0, abs=0.05)


def test_a_service_that_is_simply_slower_has_no_phases():
    assert situation(batch_cv2=0.01, batch_ms=from_onset(20.0, 50.0)).phases == ()
