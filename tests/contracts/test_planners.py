"""What every planner in the registry keeps, whatever it is shown."""

from __future__ import annotations

import math

import pytest

from detection.errors import ConfigError
from tests.fakes.planning import SATURATED, make_incident, make_observation, make_service, make_settings
from tuning.model import Change
from tuning.planning import REGISTRY, get
from tuning.planning.causes import CAUSES
from tuning.planning.settings import PlanningSettings

NAN = float("nan")
OBSERVATIONS = {
    "saturated": make_observation(),
    "nothing exported": make_observation({}),
    "only P95 and QPS": make_observation({"p95_ms": 600.0, "qps": 50.0}),
    "all gaps": make_observation(dict.fromkeys(SATURATED, NAN)),
    "zeros": make_observation(dict.fromkeys(SATURATED, 0.0)),
    "no levers": make_observation(service=make_service(levers=())),
    "levers unreadable": make_observation(
        settings={"none": make_settings()["batch_size"]}, unreadable={"replicas": "down"}
    ),
    "errors": make_observation(SATURATED | {"error_rate": 0.5, "queue_ms": 0.5, "busy": 0.1, "mean_ms": 15.0}),
    "healthy": make_observation(SATURATED | {"p95_ms": 30.0, "mean_ms": 20.0, "queue_ms": 1.0, "busy": 0.3}),
}


@pytest.fixture(params=sorted(REGISTRY))
def planner(request):
    return get(request.param)(PlanningSettings())


def test_the_registry_is_sorted_and_an_unknown_name_lists_it():
    assert list(REGISTRY) == sorted(REGISTRY)
    with pytest.raises(ConfigError, match="playbook"):
        get("oracle")


@pytest.mark.parametrize("case", sorted(OBSERVATIONS))
def test_what_is_spared_is_told_in_a_sentence(planner, case):
    step = Change(lever="replicas", old={"min_replicas": 4}, new={"min_replicas": 3})
    reason = planner.spares(make_incident(), OBSERVATIONS[case], (), step)
    assert reason == "" or reason.endswith(".")


@pytest.mark.parametrize("case", sorted(OBSERVATIONS))
def test_every_plan_is_whole(planner, case):
    observation, incident = OBSERVATIONS[case], make_incident()
    plan = planner.propose(incident, observation, ())
    assert plan.incident_id == incident.id and plan.service == "ranker"
    assert plan.diagnosis.cause in CAUSES
    assert plan.reason and plan.chosen.reason
    assert all(option.reason for option in plan.rejected)
    assert math.isfinite(plan.settle_s) and plan.settle_s > 0
    for change in plan.chosen.changes:
        lever = observation.service.levers[change.lever]
        # The way back is complete; what the way there will be called (a model's new version) may not be known yet.
        assert change.old == {k: observation.settings[change.lever].values[k] for k in change.old}
        assert set(change.new) <= set(change.old)
        assert change.old != change.new
        if change.lever == "batch_size":
            assert lever.minimum <= change.new["batch_size"] <= lever.maximum
        if change.lever == "replicas":
            assert lever.minimum <= change.new["min_replicas"] <= lever.maximum
    json = plan.model_dump(mode="json")
    assert type(plan).model_validate(json) == plan


@pytest.mark.parametrize("case", sorted(OBSERVATIONS))
def test_the_same_arguments_give_the_same_plan(planner, case):
    plans = [planner.propose(make_incident(), OBSERVATIONS[case], ()) for _ in range(2)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("case", ["errors", "healthy", "all gaps", "nothing exported", "no levers", "zeros"])
def test_no_change_where_none_can_help(planner, case):
    assert planner.propose(make_incident(), OBSERVATIONS[case], ()).chosen.changes == ()


def test_the_inverse_restores_the_old_values(planner):
    plan = planner.propose(make_incident(), OBSERVATIONS["saturated"], ())
    undo = plan.inverse()
    assert undo.rollback_of == plan.id
    assert [c.new for c in reversed(undo.chosen.changes)] == [c.old for c in plan.chosen.changes]
