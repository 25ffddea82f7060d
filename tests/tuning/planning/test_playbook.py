"""The playbook, as a table of worked examples."""

from __future__ import annotations

import pytest

from tests.fakes.planning import (
    AT_S,
    SATURATED,
    make_incident,
    make_observation,
    make_service,
    make_settings,
)
from tuning.model import Plan, Record
from tuning.planning import get
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings(rate_window_s=20)


def propose(observation, past=(), incident=None) -> Plan:
    return get("playbook")(SETTINGS).propose(incident or make_incident(), observation, past)


def knobs(plan: Plan) -> dict:
    return plan.chosen.changes[0].new


def test_full_batches_and_a_queue_raise_the_batch():
    plan = propose(make_observation())
    assert plan.chosen.levers == ("batch_size",)
    assert knobs(plan) == {"batch_size": 8, "batch_timeout_ms": 0.0}
    assert plan.diagnosis.cause == "batch_too_small"
    assert plan.settle_s >= 20 + 5
    assert {option.levers for option in plan.rejected} == {("replicas",), ("precision",)}
    assert all(option.reason for option in plan.rejected)


def test_the_batch_step_stops_at_the_bound():
    plan = propose(make_observation(service=make_service(batch_max=6)))
    assert knobs(plan)["batch_size"] == 6


def test_at_the_batch_bound_replicas_follow():
    signals = SATURATED | {"rows_per_batch": 31.0, "batch_size": 32.0}
    plan = propose(make_observation(signals, settings=make_settings(batch=32)))
    assert plan.chosen.levers == ("replicas",)
    assert knobs(plan) == {"min_replicas": 3, "max_replicas": 10}
    assert plan.settle_s >= 20 + 30
    assert plan.lease_s is not None


def test_a_lever_that_would_do_nothing_is_passed_over():
    settings = make_settings()
    settings["batch_size"] = settings["batch_size"].model_copy(update={"useless": "no dynamic_batching"})
    plan = propose(make_observation(settings=settings))
    assert plan.chosen.levers == ("replicas",)
    assert any("no dynamic_batching" in option.reason for option in plan.rejected)


def test_the_autoscalers_maximum_bounds_the_replicas():
    signals = SATURATED | {"rows_per_batch": 31.0, "batch_size": 32.0, "replicas": 4.0}
    plan = propose(make_observation(signals, settings=make_settings(batch=32, replicas=4, max_replicas=4)))
    assert plan.chosen.levers == ("precision",)
    assert knobs(plan)["precision"] == "int8"


def test_nothing_left_is_a_hold_with_every_reason():
    signals = SATURATED | {"rows_per_batch": 31.0, "batch_size": 32.0, "replicas": 4.0}
    settings = make_settings(batch=32, replicas=4, max_replicas=4, precision="int8")
    plan = propose(make_observation(signals, settings=settings))
    assert plan.chosen.changes == ()
    for words in ("batch size is at its bound", "replicas are at their bound", "already served in INT8"):
        assert words in plan.reason


@pytest.mark.parametrize(
    ("signals", "cause"),
    [
        (SATURATED | {"error_rate": 0.3, "queue_ms": 1.0, "busy": 0.2, "mean_ms": 20.0, "p95_ms": 30.0}, "errors"),
        (SATURATED | {"p95_ms": float("nan")}, "stale_data"),
        ({k: v for k, v in SATURATED.items() if k != "p95_ms"}, "stale_data"),
        (SATURATED | {"p95_ms": 40.0, "mean_ms": 20.0, "queue_ms": 1.0, "busy": 0.3}, "healthy"),
    ],
)
def test_what_no_lever_cures_is_held_with_its_cause(signals, cause):
    plan = propose(make_observation(signals))
    assert plan.chosen.changes == ()
    assert plan.diagnosis.cause == cause
    assert not plan.diagnosis.curable


def test_batches_that_are_not_full_are_not_raised():
    signals = SATURATED | {"rows_per_batch": 3.0, "batch_size": 8.0}
    plan = propose(make_observation(signals, settings=make_settings(batch=8)))
    assert plan.chosen.levers == ("replicas",)
    assert any("not full" in option.reason for option in plan.rejected)


def test_p95_and_qps_alone_give_an_honest_unknown():
    plan = propose(make_observation({"p95_ms": 600.0, "qps": 100.0}))
    assert plan.diagnosis.cause == "unknown"
    assert plan.diagnosis.queue_ms is None


def test_an_unreadable_lever_is_passed_over_with_the_reason():
    settings = make_settings()
    del settings["batch_size"]
    plan = propose(make_observation(settings=settings, unreadable={"batch_size": "connection refused"}))
    assert plan.chosen.levers == ("replicas",)
    assert any("connection refused" in option.reason for option in plan.rejected)


def record(kind: str, body: dict, at_s: float = AT_S - 30) -> Record:
    return Record(id=f"{kind}-{at_s}", kind=kind, service="ranker", incident_id="inc-1", at_s=at_s, body=body)


@pytest.mark.parametrize(
    ("verdict", "lever"), [("unchanged", "replicas"), ("worse", "replicas"), ("improved", "batch_size")]
)
def test_a_lever_that_did_not_help_is_not_pulled_again(verdict, lever):
    first = propose(make_observation())
    past = [
        record("choose_action", first.model_dump(mode="json")),
        record("verify_p95", {"plan_id": first.id, "verdict": verdict}),
    ]
    plan = propose(make_observation(), past, make_incident(attempt=2))
    assert plan.chosen.levers == (lever,)


def test_a_refused_plan_was_no_try():
    first = propose(make_observation())
    past = [
        record("choose_action", first.model_dump(mode="json")),
        record("guard", {"plan_id": first.id, "guard": "cool_down", "reason": "wait"}),
    ]
    plan = propose(make_observation(), past, make_incident(attempt=2))
    assert plan.chosen.levers == ("batch_size",)


def test_the_strictest_mode_of_service_and_lever_wins():
    service = make_service()
    lever = service.levers["batch_size"].model_copy(update={"mode": "approve"})
    service = service.model_copy(update={"levers": service.levers | {"batch_size": lever}})
    assert propose(make_observation(service=service)).mode == "approve"
