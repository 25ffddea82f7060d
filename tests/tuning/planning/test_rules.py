"""The playbook's rules word for word, and what the ledger's records say of gains."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fakes.planning import AT_S, SATURATED, make_incident, make_observation, make_service, make_settings
from tuning.model import Record, Setting
from tuning.planning import effects as ef
from tuning.planning import get
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings(rate_window_s=20)
CALM_QUEUE = {"queue_ms": 1.0, "busy": 0.3, "mean_ms": 30.0}


def propose(signals=None, past=(), symptom="latency", **kwargs):
    observation = make_observation(SATURATED | (signals or {}), **kwargs)
    return get("playbook")(SETTINGS).propose(make_incident(symptom), observation, past)


def reasons(plan):
    weighed = [plan.chosen, *plan.rejected]
    return {option.levers[0]: option.reason for option in weighed if option.levers}


@pytest.mark.parametrize(
    ("signals", "kwargs", "lever", "text"),
    [
        ({}, {}, "batch_size", "batches are full (1.0 of 1 rows) while requests queue for 385 ms: 8 rows share the fixed "
                               "cost of a batch"),
        (CALM_QUEUE, {}, "batch_size", "no queue stands, so a larger batch would only add waiting"),
        ({"rows_per_batch": 1.5}, {"settings": make_settings(batch=4)}, "batch_size",
         "batches are not full (1.5 of 4 rows)"),
        ({"rows_per_batch": 32.0}, {"settings": make_settings(batch=32)}, "batch_size",
         "the batch size is at its bound of 32"),
        (CALM_QUEUE, {}, "replicas", "no queue stands, and replicas shrink nothing but the queue"),
        ({"rows_per_batch": 32.0}, {"settings": make_settings(batch=32)}, "replicas",
         "a queue stands and 3 replicas divide it"),
        ({"replicas": 5.0, "rows_per_batch": 32.0}, {"settings": make_settings(batch=32, replicas=5)}, "replicas",
         "a queue stands and 8 replicas divide it"),
        ({"replicas": 10.0}, {"settings": make_settings(replicas=10)}, "replicas", "replicas are at their bound of 10"),
        (CALM_QUEUE, {}, "precision",
         "the other levers are at their bounds, and INT8 shortens the service time itself"),
        ({}, {"settings": make_settings(precision="int8")}, "precision", "the model is already served in INT8"),
    ],
)  # fmt: skip
def test_what_is_said_of_each_lever(signals, kwargs, lever, text):
    assert reasons(propose(signals, **kwargs))[lever] == text


def test_what_would_do_as_well_comes_later_in_the_playbook():
    assert reasons(propose())["replicas"] == "not needed: batch_size 1 -> 8 comes first in the playbook"


def test_levers_that_were_not_read_say_why():
    plan = propose(settings={"none": Setting(lever="none", values={})}, unreadable={"replicas": "no answer"})
    told = [option.reason for option in plan.rejected]
    assert told == [
        "the present batch_size could not be read",
        "the present replicas could not be read: no answer",
        "the present precision could not be read",
    ]
    assert plan.reason == "hold: " + "; ".join(told)


def test_more_replicas_are_lent_until_the_rate_has_fallen_to_six_tenths():
    plan = propose({"rows_per_batch": 32.0}, settings=make_settings(batch=32))
    assert plan.lease_s == SETTINGS.lease_s and plan.revert_below_qps == pytest.approx(0.6 * 120.0)
    assert plan.settle_s == 50.0
    batch = propose()
    assert batch.lease_s is None and batch.revert_below_qps is None and batch.settle_s == 25.0


@pytest.mark.parametrize(
    ("signals", "symptom", "held"),
    [
        (CALM_QUEUE | {"p95_ms": 40.0}, "latency", "it recovered by itself"),
        (CALM_QUEUE | {"error_rate": 0.3}, "errors", "no lever cures that"),
    ],
)
def test_causes_that_no_lever_cures(signals, symptom, held):
    plan = propose(signals, symptom=symptom)
    assert plan.chosen.changes == () and held in plan.reason
    assert all("cannot cure" in option.reason for option in plan.rejected)


def test_a_wait_that_is_too_long_is_no_case_for_replicas_or_int8():
    plan = propose(
        {"queue_ms": 310.0, "mean_ms": 330.0, "busy": 0.15, "rows_per_batch": 4.0, "batch_size": 32.0,
         "batch_timeout_ms": 400.0},
        settings=make_settings(batch=32, timeout_ms=400.0),
    )  # fmt: skip
    assert plan.diagnosis.cause == "batch_wait_too_long"
    assert reasons(plan)["replicas"] == "replicas cannot cure batch wait too long"


def test_idle_capacity_is_not_given_back_by_the_playbook():
    plan = propose(CALM_QUEUE | {"p95_ms": 20.0}, symptom="idle")
    assert plan.diagnosis.cause == "idle_capacity" and plan.chosen.changes == ()


def receipt(at_s, speedup, kind="quantize_int8"):
    evidence = {} if speedup is None else {"speedup": speedup}
    return Record(id=f"r{at_s}", kind=kind, service="s", at_s=at_s, body={"evidence": evidence})


@pytest.mark.parametrize(
    ("records", "gain"),
    [
        ([], None),
        ([receipt(1, 2.0), receipt(3, 1.6), receipt(2, 9.0)], 1.6),
        ([receipt(1, 2.0), receipt(3, None)], 2.0),
        ([receipt(1, 2.0, kind="adjust_batch_size")], None),
        ([receipt(1, 0.0)], None),
        ([receipt(1, float("nan"))], None),
        ([Record(id="x", kind="quantize_int8", service="s", at_s=1, body={})], None),
    ],
)
def test_the_newest_measured_gain_counts(records, gain):
    assert ef.measured_gain(records) == gain


def effect(verdict="improved", resolved=None, observed=100.0, predicted=100.0, service="s", k=0):
    return ef.Effect(
        f"p{k}", service, "load_surge", ("batch_size",), k, verdict, resolved, predicted, None, None, observed
    )


@pytest.mark.parametrize(
    ("verdicts", "a", "b"),
    [
        ([], 3.0, 1.0),
        (["improved"], 4.0, 1.0),
        (["unchanged"], 3.0, 2.0),
        (["improved", "improved"], 4.98, 1.0),
        (["unchanged", "improved"], 4.0, 1.98),
        (["inconclusive"], 3.0, 1.0),
    ],
)
def test_the_posterior_in_figures(verdicts, a, b):
    found = ef.posterior([effect(verdict) for verdict in verdicts], "s", "load_surge", ("batch_size",))
    assert (found.a, found.b) == (pytest.approx(a), pytest.approx(b))
    assert found.tries == len([v for v in verdicts if v != "inconclusive"])
    assert found.worked == verdicts.count("improved")


def test_the_weight_is_one_at_most():
    assert ef.Posterior(9.0, 1.0, 6, 6).weight == 1.0
    assert ef.Posterior(3.0, 5.0, 0, 4).weight == pytest.approx(0.5)
    assert ef.Posterior(3.0, 1.0, 0, 0).text() == "not tried before"


@pytest.mark.parametrize(
    ("observed", "bias", "scatter"),
    [
        ([], 0.0, 0.1),
        ([110.0], 0.013616, 0.097595),
        ([110.0] * 6, 0.047655, 0.078329),
        ([1000.0], 0.1, 0.244949),
        ([10.0], -0.1, 0.244949),
        ([50.0] * 50, -0.602737, 0.091718),
    ],
)
def test_bias_and_scatter_in_figures(observed, bias, scatter):
    found = ef.calibration([effect(observed=ms, k=k) for k, ms in enumerate(observed)], "s")
    assert found == (pytest.approx(bias, abs=1e-5), pytest.approx(scatter, abs=1e-5))


def test_only_this_services_told_trials_calibrate():
    others = [effect(observed=200.0, service="t"), effect("inconclusive", observed=200.0),
              dataclasses.replace(effect(), observed_ms=None), dataclasses.replace(effect(), predicted_ms=None)]  # fmt: skip
    assert ef.calibration(others, "s") == (0.0, pytest.approx(0.1))


@pytest.mark.parametrize(
    ("verdict", "resolved", "worked"),
    [("improved", None, True), ("improved", True, True), ("improved", False, False), ("worse", True, False),
     ("unchanged", None, False), ("inconclusive", True, None)],
)  # fmt: skip
def test_what_worked(verdict, resolved, worked):
    assert effect(verdict, resolved).worked is worked


def test_the_question_is_the_same_at_the_same_time_only():
    assert propose().id == propose().id
    assert make_observation().at_s == AT_S and make_service().name == "ranker"
