"""Which promise a plan is about, and what of the plan then speaks of it."""

from __future__ import annotations

import pytest

from detection.model import Service, Slo
from tests.fakes.planning import make_incident, make_observation, make_service
from tuning.planning import ACTING, get
from tuning.planning.objectives import broken
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings()


def planner_of(name):
    return get(name)(SETTINGS)


CHAT = Service(name="chat", serving="vllm", engine="continuous_batching", mode="act",
               levers=make_service(levers=("replicas",)).levers, slo=Slo(ttft_p95_ms=500, itl_p95_ms=50))  # fmt: skip


@pytest.mark.parametrize(
    ("signals", "named", "expected"),
    [
        ({"ttft_p95_ms": 600.0, "itl_p95_ms": 40.0}, (), "ttft_p95_ms"),
        ({"ttft_p95_ms": 600.0, "itl_p95_ms": 80.0}, (), "itl_p95_ms"),
        ({"ttft_p95_ms": 1000.0, "itl_p95_ms": 80.0}, (), "ttft_p95_ms"),
        ({"ttft_p95_ms": 400.0, "itl_p95_ms": 40.0}, ("itl_p95_ms",), "itl_p95_ms"),
        ({"ttft_p95_ms": 400.0}, ("qps",), "ttft_p95_ms"),
        ({}, (), "ttft_p95_ms"),
    ],
)
def test_it_is_the_one_that_is_missed_by_the_largest_factor(signals, named, expected):
    observation = make_observation(signals, service=CHAT)
    incident = make_incident().model_copy(update={"signals": named})
    assert broken(incident, observation, SETTINGS).signal == expected


@pytest.mark.parametrize("planner", ["model", "playbook"])
def test_a_plan_carries_its_promise(planner):
    observation = make_observation({"ttft_p95_ms": 400.0, "itl_p95_ms": 80.0}, service=CHAT)
    plan = planner_of(planner).propose(make_incident(), observation, ())
    assert plan.objective is not None and (plan.objective.signal, plan.objective.limit_ms) == ("itl_p95_ms", 50)


@pytest.mark.parametrize("name", ACTING)
def test_nothing_is_changed_whose_effect_nobody_can_predict(name):
    signals = {"ttft_p95_ms": 9000.0, "itl_p95_ms": 30.0, "queue_depth": 20.0, "running": 8.0, "qps": 2.0,
               "kv_usage": 0.2, "queue_ms": 8000.0, "mean_ms": 9000.0}  # fmt: skip
    plan = planner_of(name).propose(make_incident(), make_observation(signals, service=CHAT), ())
    assert plan.chosen.changes == () and plan.mode == "act"
    assert "what a change would do to TTFT P95 cannot be predicted yet" in plan.reason
