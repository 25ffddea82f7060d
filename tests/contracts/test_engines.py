"""What every engine in the registry keeps: pure, whole, monotone where physics is, and silent where it cannot tell."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from detection import presets
from detection.errors import ConfigError
from detection.model import Slo
from detection.signals import SIGNALS
from tests.contracts.engine_subjects import SUBJECTS
from tests.fakes.planning import make_incident, make_window
from tuning.model import Interval
from tuning.planning.engines import REGISTRY, get
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Knowledge, limits_of
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings(simulated_batches=300)
CASES = ("calm", "gaps", "nothing", "only P95 and load", "saturated")


@pytest.fixture(params=sorted(REGISTRY))
def engine(request):
    return get(request.param)


@pytest.fixture
def subject(engine):
    return SUBJECTS[engine.name]


def assess(engine, observation, incident=None):
    return engine.assess(incident, observation, SETTINGS, -math.inf)


def test_the_registry_is_sorted_by_the_engines_own_names_and_an_unknown_name_lists_it():
    assert list(REGISTRY) == sorted(REGISTRY) == [engine.name for engine in REGISTRY.values()]
    with pytest.raises(ConfigError, match="dynamic_batching"):
        get("steam")


def test_every_preset_names_an_engine_that_there_is():
    assert {preset.engine for preset in presets.REGISTRY.values()} <= set(REGISTRY)


def test_its_objectives_are_limits_of_the_slo(engine):
    assert set(engine.objectives) <= set(Slo.model_fields)
    assert limits_of(Slo(p95_ms=80.0), ("p95_ms", "no_such_limit")) == {"p95_ms": 80.0}


@pytest.mark.parametrize("case", CASES)
def test_a_situation_is_made_of_anything_and_is_the_same_twice(engine, subject, case):
    shown = subject.shown()
    assert sorted(shown) == sorted(CASES)
    one, other = (assess(engine, shown[case], make_incident()) for _ in range(2))
    assert repr(one) == repr(other)
    assert one.identified == (case in ("saturated", "calm"))


@pytest.mark.parametrize("case", ["saturated", "calm"])
def test_predictions_are_whole(engine, subject, case):
    observation = subject.shown()[case]
    situation = assess(engine, observation)
    base = engine.unchanged(observation, situation)
    candidates = [base, *engine.options(observation, situation)]
    found = engine.predict(candidates, observation, situation, Knowledge(), SETTINGS)
    assert len(found) == len(candidates) > 5
    assert found == engine.predict(candidates, observation, situation, Knowledge(), SETTINGS)
    for predicted in found:
        assert set(predicted.shown) == set(engine.objectives)
        assert all(0 < shown.low <= shown.value <= shown.high for shown in predicted.shown.values())
        for share in (predicted.meets, predicted.carries, predicted.room, predicted.busy):
            assert 0 <= share <= 1
        assert predicted.load > 0 and predicted.drain_s >= 0
    assert engine.predict([], observation, situation, Knowledge(), SETTINGS) == []


def test_options_move_one_lever_within_its_bounds_and_savings_cost_less(engine, subject):
    observation = subject.observation(subject.calm)
    situation = assess(engine, observation)
    base = engine.unchanged(observation, situation)
    assert base.changes == () and base.cost_per_hour == 0
    for option in engine.options(observation, situation):
        assert len(option.changes) == 1 and option.cost_per_hour >= 0
        assert set(base.setting) <= set(option.setting) and option.setting != base.setting
        assert len(option.size) == len(base.size)
    assert all(option.cost_per_hour < 0 for option in engine.savings(observation, situation))


def test_levers_that_were_not_read_are_no_options(engine, subject):
    observation = subject.without_levers()
    situation = assess(engine, observation)
    assert engine.options(observation, situation) == [] == engine.savings(observation, situation)


def at_rate(situation, rate: float):
    return dataclasses.replace(situation, arrivals=Forecast(Interval(value=rate, low=rate, high=rate), "given"))


def test_more_load_is_never_faster_and_more_errors_before_make_wider_intervals(engine, subject):
    observation = subject.observation(subject.calm)
    situation = assess(engine, observation)
    base = engine.unchanged(observation, situation)

    def ratio(rate: float, knowledge: Knowledge | None = None):
        given = knowledge or Knowledge()
        return engine.predict([base], observation, at_rate(situation, rate), given, SETTINGS)[0]

    limits = limits_of(observation.service.slo, engine.objectives)
    values = [ratio(rate).ratio(limits) for rate in (20.0, 200.0, 2000.0)]
    assert values[0] < values[1] < values[2]
    loads = [ratio(rate).load for rate in (20.0, 200.0, 2000.0)]
    assert loads[1] == pytest.approx(10 * loads[0], rel=0.01) and loads[2] == pytest.approx(100 * loads[0], rel=0.01)
    name = next(iter(engine.objectives))
    sure, unsure = (ratio(60.0, Knowledge(scatter=s)).shown[name] for s in (0.02, 0.5))
    assert unsure.high / unsure.low > 1.5 * sure.high / sure.low
    assert ratio(60.0, Knowledge(bias=math.log(2))).shown[name].value == pytest.approx(
        2 * ratio(60.0).shown[name].value
    )


def test_what_it_learned_survives_json_and_the_same_window_teaches_once(engine, subject):
    window = make_window(subject.calm)
    assert set(engine.signals) <= set(SIGNALS) and set(engine.signals) & set(window.values)
    state = engine.learn(None, window, ("7", "fp32"), 10.0)
    assert state is not None and json.loads(json.dumps(state)) == state
    assert engine.learn(state, window, ("7", "fp32"), 10.0) == state
    assert engine.learn(state, make_window({}), ("7", "fp32"), 10.0) is None
    assert engine.learn(state, window, ("8", "fp32"), 10.0) != state


def test_what_it_asks_for_to_learn_is_all_that_it_learns_from(engine, subject):
    asked = {name: values for name, values in subject.calm.items() if name in engine.signals}
    key = ("7", "fp32")
    assert engine.learn(None, make_window(asked), key, 10.0) == engine.learn(None, make_window(subject.calm), key, 10.0)


def test_what_was_learned_before_is_what_slowness_is_measured_against(engine, subject):
    state = engine.learn(None, make_window(subject.calm), ("1", "fp32"), 10.0)
    incident = make_incident().model_copy(update={"opened_at_s": subject.late_onset()})
    observation = subject.observation(subject.slow, latency_model=state)
    assert assess(engine, observation, incident).slow == pytest.approx(3.0, rel=0.1)
    unlearned = dataclasses.replace(observation, latency_model=None)
    assert assess(engine, unlearned, incident).slow is None


def test_capacity_is_positive_and_a_queue_that_does_not_fall_has_not_turned(engine, subject):
    calm = subject.observation(subject.calm)
    situation = assess(engine, calm)
    assert engine.capacity(situation) > 60.0
    assert engine.since_turn(calm, situation) is None
    falling = subject.observation({**subject.calm, "queue_depth": [0.0] * 58 + [9000.0, 7500.0, 6000.0]})
    turned = engine.since_turn(falling, assess(engine, falling))
    assert turned is not None and turned.arrivals.qps.value < engine.capacity(situation)
