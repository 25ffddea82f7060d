"""Which variants may be chosen, what each costs and gains, and when what was lent may go back."""

from __future__ import annotations

import dataclasses

import pytest

from detection.model import Lever
from tests.fakes.planning import SATURATED, make_incident, make_observation, make_service, make_settings, make_window
from tuning.model import Record, Setting
from tuning.planning import get as planner
from tuning.planning import latency_model as lm
from tuning.planning import thresholds as th
from tuning.planning import variants as va
from tuning.planning.settings import PlanningSettings

TOLD = [
    {"name": "full", "value": "", "quality": 0.924, "service_time": None},
    {"name": "int8", "value": "", "quality": 0.92, "service_time": 0.75},
    {"name": "small", "value": "", "quality": 0.906, "service_time": 0.3},
    {"name": "learned", "value": "", "quality": 0.8, "service_time": None},
]


def observed(serves: str = "full", *, told=TOLD, levers=(), signals=None, useless: str = "", **kwargs: object):
    lever = Lever(name="variant", actuator="http_variant", mode="act", options={"variants": told, "quality_of": "x"})
    service = make_service(levers=levers)
    service = service.model_copy(update={"levers": {**service.levers, "variant": lever}})
    setting = Setting(lever="variant", values={"variant": serves}, useless=useless)
    known = {name: one for name, one in make_settings(**kwargs).items() if name in levers}
    return make_observation(signals, service=service, settings={**known, "variant": setting})


def nobody(_: str) -> float | None:
    return None


@pytest.mark.parametrize(
    ("serves", "below", "degraded"),
    [
        ("full", ["int8", "small", "learned"], ""),
        ("small", ["learned"], "small"),
        ("learned", [], "learned"),
        ("somebody's", [], ""),
    ],
)
def test_only_what_comes_after_it_is_below_what_serves(serves, below, degraded):
    seen = observed(serves)
    assert [one.name for one in va.below(seen)] == below
    assert va.degraded(seen) == degraded


def test_what_cannot_be_told_is_no_ground_for_a_switch():
    assert va.below(observed("full", useless="somebody chose another")) == ()
    assert va.below(dataclasses.replace(observed(), settings={})) == ()


def test_the_gain_is_told_against_the_first_and_learned_where_both_have_served():
    assert va.gain(observed("full"), "small", nobody) == (pytest.approx(1 / 0.3), th.GAIN_MEASURED_SD)
    assert va.gain(observed("int8"), "small", nobody) == (pytest.approx(2.5), th.GAIN_MEASURED_SD)
    assert va.gain(observed("full"), "learned", nobody) is None
    assert "learned is not known: give it a service_time" in va.untold(observed("full"), nobody)
    pace = {"full": 20.0, "learned": 4.0}
    assert va.gain(observed("full"), "learned", pace.get) == (5.0, th.GAIN_LEARNED_SD)
    assert va.untold(observed("full"), pace.get) == ""


def test_a_loss_is_the_difference_of_what_was_measured():
    lever = observed().service.levers["variant"]
    assert va.loss(lever, "full", "small") == pytest.approx(0.018)
    assert va.loss(lever, "small", "full") == 0.0, "the way back loses nothing"
    assert va.loss(lever, "full", "another") == 0.0
    assert va.lost_by(lever, va.change(observed("int8"), "small")) == pytest.approx(0.014)


def receipt(kind: str, at_s: float, lever: str = "variant", changed: bool = True) -> Record:
    return Record(id=f"{kind}{at_s}", kind=kind, service="ranker", at_s=at_s, body={"lever": lever, "changed": changed})


def test_earlier_switches_lasted_from_the_switch_to_the_way_back():
    past = [
        receipt("switch_variant", 100),
        receipt("roll_back", 200, "batch_size"),
        receipt("roll_back", 820),
        receipt("switch_variant", 900, changed=False),
        receipt("switch_variant", 1000),
        receipt("roll_back", 1300),
        receipt("switch_variant", 2000),
    ]
    assert va.lasted_s(reversed(past)) == [720.0, 300.0]


def test_the_load_that_was_kept_is_the_highest_with_headroom_and_nothing_where_one_promise_is_not_measured():
    calm = make_window({"qps": [50.0] * 50 + [70.0] * 11, "p95_ms": [60.0] * 50 + [95.0] * 11})
    assert va.kept_at_qps(calm, {"p95_ms": 100.0}, 0.9) == pytest.approx(th.SEEN_ROOM * 50)
    assert va.kept_at_qps(calm, {"p95_ms": 200.0}, 0.9) == pytest.approx(th.SEEN_ROOM * 70)
    assert va.kept_at_qps(calm, {"p95_ms": 200.0, "ttft_p95_ms": 9.0}, 0.9) == 0.0
    assert va.kept_at_qps(None, {"p95_ms": 200.0}, 0.9) == 0.0


def test_a_latency_model_belongs_to_its_variant():
    assert lm.key(va.served_version(observed("small"), "7"), "fp32") == lm.key("7~small", "fp32")
    assert va.served_version(make_observation(), "7") == "7", "a service without variants keeps its models"


def plan_of(seen, name: str = "model", symptom: str = "latency"):
    return planner(name)(PlanningSettings()).propose(make_incident(symptom), seen, [])


def test_the_playbook_takes_the_next_variant_last_as_a_lease_with_its_price():
    full = {**SATURATED, "rows_per_batch": 32.0, "batch_size": 32.0}
    seen = observed(levers=("batch_size", "replicas"), batch=32, replicas=10, signals=full)
    plan = plan_of(seen, "playbook")
    assert plan.chosen.changes[0].new == {"variant": "int8"} and plan.lease_s and plan.revert_below_qps
    assert plan.chosen.quality_loss == pytest.approx(0.004) and "-0.4 points" in plan.reason
    roomy = observed(levers=("batch_size", "replicas"), batch=32, replicas=2, signals=full)
    assert plan_of(roomy, "playbook").chosen.levers == ("replicas",)
    assert plan_of(observed("learned", signals=full), "playbook").chosen.changes == ()


def test_a_cause_that_no_lever_cures_starts_no_variant():
    failing = {**SATURATED, "error_rate": 0.4, "queue_ms": 1.0, "mean_ms": 20.0, "p95_ms": 30.0, "busy": 0.2}
    assert plan_of(observed(signals=failing)).chosen.changes == ()


def test_nothing_is_given_back_while_a_smaller_variant_serves():
    idle = {**SATURATED, "qps": 2.0, "p95_ms": 20.0, "mean_ms": 16.0, "queue_ms": 1.0, "busy": 0.02}
    seen = observed("small", levers=("replicas",), replicas=4, signals={**idle, "replicas": 4.0})
    assert "the variant small serves" in plan_of(seen, symptom="idle").reason
