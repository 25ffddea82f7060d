"""The model planner on worked examples: cause, choice, reasons, memory."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from slotune.observation_file import parse
from tests.fakes.planning import AT_S, SATURATED, make_incident, make_observation, make_service, make_settings
from tuning.model import Plan, Record
from tuning.planning import get
from tuning.planning.settings import PlanningSettings

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "observation.json"
SETTINGS = PlanningSettings(simulated_batches=500)


def example(**change):
    body = json.loads(EXAMPLE.read_text())
    for path, value in change.items():
        part = body
        *parents, last = path.split("__")
        for name in parents:
            part = part[name]
        part[last] = value
    return parse(json.dumps(body))


def propose(pair, past=(), settings=SETTINGS) -> Plan:
    incident, observation = pair
    return get("model")(settings).propose(incident, observation, past)


def test_a_surge_that_a_larger_batch_carries_is_cured_for_free():
    plan = propose(example())
    assert plan.diagnosis.cause == "load_surge"
    assert any("x" in text and "requests/s" in text for text in plan.diagnosis.evidence)
    assert plan.chosen.levers == ("batch_size",)
    assert plan.chosen.predicted_p95_ms.value < 270
    assert plan.chosen.cost_per_hour == 0
    assert any(option.levers == ("replicas",) and "costs" in option.reason for option in plan.rejected)


def test_where_batching_gains_nothing_replicas_are_added_and_the_reason_says_so():
    # The same service, but a batch's time goes with its rows: 0.5 + 14 ms per row.
    rows = json.loads(EXAMPLE.read_text())["signals"]["rows_per_batch"]
    incident, observation = example(signals__batch_ms=[0.5 + 13.9 * b for b in rows])
    observation = dataclasses.replace(observation, unreadable={"precision": "503"}, settings={
        name: setting for name, setting in observation.settings.items() if name != "precision"})  # fmt: skip
    plan = propose((incident, observation))
    assert plan.chosen.levers == ("replicas",)
    assert "grow with its rows" in plan.reason or "busy" in plan.reason
    assert plan.lease_s is not None and plan.revert_below_qps > 0


def test_the_split_and_the_settle_time_are_told():
    plan = propose(example())
    assert plan.diagnosis.queue_share > 0.9
    assert plan.settle_s >= SETTINGS.rate_window_s + 2


def test_a_slower_service_is_told_from_a_surge():
    signals = json.loads(EXAMPLE.read_text())["signals"]
    slow = [ms * (2.6 if k >= 11 else 1) for k, ms in enumerate(signals["batch_ms"])]
    plan = propose(example(signals__batch_ms=slow, signals__qps=[70] * 25, signals__queue_depth=[0] * 25))
    assert plan.diagnosis.cause == "slower_service"


def test_lost_replicas_are_named():
    replicas = [4] * 11 + [2] * 14
    plan = propose(example(signals__replicas=replicas, signals__qps=[120] * 25, signals__queue_depth=[9] * 25))
    assert plan.diagnosis.cause == "lost_capacity"


def test_a_wait_that_is_too_long_is_shortened():
    observation = make_observation(
        SATURATED
        | {"qps": 20.0, "p95_ms": 420.0, "mean_ms": 330.0, "queue_ms": 310.0, "batch_ms": 20.0, "busy": 0.15,
           "rows_per_batch": 4.0, "batch_size": 32.0, "batch_timeout_ms": 400.0},
        settings=make_settings(batch=32, timeout_ms=400.0),
    )  # fmt: skip
    plan = propose((make_incident(), observation))
    assert plan.diagnosis.cause == "batch_wait_too_long"
    assert plan.chosen.levers == ("batch_size",)
    assert plan.chosen.changes[0].new["batch_timeout_ms"] < 100


def test_a_load_beyond_every_bound_is_held_with_the_best_that_could_be():
    levers = {"batch_size": {"minimum": 1, "maximum": 4}, "replicas": {"minimum": 1, "maximum": 2}}
    settings = {"batch_size": {"batch_size": 4, "batch_timeout_ms": 5}, "replicas": {"min_replicas": 2}}
    plan = propose(example(service__levers=levers, settings=settings))
    assert plan.chosen.changes == ()
    assert plan.diagnosis.cause == "load_surge"
    assert "nothing within bounds" in plan.reason
    assert not plan.chosen.meets_slo


ONE_ROW = {"qps": [60.0] * 37 + [98.0] * 24, "p95_ms": [25.0] * 37 + [2000.0] * 24, "mean_ms": 1200.0,
           "queue_ms": [5.0] * 37 + [1190.0] * 24, "batch_ms": 10.0, "rows_per_batch": 1.0, "batch_size": 1.0,
           "busy": [0.6] * 37 + [1.0] * 24, "replicas": 1.0, "error_rate": 0.0}  # fmt: skip


def overloaded(growth_per_s: float, batch_ms: float = 10.0, p95_slo_ms: float = 140.0):
    """Only ever ran batches of one row, and now the queue grows by so much."""
    depth = [0.0] * 37 + [5.0 * growth_per_s * k for k in range(24)]
    signals = ONE_ROW | {"queue_depth": depth, "batch_ms": batch_ms}
    service = make_service(levers=("batch_size",), p95_ms=p95_slo_ms)
    settings = {"batch_size": make_settings(batch=1)["batch_size"]}
    incident = make_incident().model_copy(update={"opened_at_s": AT_S - 115.0})
    return incident, make_observation(signals, service=service, settings=settings)


def test_a_larger_batch_is_tried_where_its_time_is_not_known_and_holding_loses_for_sure():
    plan = propose(overloaded(growth_per_s=900.0))
    assert plan.chosen.levers == ("batch_size",)
    assert plan.chosen.changes[0].new["batch_size"] == 32
    assert "never seen here" in plan.reason and "can be undone" in plan.reason
    assert plan.chosen.meets_slo is False


def test_a_fair_chance_is_taken_where_holding_loses_for_sure_although_by_the_middle_it_does_not_do():
    plan = propose(overloaded(growth_per_s=300.0))
    assert plan.chosen.changes[0].new["batch_size"] == 32 and plan.chosen.probability_worked == pytest.approx(0.5)
    assert "not sure (50%: by what is known the load would be 156% of its capacity)" in plan.reason
    assert "within about" not in plan.reason and plan.chosen.meets_slo is False


def test_what_cannot_do_even_with_every_row_for_free_is_not_tried():
    plan = propose(overloaded(growth_per_s=9000.0))
    assert plan.chosen.changes == () and "nothing within bounds" in plan.reason


def test_a_batch_whose_time_is_known_is_not_tried_in_vain():
    rows = [1.0 + k % 4 for k in range(61)]
    signals = overloaded(growth_per_s=900.0)[1].window.values | {
        "rows_per_batch": rows, "batch_ms": [2.0 + 8.0 * b for b in rows], "batch_size": [4.0] * 61}  # fmt: skip
    service = make_service(levers=("batch_size",), p95_ms=140.0)
    settings = {"batch_size": make_settings(batch=4)["batch_size"]}
    incident = overloaded(900.0)[0]
    plan = propose((incident, make_observation(signals, service=service, settings=settings)))
    assert plan.chosen.changes == ()


def test_of_options_at_the_same_price_the_one_with_room_wins_and_the_reasons_say_so():
    plan = propose(overloaded(growth_per_s=40.0))
    assert plan.chosen.changes[0].new["batch_size"] >= 16
    small = next(o for o in plan.rejected if o.changes and o.changes[0].new["batch_size"] == 4)
    assert "room" in small.reason or "meets the SLO with" in small.reason


def test_what_is_over_is_said_to_have_recovered_by_itself():
    observation = make_observation(SATURATED | {"p95_ms": 29.0, "queue_ms": 1.0}, service=make_service(p95_ms=140.0))
    plan = propose((make_incident(), observation))
    assert plan.chosen.changes == ()
    assert "recovered by itself" in plan.reason and "no change is needed" in plan.reason


def test_a_lever_that_failed_here_before_is_demoted():
    incident, observation = example()
    plan = propose((incident, observation))
    past = []
    for k in range(6):
        body = plan.model_dump(mode="json") | {"id": f"old-{k}", "incident_id": f"old-{k}"}
        at_s = observation.at_s - 90_000 + k
        past.append(record("choose_action", body, f"old-{k}", at_s))
        past.append(record("verify_p95", {"plan_id": f"old-{k}", "verdict": "unchanged"}, f"old-{k}", at_s + 60))
    again = propose((incident, observation), past)
    assert again.chosen.levers != plan.chosen.levers
    assert any("worked 0 of 6 times" in option.reason for option in again.rejected)


def record(kind, body, incident_id="inc-1", at_s=AT_S) -> Record:
    return Record(
        id=f"{kind}-{incident_id}", kind=kind, service="ranker", incident_id=incident_id, at_s=at_s, body=body
    )


@pytest.mark.parametrize(
    ("verdict", "half"),
    [("worse", False), ("unchanged", True), ("inconclusive", True)],
)
def test_a_tried_lever_is_not_pulled_again_for_the_same_incident_but_beside_another(verdict, half):
    incident, observation = example()
    plan = propose((incident, observation))
    assert plan.chosen.levers == ("batch_size",)
    past = [
        record("choose_action", plan.model_dump(mode="json"), incident.id, observation.at_s - 30),
        record("verify_p95", {"plan_id": plan.id, "verdict": verdict}, incident.id, observation.at_s - 5),
    ]
    again = propose((incident, observation), past)
    assert again.chosen.levers != ("batch_size",)
    pairs = [o for o in (again.chosen, *again.rejected) if len(o.changes) == 2 and "batch_size" in o.levers]
    assert bool([o for o in pairs if "was tried" not in o.reason]) is half


def idle(onset_ago_s: float):
    signals = {"qps": 5.0, "p95_ms": 30.0, "mean_ms": 22.0, "queue_ms": 1.0, "queue_depth": 0.0, "batch_ms": 20.0,
               "rows_per_batch": 1.0, "batch_size": 8.0, "busy": 0.03, "replicas": 4.0, "error_rate": 0.0}  # fmt: skip
    incident = make_incident("idle").model_copy(update={"opened_at_s": AT_S - onset_ago_s})
    service = make_service(p95_ms=200.0)
    return incident, make_observation(signals, service=service, settings=make_settings(batch=8, replicas=4))


def test_idle_capacity_is_given_back_one_replica_at_a_time():
    plan = propose(idle(4000.0))
    assert plan.diagnosis.cause == "idle_capacity"
    assert plan.chosen.changes[0].new["min_replicas"] == 3
    assert plan.chosen.cost_per_hour == pytest.approx(-1.2)


def test_idle_capacity_needs_patience():
    plan = propose(idle(300.0))
    assert plan.chosen.changes == ()
    assert "1800 s are asked for" in plan.reason


def test_an_unknown_split_falls_back_to_the_playbook():
    plan = propose((make_incident(), make_observation({"p95_ms": 600.0, "qps": 100.0, "busy": 1.0})))
    assert plan.diagnosis.cause == "unknown"
    assert "unknown" in plan.diagnosis.evidence[0]


def test_int8_without_a_model_is_no_option():
    levers = json.loads(EXAMPLE.read_text())["service"]["levers"]
    levers["precision"]["options"] = {"onnx": None}
    plan = propose(example(service__levers=levers))
    assert not any("precision" in option.levers for option in (plan.chosen, *plan.rejected))
    assert any("no calibrated model configured" in option.reason for option in plan.rejected)


def test_with_batch_and_replicas_at_their_bounds_int8_is_the_way_and_the_bounds_are_told():
    levers = json.loads(EXAMPLE.read_text())["service"]["levers"]
    batch = json.loads(EXAMPLE.read_text())["settings"]["batch_size"]["batch_size"]
    levers["batch_size"].update(minimum=batch, maximum=batch)
    levers["replicas"]["maximum"] = 2
    plan = propose(example(service__levers=levers))
    assert plan.chosen.levers == ("precision",)
    assert plan.chosen.changes[0].new == {"precision": "int8"}
    for words in (f"the batch size is at its bound of {batch}", "replicas are at their bound of 2"):
        assert any(words in option.reason for option in plan.rejected)


def test_a_lever_that_would_do_nothing_is_no_option_and_the_reason_is_told():
    incident, observation = example()
    batch = observation.settings["batch_size"].model_copy(update={"useless": "the model has no dynamic_batching"})
    plan = propose((incident, dataclasses.replace(observation, settings={**observation.settings, "batch_size": batch})))
    assert not any("batch_size" in option.levers for option in (plan.chosen, *plan.rejected))
    assert any("batch_size: the model has no dynamic_batching" in option.reason for option in plan.rejected)
