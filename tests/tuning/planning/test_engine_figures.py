"""What dynamic batching predicts, option by option, in figures: one thing changed from row to row."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tests.fakes.planning import SATURATED, make_observation, make_service, make_settings
from tuning.model import Interval
from tuning.planning import latency_model as lm
from tuning.planning import predict as pr
from tuning.planning.engines import get
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Knowledge
from tuning.planning.settings import PlanningSettings
from tuning.planning.speed import Slowing

SETTINGS = PlanningSettings(simulated_batches=400)
ROWS = 2.5 + 1.5 * np.sin(np.linspace(0, 12, 61))
CALM = SATURATED | {"qps": 60.0, "p95_ms": 60.0, "mean_ms": 40.0, "queue_ms": 15.0, "queue_depth": 0.0,
                    "batch_ms": 20 + 2 * ROWS, "rows_per_batch": ROWS, "batch_size": 8.0, "busy": 0.4}  # fmt: skip
OBSERVATION = make_observation(CALM, settings=make_settings(batch=8, timeout_ms=20))
ENGINE = get("dynamic_batching")
SITUATION = ENGINE.assess(None, OBSERVATION, SETTINGS, -math.inf)
BASE = ENGINE.unchanged(OBSERVATION, SITUATION)


def at(qps: float, **changed):
    rate = Forecast(Interval(value=qps, low=0.9 * qps, high=1.1 * qps), "given")
    return dataclasses.replace(SITUATION, arrivals=rate, **changed)


def predict(situation, knowledge=None, **knobs):
    wanted = dataclasses.replace(BASE, setting={**BASE.setting, **knobs})
    return ENGINE.predict([wanted], OBSERVATION, situation, knowledge or Knowledge(), SETTINGS)[0]


# situation, knowledge, knobs: P95, low, high, meets, carries, room, load, drain_s, busy
ROWS_OF_FIGURES = {
    "as it is": (SITUATION, None, {}, (48.0583, 39.8711, 58.559, 1, 1, 1, 0.1346, 0, 0.4243)),
    "five times the load": (at(300.0), None, {}, (63.8025, 47.3939, 111.3285, 0.9255, 0.9997, 0.762, 0.6796, 0, 0.9244)),
    "INT8": (at(300.0), None, {"precision": "int8"},
             (32.9702, 24.8739, 45.3377, 1, 0.9992, 0.9821, 0.2762, 0, 0.4489)),
    "one slow replica": (at(100.0, replica_slow=(1.0, 3.0)), None, {},
                         (178.4207, 130.8715, 295.7041, 0.001, 1, 0.9996, 0.6796, 0, 0.7562)),
    "coming and going": (at(250.0, variation=0.5, phase_s=10.0), None, {},
                         (115.1449, 70.4215, 1066.9871, 0.2937, 1, 0.8749, 0.4225, 0, 0.7514)),
    "a backlog": (at(300.0, backlog=500.0), None, {},
                  (63.8025, 47.3939, 111.3285, 0.9255, 0.9997, 0.762, 0.6796, 3.3915, 0.9244)),
    "slower and slower": (at(300.0, slowing=Slowing(0.0, 1.5, 0.002, 200.0)), None, {}, None),
    "two rows a request": (at(100.0, rows_per_request=2.0), None, {},
                           (60.5323, 46.3306, 84.3724, 0.9927, 1, 0.954, 0.4531, 0, 0.6493)),
    "more than it carries": (at(900.0), None, {},
                             (91091.8563, 31023.2134, 155752.6775, 0, 0, 0.0275, 2.0388, math.inf, 1)),
    "predictions were 20 % low and scattered": (at(300.0), Knowledge(0.2, 0.3), {},
                                                (77.9286, 45.5131, 155.0836, 0.7158, 0.9997, 0.762, 0.6796, 0, 0.9244)),
    "overhead": (at(300.0, overhead_ms=7.0), None, {},
                 (70.8045, 53.932, 118.2482, 0.8985, 0.9997, 0.762, 0.6796, 0, 0.9244)),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, row in ROWS_OF_FIGURES.items() if row[3] is not None])
def test_the_figures_of_a_prediction(name):
    situation, knowledge, knobs, expected = ROWS_OF_FIGURES[name]
    found = predict(situation, knowledge, **knobs)
    shown = found.shown["p95_ms"]
    figures = (shown.value, shown.low, shown.high, found.meets, found.carries, found.room, found.load, found.drain_s,
               found.busy)  # fmt: skip
    assert figures == pytest.approx(expected, rel=2e-3, abs=2e-4)
    assert found.unproven is (name == "INT8") and found.unknown is False


def test_a_slowness_that_grows_is_planned_for():
    stands, grows = predict(at(300.0)), predict(at(300.0, slowing=Slowing(0.0, 1.5, 0.002, 200.0)))
    # 90 s (rate window and look) at 0.2 % a second: 18 % slower by then.
    assert grows.load == pytest.approx(1.18 * stands.load, rel=0.03)
    assert grows.meets < stands.meets and grows.room < stands.room
    assert grows.shown["p95_ms"].high / grows.shown["p95_ms"].low > 10


def test_a_queue_that_refuses_does_not_grow_until_a_change_takes_effect():
    """A load of twice what is carried would make 900 wait in the minute before replicas are there; a queue that is full
    refuses them, and what drains later is what waits now."""
    refusing = make_observation(CALM | {"error_rate": 0.3}, settings=make_settings(batch=8, timeout_ms=20))
    wanted = dataclasses.replace(BASE, setting={**BASE.setting, "replicas": 6}, delay_s=60.0)
    load = 2 * pr.capacity_now(SITUATION)

    def drain_s(error_rate: float, observation=OBSERVATION) -> float:
        now = dataclasses.replace(SITUATION.now, error_rate=error_rate)
        situation = at(load, backlog=100.0, now=now)
        return ENGINE.predict([wanted], observation, situation, Knowledge(), SETTINGS)[0].drain_s

    full, grows = drain_s(0.3, refusing), drain_s(0.0)
    growth = (load - pr.capacity_now(SITUATION)) * 60.0
    assert grows / full == pytest.approx((100.0 + growth) / 100.0, rel=0.01)
    assert drain_s(0.01) == grows  # as many as the SLO allows is not refusing


@pytest.mark.parametrize(
    ("slowing", "horizon_s", "z", "factor"),
    [
        (None, 100.0, 0.0, 1.0),
        (Slowing(0.0, 1.5, 0.002, 200.0), 100.0, 0.0, 1.2),
        (Slowing(0.0, 1.5, 0.002, 200.0), 100.0, 1.645, 1.5),
        (Slowing(0.0, 1.5, 0.002, 200.0), 100.0, -1.645, 1.1),
        (Slowing(0.0, 1.5, 0.002, 60.0), 100.0, 1.645, 1.24),
        (Slowing(0.0, 1.5, 0.0, 200.0), 100.0, 1.0, 1.0),
    ],
)
def test_how_much_slower_it_will_be(slowing, horizon_s, z, factor):
    assert pr.grown(slowing, horizon_s, z) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("variation", "spread", "busy", "phases"),
    [
        (None, 0.1, None, (1.0,)),
        (0.199, 0.1, None, (1.0,)),
        (0.5, 0.6, None, (1.0,)),
        # Nobody knows how busy it is: as where nothing rests.
        (0.5, 0.1, None, (1.809, 0.691)),
        (0.2, 0.1, None, (1.2440, 0.8360)),
        (0.5, 0.1, 1.0, (1.809, 0.691)),
        # A slow phase carries its load, so it has half of the batches: three times as slow, 1.5 and 0.5 of the mean.
        (0.5, 0.1, 0.3, (1.5, 0.5)),
        (0.5, 0.1, 0.6, (1.5, 0.5)),
        (0.2, 0.1, 0.3, (1.2, 0.8)),
        # It does not: half of the time is 0.625 of 0.8, so 0.625 of the computing.
        (0.5, 0.1, 0.8, (1.6359, 0.6069)),
        (2.0, 0.1, 0.1, (5.542, 0.1194)),
    ],
)
def test_phases(variation, spread, busy, phases):
    now = dataclasses.replace(SITUATION.now, busy=busy)
    found = pr.phases_of(at(1.0, variation=variation, spread=spread, now=now))
    assert found == pytest.approx(phases, abs=1e-3)


@pytest.mark.parametrize(
    ("variation", "spread", "total"),
    [(None, 0.1, 0.1), (0.15, 0.1, 0.1803), (0.5, 0.1, 0.1), (0.5, 0.9, 1.0), (None, 0.001, 0.02)],
)
def test_the_spread_of_single_batches(variation, spread, total):
    assert pr.spread_of(at(1.0, variation=variation, spread=spread)) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(
    ("floor", "measured", "learned", "gain"),
    [
        (None, None, None, (2.5, 0.4)),
        (1.5, None, None, (2.5, 0.4)),
        (3.0, None, None, (3.6, 0.4)),
        ("x", None, None, (2.5, 0.4)),
        (3.0, 1.7, None, (1.7, 0.15)),
        (3.0, 1.7, 2.2, (2.2, 0.1)),
    ],
)
def test_what_int8_gains(floor, measured, learned, gain):
    lever = make_service().levers["precision"]
    lever = lever.model_copy(update={"options": {} if floor is None else {"min_speedup": floor}})
    assert pr.int8_gain(lever, measured, learned) == pytest.approx(gain)


def test_a_gain_that_was_seen_live_is_the_ratio_of_both_lines():
    fp32 = lm.learn(lm.LatencyModel(), [(float(k), 8.0, 40.0) for k in range(1, 6)])
    int8 = lm.learn(lm.LatencyModel(), [(float(k), 8.0, 16.0) for k in range(1, 6)])
    learned = {"1/fp32": fp32, "1/int8": int8}
    assert pr.learned_gain(at(1.0, learned=learned)) == pytest.approx(2.5, rel=0.01)
    assert pr.learned_gain(at(1.0, learned={"1/fp32": fp32})) is None
    assert pr.learned_gain(at(1.0, learned=learned, precision="int8")) is None
    assert not predict(at(300.0, learned=learned), precision="int8").unproven
    assert not predict(at(300.0), Knowledge(measured_gain=2.0), precision="int8").unproven


def test_capacity_is_that_of_full_batches():
    curve = SITUATION.model.curve()
    assert pr.capacity_now(SITUATION) == pytest.approx(2 * 8 / (curve.at(8) / 1e3))
    assert pr.capacity_now(at(1.0, rows_per_request=2.0)) == pytest.approx(8 / (curve.at(8) / 1e3))


def test_a_slow_replica_takes_what_it_was_measured_to_take():
    """Whatever the line of a draw says of 8 rows, the slow one took 90 ms for them: no interval around that."""
    sick = at(100.0, replica_slow=(1.0, 3.0))
    measured = dataclasses.replace(sick, slow_point=(8.0, 3.0 * sick.model.curve().at(8)))
    wide, narrow = predict(sick).shown["p95_ms"], predict(measured).shown["p95_ms"]
    assert narrow.value == pytest.approx(wide.value, rel=0.1)
    faster = dataclasses.replace(sick, slow_point=(8.0, 0.5 * sick.model.curve().at(8)))
    sound = at(100.0)
    # Never faster than the others.
    assert predict(faster).shown["p95_ms"].value == pytest.approx(predict(sound).shown["p95_ms"].value, rel=0.1)


def test_a_queue_that_takes_ten_minutes_never_empties():
    spare = 2 * pr.capacity_now(SITUATION) / 2 - 300.0
    assert predict(at(300.0, backlog=580.0 * spare)).drain_s < 620.0
    assert predict(at(300.0, backlog=640.0 * spare)).drain_s == math.inf


def test_while_a_lever_takes_effect_the_queue_goes_on_growing():
    slow = dataclasses.replace(BASE, setting={**BASE.setting, "replicas": 4}, delay_s=30.0)
    fast = dataclasses.replace(slow, delay_s=0.0)
    late, soon = ENGINE.predict([slow, fast], OBSERVATION, at(600.0, backlog=100.0), Knowledge(), SETTINGS)
    assert late.drain_s > 5 * soon.drain_s > 0


@pytest.mark.parametrize(
    ("knobs", "levers", "text"),
    [
        ({"batch_size": 16}, "batch_size", ": a row costs 4.48 ms in batches of 8 and 3.24 ms in batches of 16"),
        ({"batch_size": 4}, "batch_size", ": requests no longer wait for rows that do not come"),
        ({"replicas": 3}, "replicas", ": 3 replicas are busy 42% of the time"),
        ({"precision": "int8"}, "precision", ": INT8 shortens every batch (now 35.8 ms), so each replica answers more"),
    ],
)
def test_what_a_lever_does_to_the_numbers(knobs, levers, text):
    option = next(
        option
        for option in ENGINE.options(OBSERVATION, SITUATION)
        if option.levers == (levers,) and all(option.setting[k] == v for k, v in knobs.items())
    )
    assert ENGINE.why(option, predict(SITUATION), SITUATION)[:12] == text[:12]
    assert ENGINE.why(BASE, predict(SITUATION), SITUATION) == ""


def test_what_was_never_seen_is_said_in_rows():
    assert ENGINE.unseen(SITUATION).startswith("batches of more than 4 rows were never seen here")
    one = dataclasses.replace(SITUATION, model=dataclasses.replace(SITUATION.model, rows_max=1.0))
    assert ENGINE.unseen(one).startswith("batches of more than 1 row were never")
