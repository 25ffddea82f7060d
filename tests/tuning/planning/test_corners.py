"""Corners of the pipeline: defaults, bounds just met and just missed, and what is told of options that may not be."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from detection.model import MetricWindow, Span
from tests.fakes.planning import AT_S, make_incident, make_observation, make_service, make_settings
from tests.tuning.planning.test_plans import SURGE, propose
from tuning.planning import arrivals as ar
from tuning.planning import latency_model as lm
from tuning.planning import reading as rd
from tuning.planning.batching import assess
from tuning.planning.forecast import WEEK_S, forecast
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Baseline, Situation

SETTINGS = PlanningSettings(rate_window_s=20)
NOW = rd.read_now(make_observation({}), SETTINGS)


def test_a_situation_claims_nothing_that_it_was_not_told():
    bare = Situation(now=NOW, base=Baseline(), arrivals=None, cv2=1.0)
    told = (bare.slow, bare.slow_sd, bare.slower_per_min, bare.variation, bare.spread, bare.replica_slow,
            bare.limit_cost, bare.backlog, bare.identified)  # fmt: skip
    assert told == (None, 0.0, 0.0, None, 0.1, (), None, 0.0, False)
    assert dataclasses.astuple(Baseline()) == (None,) * 10 + (0,)


def rising(wait_ms: float, over: float) -> list[float]:
    return [0.0] * 37 + list(np.linspace(wait_ms - over, wait_ms, 24))


@pytest.mark.parametrize(("over", "grows"), [(230.0, True), (215.0, True), (180.0, False), (-500.0, False)])
def test_a_wait_grows_if_it_rose_by_a_fifth_of_itself(over, grows):
    seen = make_observation({"qps": 80.0, "queue_ms": rising(1000.0, over)})
    now = dataclasses.replace(rd.read_now(seen, SETTINGS), busy=0.99)
    found = ar.arrivals(seen, AT_S - 135.0, now, SETTINGS).qps.value
    assert (found > 80.1) is grows


@pytest.mark.parametrize(
    ("limit", "before", "cost"),
    [(2.0, 8.0, (24 / 2) / (36 / 8)), (8.0, 8.0, None), (16.0, 8.0, None), (2.0, math.nan, None)],
)
def test_what_a_row_costs_at_a_lower_limit(limit, before, cost):
    rows = [1.0 + k % 2 for k in range(61)]
    signals = {"batch_ms": [20 + 2 * r for r in rows], "rows_per_batch": rows, "qps": 9.0, "p95_ms": 30.0,
               "batch_size": [before] * 37 + [limit] * 24}  # fmt: skip
    incident = make_incident().model_copy(update={"opened_at_s": AT_S - 115.0})
    settings = {"replicas": make_settings()["replicas"]}
    found = assess(incident, make_observation(signals, settings=settings), SETTINGS).limit_cost
    assert found == (None if cost is None else pytest.approx(cost, rel=0.12))


def week(values: np.ndarray, step_s: float = 300.0) -> MetricWindow:
    end_s = step_s * (values.size - 1)
    return MetricWindow("s", Span(0.0, end_s, step_s), {"qps": values})


FLAT = np.full(2017, 100.0)


def last_week(values: np.ndarray, level: float = 100.0, horizon_s: float = 600.0):
    now_s = 604_800.0 + 300_000.0
    return forecast(now_s - np.arange(11)[::-1] * 5.0, np.full(11, level), horizon_s, week(values))


def test_a_week_has_seven_days():
    assert WEEK_S == 604_800.0


@pytest.mark.parametrize(
    ("change", "level", "rate"),
    [
        ({}, 100.0, 100.0),
        ({1002: 150.0}, 100.0, 150.0),
        ({1000: 120.0}, 100.0, 100 / 1.2),
        ({1000: 119.0, 1002: 119.0}, 100.0, 100.0),
        ({}, 125.1, None),
        ({}, 124.9, 124.9),
        ({}, 83.4, 83.4),
        ({}, 83.2, None),
        ({1000: math.nan}, 100.0, 100.0),
        ({999: math.nan, 1000: math.nan, 1001: math.nan}, 100.0, None),
        ({1001: math.nan, 1002: math.nan, 1003: math.nan}, 100.0, None),
        ({1000: 0.0}, 100.0, None),
    ],
)
def test_the_growth_of_the_same_time_last_week(change, level, rate):
    values = FLAT.copy()
    for k, value in change.items():
        values[k] = value
    found = last_week(values, level)
    assert found.method == ("constant" if rate is None else "same time last week")
    assert found.qps.value == pytest.approx(level if rate is None else rate)
    if rate is not None:
        assert found.qps.high / found.qps.value == pytest.approx(math.exp(0.1645), rel=1e-3)


def test_a_history_without_traffic_says_nothing():
    assert last_week(np.full(2017, math.nan)).method == "constant"
    assert last_week(FLAT[:900]).method == "constant"
    empty = dataclasses.replace(week(FLAT), values={})
    assert forecast(np.arange(3.0), np.full(3, 9.0), 60.0, empty).method == "constant"


def test_options_that_may_not_be_or_never_drain_are_not_feasible():
    plan = propose(SURGE | {"qps": [60.0] * 37 + [3000.0] * 24})
    weighed = [option for option in plan.rejected if option.changes]
    never = [option for option in weighed if "would not drain" in option.reason]
    assert never and all(not option.feasible for option in never)
    assert all(option.feasible for option in weighed if "would not drain" not in option.reason)
    assert all(math.isfinite(option.effect_delay_s) for option in weighed)


def test_the_rejected_are_sorted_by_what_they_would_bring():
    plan = propose(SURGE)
    shown = [option.predicted_p95_ms.value for option in plan.rejected if option.predicted_p95_ms is not None]
    assert len(shown) > 5 and shown == sorted(shown)


WITHOUT_INT8 = make_service(p95_ms=60.0, levers=("batch_size", "replicas"))


def test_the_strictest_mode_and_the_slowest_delay_of_an_option_count():
    plan = propose(SURGE, service=WITHOUT_INT8)
    service = make_service(mode="act")
    levers = {name: lever.model_copy(update={"mode": "observe" if name == "replicas" else None})
              for name, lever in service.levers.items()}  # fmt: skip
    seen = make_observation(service=service.model_copy(update={"levers": levers}))
    assert rd.mode_of(seen, plan.chosen) == "act"
    lent = plan.chosen.model_copy(
        update={"changes": (*plan.chosen.changes, plan.chosen.changes[0].model_copy(update={"lever": "replicas"}))}
    )
    assert rd.mode_of(seen, lent) == "observe"
    assert rd.effect_delay_s(service.levers, lent) == 30
    assert rd.effect_delay_s(service.levers, plan.chosen.model_copy(update={"changes": ()})) == 0.0


def test_a_stored_model_that_cannot_be_read_is_left_out():
    good = lm.LatencyModel(n=3.0, w=1.0)
    state = {"models": {"a": good.dump(), "b": {"n": math.inf}, "c": 7, "d": {"n": 1.0, "colour": 3}}}
    assert lm.load(state) == {"a": good, "d": lm.LatencyModel(n=1.0)}
    assert lm.load({"models": 3}) == {} == lm.load({})
    assert lm.dump({"b": good, "a": good})["format"] == 1


def test_the_load_is_looked_at_when_the_change_will_be():
    ramp = list(100.0 + 1.0 * np.arange(61) * 5.0)
    seen = make_observation({"qps": ramp})
    now = dataclasses.replace(rd.read_now(seen, SETTINGS), busy=0.5)
    found = ar.arrivals(seen, AT_S - 60.0, now, SETTINGS)
    # 400/s now, 1/s more every second, looked at over a minute after two rate windows.
    assert (found.method, found.qps.value) == ("linear trend", pytest.approx(400.0 + 60.0 + 2 * 20.0, rel=1e-3))


def test_a_load_that_rises_over_the_capacity_rises_all_the_same():
    """1/s more every second; from 150/s on the server answers no more, and what it does not answer waits."""
    asked = 100.0 + np.arange(61) * 5.0
    depth = np.cumsum(np.maximum(asked - 150.0, 0.0) * 5.0)
    seen = make_observation({"qps": np.minimum(asked, 150.0), "queue_depth": depth})
    now = dataclasses.replace(rd.read_now(seen, SETTINGS), busy=1.0)
    found = ar.arrivals(seen, AT_S - 20.0, now, SETTINGS)
    # The growth of the queue is that of the last third of a rate window, which is a few seconds old.
    assert (found.method, found.qps.value) == ("linear trend", pytest.approx(500.0, rel=0.03))
    assert found.after(50.0).value == pytest.approx(550.0, rel=0.03)


def test_the_rule_of_thumb_is_told_only_where_it_differs():
    rows = [1.0 + k % 4 for k in range(37)] + [4.0] * 24
    full = SURGE | {"rows_per_batch": rows, "batch_ms": [10.0 + 2.0 * r for r in rows]}
    agrees = propose(full, service=WITHOUT_INT8)
    assert agrees.chosen.levers == ("batch_size",) and agrees.reason == agrees.chosen.reason
    steep = full | {"batch_ms": [0.2 + 4.3 * r for r in rows]}
    differs = propose(steep, service=make_service(p95_ms=80.0, levers=("batch_size", "replicas")))
    assert differs.chosen.levers == ("replicas",)
    assert differs.reason.startswith(f"{differs.chosen.reason}. The rule of thumb says latency high, so a larger batch")


def test_where_requests_are_refused_the_present_p95_is_the_limit():
    refusing = SURGE | {"error_rate": [0.0] * 37 + [0.2] * 24, "p95_ms": [30.0] * 37 + [90.0] * 24}
    assert "SLO 90 ms" in propose(refusing, p95_ms=500.0).chosen.reason
    fine = SURGE | {"error_rate": [0.0] * 37 + [0.01] * 24, "p95_ms": [30.0] * 37 + [900.0] * 24}
    assert "SLO 500 ms" in propose(fine, p95_ms=500.0).chosen.reason


def test_a_line_that_learned_nothing():
    assert dataclasses.astuple(lm.LatencyModel()) == (0.0,) * 8 + (0.1, 0, 0.0)
