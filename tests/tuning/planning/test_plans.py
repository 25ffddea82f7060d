"""Plans as a whole: what is lent, what is given back, what is asked, and when a queue is left to drain."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detection.model import Slo
from tests.contracts.engine_subjects import SUBJECTS, token_signals
from tests.fakes.planning import (
    AT_S,
    SATURATED,
    make_incident,
    make_observation,
    make_service,
    make_settings,
    make_window,
)
from tuning.model import Change, Record
from tuning.planning import get
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings(rate_window_s=10, simulated_batches=400)
ROWS = [1.0 + k % 4 for k in range(61)]
LINE = [10.0 + 2.0 * rows for rows in ROWS]
SERVICE = SATURATED | {"qps": 60.0, "p95_ms": 30.0, "mean_ms": 22.0, "queue_ms": 4.0, "queue_depth": 0.0, "busy": 0.4,
                       "rows_per_batch": ROWS, "batch_ms": LINE, "batch_size": 4.0}  # fmt: skip


def propose(signals=None, *, opened_s=115.0, symptom="latency", past=(), planning=SETTINGS, p95_ms=60.0, **kwargs):
    kwargs = {"settings": make_settings(batch=4), "service": make_service(p95_ms=p95_ms)} | kwargs
    observation = make_observation(SERVICE | (signals or {}), **kwargs)
    incident = make_incident(symptom).model_copy(update={"opened_at_s": AT_S - opened_s})
    return get("model")(planning).propose(incident, observation, past)


def after(before, now):
    return [before] * 37 + [now] * 24


SURGE = {"qps": after(60.0, 440.0), "p95_ms": after(30.0, 900.0), "queue_ms": after(4.0, 600.0),
         "mean_ms": after(22.0, 640.0), "busy": after(0.4, 1.0),
         "queue_depth": [0.0] * 37 + [40.0 * k for k in range(24)]}  # fmt: skip


def test_more_replicas_are_lent_until_the_rate_falls_well_below_that_of_the_plan():
    plan = propose(SURGE, service=make_service(levers=("replicas",), p95_ms=60.0))
    assert plan.chosen.levers == ("replicas",) and plan.lease_s == 3600.0
    # 2 replicas x 4 rows in 18 ms carry 444/s, less than what comes.
    assert plan.revert_below_qps == pytest.approx(0.7 * 444, rel=0.05)


def test_at_the_rate_at_which_it_broke_a_setting_is_not_taken_back_however_much_it_could_carry():
    bursts = {"p95_ms": after(30.0, 70.0), "arrival_cv2": 9.0, "mean_ms": 40.0, "queue_ms": 20.0, "qps": 120.0}
    plan = propose(bursts, service=make_service(levers=("replicas",), p95_ms=60.0))
    assert plan.chosen.levers == ("replicas",)
    assert plan.revert_below_qps == pytest.approx(0.7 * 120.0, rel=0.05)


FEW = {"qps": 3.0, "p95_ms": [30.0] * 55 + [70.0] * 6, "queue_ms": 4.0, "queue_depth": 0.0, "busy": 0.1}
"""3/s, 30 requests in a rate window of 10 s; P95 was over 60 ms for half a minute."""


@pytest.mark.parametrize(
    ("signals", "opened_s", "held"),
    [
        ({}, 20.0, True),
        ({}, 20.1, False),  # more than two rate windows ago
        ({"qps": 19.9}, 20.0, True),
        ({"qps": 20.1}, 20.0, False),  # 201 requests are more than luck
        ({"batch_ms": [12.0] * 55 + [45.0] * 6}, 20.0, False),  # a batch takes 45 ms now: the present setting does not
    ],
)
def test_a_few_slow_requests_are_no_reason_for_a_change_yet(signals, opened_s, held):
    plan = propose(FEW | signals, opened_s=opened_s)
    assert ("few enough for luck" in plan.reason) is held, plan.reason
    assert not held or (plan.chosen.changes == () and plan.chosen.meets_slo)


@pytest.mark.parametrize(
    ("signals", "does", "words"),
    [
        ({"qps": 20.1}, True, "hold: the present setting is predicted to do (P95 27.5 ms, SLO 60 ms; 100%), and no option"),
        # A batch takes 45 ms now: the present setting does not, and no batch is likely to.
        ({"batch_ms": [12.0] * 55 + [45.0] * 6}, False, "nothing else within bounds meets 60 ms"),
    ],
)
def test_what_shows_the_present_figures_again_is_no_option(signals, does, words):
    """Where the present setting should keep what is broken, what broke it is not in what is seen: looked at again soon."""
    plan = propose(FEW | signals, opened_s=20.0, service=make_service(levers=("batch_size",), p95_ms=60.0))
    assert plan.chosen.changes == () and plan.chosen.meets_slo is does
    assert words in plan.reason, plan.reason
    again = next(option for option in plan.rejected if option.text() == "batch_size 4 -> 8")
    assert "and so does the present setting" in again.reason


@pytest.mark.parametrize(("ago_s", "held"), [(105.0, True), (106.0, False)])
def test_no_second_change_goes_on_top_of_a_fresh_one_that_is_predicted_to_do(ago_s, held):
    """A batch change takes effect after 5 s, and is fresh for ten rate windows of 10 s."""
    moved = Record(id="moved", kind="adjust_batch_size", service="ranker", incident_id="inc-1", at_s=AT_S - ago_s,
                   phase="result", body={"lever": "batch_size", "changed": True})  # fmt: skip
    broken = {"qps": 40.0, "p95_ms": after(30.0, 70.0)}
    plan = propose(FEW | broken, opened_s=115.0, past=(moved,))
    assert ("what was changed is predicted to do" in plan.reason) is held, plan.reason
    assert not held or (plan.chosen.changes == () and plan.chosen.meets_slo)


def test_int8_of_a_gain_that_nobody_measured_goes_before_what_costs_if_all_of_its_interval_does():
    """Before replicas, and before a batch that does with 75 %; where the interval reaches over the SLO it does not."""
    plan = propose(SURGE)
    assert plan.chosen.levers == ("precision",) and plan.chosen.predicted_p95_ms.high < 60.0
    tight = propose(SURGE, p95_ms=31.0)
    assert tight.chosen.levers != ("precision",)
    assert any("its gain is not measured yet" in option.reason for option in tight.rejected)


def test_a_batch_is_no_loan():
    plan = propose(SURGE, service=make_service(p95_ms=60.0, levers=("batch_size", "replicas")))
    assert plan.chosen.levers == ("batch_size",)
    assert plan.lease_s is None and plan.revert_below_qps is None
    assert plan.settle_s == pytest.approx(plan.chosen.effect_delay_s + 10.0)


def test_a_wait_before_the_look_ends_at_ten_minutes():
    slow = make_service(p95_ms=60.0)
    levers = {name: lever.model_copy(update={"effect_delay_s": 900.0}) for name, lever in slow.levers.items()}
    plan = propose(SURGE, service=slow.model_copy(update={"levers": levers}))
    assert plan.chosen.changes and plan.settle_s == 600.0


FALLING = {"qps": after(60.0, 90.0), "queue_depth": [0.0] * 37 + [0.0] * 12 + [5000.0 - 400.0 * k for k in range(12)],
           "p95_ms": [30.0] * 37 + [5000.0] * 20 + [3000.0, 2500.0, 2000.0, 1500.0],
           "queue_ms": 900.0, "mean_ms": 920.0, "busy": 1.0}  # fmt: skip


def drains(signals=None, **kwargs):
    return "drains by itself" in propose(FALLING | (signals or {}), p95_ms=100.0, **kwargs).reason


def test_a_queue_that_empties_by_itself_needs_no_change():
    plan = propose(FALLING, p95_ms=100.0)
    assert plan.chosen.changes == () and plan.reason.startswith("hold: the queue drains by itself in about")
    assert plan.chosen.predicted_p95_ms.value < 100.0 and plan.chosen.meets_slo


@pytest.mark.parametrize(
    "changed",
    [
        # neither P95 nor the queue falls
        {"p95_ms": after(30.0, 5000.0), "queue_depth": [0.0] * 37 + [400.0 * k for k in range(24)]},
        # the service itself has become slow
        {"batch_ms": [ms * (1 if k < 37 else 3) for k, ms in enumerate(LINE)]},
        # it would take more than two minutes
        {"queue_depth": [0.0] * 49 + [90_000.0 - 1250.0 * k for k in range(12)]},
    ],
)
def test_a_queue_that_does_not_is_not_left_alone(changed):
    assert drains() and not drains(changed)


def idle(**kwargs):
    signals = {"qps": 5.0, "p95_ms": 20.0, "busy": 0.03, "replicas": 4.0, "rows_per_batch": 1.0, "batch_ms": 12.0}
    defaults = {"symptom": "idle", "opened_s": 1800.0, "settings": make_settings(batch=4, replicas=4), "p95_ms": 200.0}
    return propose(signals | kwargs.pop("signals", {}), **(defaults | kwargs))


def test_idle_capacity_is_given_back_when_it_was_idle_for_long_enough():
    plan = idle()
    assert plan.chosen.changes[0].new["min_replicas"] == 3 and plan.lease_s is None
    assert "saving 1.20/h" in plan.reason
    assert "idle for 1799 s only, 1800 s are asked for" in idle(opened_s=1799.0).reason


def test_what_the_history_shows_must_be_carried_by_those_that_stay():
    history = make_window({"qps": [5.0] * 50 + [400.0] * 11}, step_s=300.0)
    assert "no room to give one back" in idle(history=history).reason
    calm = make_window({"qps": [5.0] * 60 + [400.0]}, step_s=300.0)
    assert idle(history=calm).chosen.changes


def test_the_last_replica_stays_and_an_unknown_load_gives_nothing_back():
    assert "no replica can be given back" in idle(settings=make_settings(batch=4, replicas=1),
                                                  signals={"replicas": 1.0}).reason  # fmt: skip
    assert "is not exported" in idle(signals={"batch_ms": math.nan}).reason


def test_a_change_whose_effect_nobody_can_predict_is_asked_about():
    blind = SATURATED | {"batch_ms": math.nan}
    observation = make_observation(blind)
    plan = get("model")(SETTINGS).propose(make_incident(), observation, ())
    assert plan.chosen.changes and plan.chosen.predicted_p95_ms is None
    assert plan.mode == "approve" and "cannot be predicted" in plan.reason and "a person is asked" in plan.chosen.reason
    watched = make_observation(blind, service=make_service(mode="observe"))
    assert get("model")(SETTINGS).propose(make_incident(), watched, ()).mode == "observe"
    assert get("playbook")(SETTINGS).propose(make_incident(), observation, ()).mode == "act"


def test_refused_requests_are_cured_only_by_what_brings_p95_well_below_the_present():
    refusing = SURGE | {"error_rate": after(0.0, 0.2), "p95_ms": after(30.0, 90.0)}
    plan = propose(refusing, p95_ms=500.0)
    assert plan.diagnosis.cause == "load_surge"
    assert plan.chosen.changes and plan.chosen.predicted_p95_ms.value <= 0.9 * 90.0


def sick(factor, **signals):
    windows = {name: make_window({"batch_ms": [f * ms for ms in LINE], "rows_per_batch": ROWS})
               for name, f in (("a", 1.0), ("b", factor))}  # fmt: skip
    return propose({"p95_ms": after(30.0, 300.0), **signals}, replicas=windows)


def test_beside_another_lever_one_replica_at_most_stands_in_for_a_sick_one():
    plan = sick(4.0)
    assert plan.diagnosis.cause == "slow_replica"
    pairs = [option.changes for option in (plan.chosen, *plan.rejected) if len(option.changes) == 2]
    added = [c.new["min_replicas"] - c.old["min_replicas"] for pair in pairs for c in pair if c.lever == "replicas"]
    assert added and set(added) == {1}
    # Nothing is sure, and a pair has to be likelier by 15 %.
    assert plan.chosen.levers == ("precision",)


def moved(at_s, kind="adjust_batch_size", phase="result", changed=True, lever="batch_size"):
    body = {"changed": changed, "lever": lever}
    return Record(id=f"{kind}-{at_s}", kind=kind, phase=phase, service="ranker", at_s=at_s, body=body)


@pytest.mark.parametrize(
    ("record", "looked_from"),
    [
        (None, 115.0),
        (moved(AT_S - 60), 55.0),
        (moved(AT_S - 60, kind="roll_back"), 55.0),
        (moved(AT_S - 60, lever="replicas"), 30.0),
        (moved(AT_S - 60, lever="gone"), 60.0),
        (moved(AT_S - 60, changed=False), 115.0),
        (moved(AT_S - 60, phase="intent"), 115.0),
        (moved(AT_S - 60, kind="hold"), 115.0),
    ],
)
def test_what_is_older_than_a_change_says_nothing_about_the_present_setting(record, looked_from):
    from tuning.planning.model_planner import _changed_s

    found = _changed_s(make_observation(), [record] if record is not None else [])
    assert max(found, AT_S - 115.0) == AT_S - looked_from


def test_pairs_are_weighed_where_they_are_cheaper_than_the_best_single():
    plan = propose(SURGE | {"qps": after(60.0, 1500.0), "queue_depth": [0.0] * 37 + [5000.0 * k for k in range(24)]})
    texts = [option.levers for option in (plan.chosen, *plan.rejected)]
    assert any(len(levers) == 2 for levers in texts)
    free = propose(SURGE, p95_ms=300.0)
    assert all(len(option.levers) < 2 for option in (free.chosen, *free.rejected) if option.changes)


CALM = {"qps": after(60.0, 440.0), "p95_ms": 30.0, "queue_ms": 4.0, "queue_depth": 0.0, "busy": after(0.4, 0.6),
        "replicas": after(2.0, 6.0), "rows_per_batch": ROWS, "batch_ms": LINE}  # fmt: skip
"""Four replicas were added for a surge from 60/s to 440/s: 73/s each, in batches of up to 4 rows and 18 ms."""


def spared(signals=None, *, old: int = 6, new: int = 5, planner="model", p95_ms=60.0, opened_s=115.0) -> str:
    settings = make_settings(batch=4, replicas=old)
    seen = make_observation(SERVICE | CALM | (signals or {}), settings=settings, service=make_service(p95_ms=p95_ms))
    incident = make_incident("latency").model_copy(update={"opened_at_s": AT_S - opened_s})
    step = Change(lever="replicas", old={"min_replicas": old}, new={"min_replicas": new})
    return get(planner)(SETTINGS).spares(incident, seen, (), step)


def test_borrowed_replicas_are_spared_where_fewer_do():
    """5 replicas take 88/s each of the 222/s that full batches carry."""
    assert spared().startswith("5 replicas are predicted to do: busy 40% at the highest load seen, with P95 at 3")
    assert spared(planner="playbook") == ""


def test_several_borrowed_replicas_are_spared_at_once_where_far_fewer_do():
    """Four take 110/s each of 222/s: room enough for a step of four, and for single ones where there is less."""
    eight = {"replicas": after(2.0, 8.0)}
    assert spared(eight, old=8, new=4).startswith("4 replicas are predicted to do: busy 50%")
    assert spared(eight, old=8, new=7, p95_ms=42.0) and spared(eight | {"qps": after(60.0, 540.0)}, old=8, new=7)


@pytest.mark.parametrize(
    ("change", "why_not"),
    [
        ({"old": 3, "new": 2, "signals": {"replicas": after(2.0, 3.0)}}, "440/s on two replicas: 99 % of full batches"),
        ({"old": 4, "new": 3, "signals": {"replicas": after(2.0, 4.0)}}, "on three: 66 %"),
        ({"old": 8, "new": 4, "signals": {"replicas": after(2.0, 8.0)}, "p95_ms": 42.0},
         "P95 at 0.8 of the objective is too close for a step of four"),
        ({"old": 8, "new": 4, "signals": {"replicas": after(2.0, 8.0), "qps": after(60.0, 540.0)}},
         "four at 61 % are too busy for a step of four"),
        ({"p95_ms": 35.0}, "P95 is at 0.86 of the objective already"),
        ({"signals": {"qps": [60.0] * 37 + [1050.0] * 8 + [440.0] * 16}}, "it was 1050/s a while ago: 95 % of five"),
        ({"signals": {"p95_ms": [30.0] * 60 + [52.0]}}, "the highest P95 seen lately is what counts"),
        ({"signals": {"qps": [60.0] * 37 + list(np.linspace(200.0, 440.0, 24))}}, "the load still grows"),
        ({"signals": {"batch_ms": [(10.0 + 2.0 * r) * (1 + 0.008 * max(0, k - 20)) for k, r in enumerate(ROWS)]}},
         "the service slows down"),
        ({"signals": {"error_rate": after(0.0, 0.2)}}, "requests fail, which P95 does not tell"),
        ({"signals": {"p95_ms": float("nan")}}, "nothing is seen"),
        ({"signals": {"batch_ms": float("nan")}}, "nothing can be predicted"),
    ],
)
def test_nothing_is_spared_where_it_might_be_missed(change, why_not):
    assert spared(**change) == "", why_not


@pytest.mark.parametrize(("itl_ms", "spares"), [(10.0, True), (17.0, False), (float("nan"), False)])
def test_each_promise_of_a_language_model_is_asked_before_a_replica_is_spared(itl_ms, spares):
    """The time per token is close to its limit (18 ms), or unknown, however well the first token does."""
    subject = SUBJECTS["continuous_batching"]
    settings = {**subject.settings, **{name: make_settings(replicas=4)[name] for name in ("replicas", "precision")}}
    service = make_service().model_copy(
        update={"engine": subject.engine, "slo": Slo(ttft_p95_ms=200.0, itl_p95_ms=18.0, for_s=30.0)}
    )
    signals = {**token_signals(60.0, replicas=4.0), "itl_p95_ms": itl_ms}
    seen = make_observation(signals, settings=settings, service=service)
    step = Change(lever="replicas", old={"min_replicas": 4}, new={"min_replicas": 3})
    incident = make_incident("latency").model_copy(update={"opened_at_s": AT_S - 115.0})
    assert bool(get("model")(SETTINGS).spares(incident, seen, (), step)) == spares
