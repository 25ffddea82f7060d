"""The sentences, word for word: what is done and why, and why every other option was not."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tests.tuning.planning.test_ranking import LIMITS, SETTINGS, option
from tuning.model import Diagnosis
from tuning.planning import explain
from tuning.planning.effects import Posterior

SURGE = Diagnosis(cause="load_surge", evidence=("twice the load",), queue_share=0.62)
UNSPLIT = Diagnosis(cause="load_surge", evidence=("twice the load",))


@pytest.mark.parametrize(
    ("item", "diagnosis", "text"),
    [
        (
            option(cost=0.0),
            SURGE,
            "more traffic than usual, and 62% of the latency is waiting: knob 1 -> 2 brings P95 to 60 ms (48 ms to "
            "72 ms; SLO 100 ms) at no cost within about 35 s: because",
        ),
        (
            option(cost=2.4),
            UNSPLIT,
            "more traffic than usual: knob 1 -> 2 brings P95 to 60 ms (48 ms to 72 ms; SLO 100 ms) for 2.40/h "
            "within about 35 s: because",
        ),
        (
            option("batch_size+replicas", cost=-1.2),
            UNSPLIT,
            "more traffic than usual: knob 1 -> 2; knob 1 -> 2 brings P95 to 60 ms (48 ms to 72 ms; SLO 100 ms), "
            "saving 1.20/h within about 35 s: because",
        ),
    ],
)
def test_the_choice(item, diagnosis, text):
    assert explain.chosen(item, diagnosis, LIMITS, ": because") == text


TRUSTED_LESS = Posterior(2.0, 1.0, 1, 3)
WINNER = option(meets=0.95)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"barred": "tried before"}, "tried before"),
        ({"drain": 900.0, "load": 0.9}, "the queue that stands would take about 15 minutes to drain"),
        ({"drain": math.inf, "load": 1.2}, "the load would be 120% of its capacity, so the queue would not drain"),
        (
            {"p95": 95.0},
            "its predicted P95 of 95 ms is over 90 ms (the SLO of 100 ms with headroom)",
        ),
        ({"meets": 0.8}, "it meets the SLO with a probability of 80% only (90% is asked for)"),
        (
            {"posterior": TRUSTED_LESS},
            "it meets the SLO with a probability of 95% only, and worked 1 of 3 times here",
        ),
        ({"risk": 0.15, "high": 130.0}, "its gain is not measured yet, so P95 may end at 130 ms"),
        ({"unknown": True, "high": 130.0}, "such batches were never seen here, so P95 may end at 130 ms"),
        (
            {"unproven": True},
            "it would do, but its gain was never measured here, and the chosen option rests on measurements",
        ),
        ({"cost": 1.2}, "it would do as well, but costs 1.20/h more"),
        ({"levers": "batch_size+replicas"}, "it would do as well, but one change is enough"),
        ({"meets": 0.94}, "it meets the SLO with 94.0%, the chosen option with 95.0%"),
        ({"delay": 20.1}, "it would do as well, but takes 15 s longer to show"),
        ({"risk": 0.03}, "it would do as well, but is harder to undo"),
        (
            {"load": 0.51},
            "it would do as well today, but leaves less room: 51% of its capacity is used, 50% with the chosen option",
        ),
        ({"p95": 62.0}, "its predicted P95 is 62 ms, the chosen option's 60 ms"),
        (
            {"p95": 61.0},
            "it gains nothing over the chosen option: P95 of 61 ms at the same cost, for a larger step",
        ),
        (
            {"delay": 20.0, "meets": 0.945, "load": 0.504, "cost": 0.00005},
            "it gains nothing over the chosen option: P95 of 60 ms at the same cost, for a larger step",
        ),
    ],
)
def test_why_an_option_was_passed_over(change, text):
    assert explain.passed_over(option(**change), WINNER, SETTINGS, LIMITS) == text


def test_the_first_reason_that_holds_is_told():
    item = option(barred="tried before", drain=math.inf, p95=95.0, meets=0.1)
    assert explain.passed_over(item, WINNER, SETTINGS, LIMITS) == "tried before"


def test_without_a_winner_there_is_nothing_to_compare_with():
    assert explain.passed_over(option(), None, SETTINGS, LIMITS) == "not chosen"


@pytest.mark.parametrize(
    ("levers", "rule", "text"),
    [
        (("replicas",), (), ""),
        (("replicas",), ("replicas",), ""),
        (
            ("replicas",),
            ("batch_size",),
            "The rule of thumb says latency high, so a larger batch; the measured batch times say otherwise: because.",
        ),
        (
            ("batch_size",),
            ("replicas",),
            "The rule of thumb says throughput low, so more replicas; the measured batch times say otherwise: because.",
        ),
        (
            ("batch_size",),
            ("precision",),
            "The rule of thumb says so INT8; the measured batch times say otherwise: because.",
        ),
        (
            ("batch_size",),
            ("cache",),
            "The rule of thumb says cache; the measured batch times say otherwise: because.",
        ),
    ],
)
def test_where_the_rule_of_thumb_differs(levers, rule, text):
    assert explain.disagreement(levers, rule, ": because") == text


def test_an_exploration_says_what_is_not_known():
    assert explain.exploring(option(carries=0.3), SURGE, LIMITS, "nobody has seen it") == (
        "more traffic than usual, and 62% of the latency is waiting: knob 1 -> 2 is tried: nobody has seen it, costs "
        "nothing and can be undone; it carries the load with 30%, and holding would not meet 100 ms"
    )


def test_what_is_tried_although_it_hardly_carries_the_load_says_so():
    item = option("replicas", meets=0.469, load=1.11, drain=math.inf)
    assert explain.hardly(item) == (
        "; not sure (47%: by what is known the load would be 111% of its capacity), but nothing within bounds is "
        "likelier, and left alone the queue grows"
    )
    assert "within about" not in explain.chosen(item, SURGE, LIMITS, "")


def test_a_queue_that_drains():
    assert explain.drains(option(drain=41.6).predicted) == (
        "hold: the queue drains by itself in about 42 s at the present load"
    )


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("healthy", "hold: it recovered by itself: P95 is fine; no change is needed"),
        ("errors", "hold: P95 is fine: no lever cures that"),
    ],
)
def test_a_cause_that_no_lever_cures(cause, text):
    assert explain.uncured(Diagnosis(cause=cause, evidence=("P95 is fine",), curable=False)) == text


def test_who_asks_by_hand_about_a_sound_service_is_told_no_recovery():
    healthy = Diagnosis(cause="healthy", evidence=("P95 is fine",), curable=False)
    assert explain.uncured(healthy, "by_hand") == "hold: what is promised is kept: P95 is fine; no change is needed"


def lost(item, meets: float = 0.01):
    """The same option with so little hope."""
    return dataclasses.replace(item, predicted=dataclasses.replace(item.predicted, meets=meets))


FAR, NEAR = lost(option(p95=400.0, load=1.1)), lost(option("batch_size+replicas", 300.0, load=0.97))
ROOMY = lost(option("replicas", 300.0, load=0.71))


@pytest.mark.parametrize(
    ("ranked", "text"),
    [
        ([], "hold: more traffic than usual, and no lever can be moved"),
        (
            [FAR, NEAR],
            "hold: more traffic than usual, and nothing within bounds meets 100 ms: the best option (knob 1 -> 2 and "
            "knob 1 -> 2) would bring P95 to 300 ms at 97% load; raise a bound or shed load",
        ),
        (
            [FAR, dataclasses.replace(NEAR, barred="it was tried")],
            "hold: more traffic than usual; it was tried, and nothing else within bounds meets 100 ms",
        ),
        (
            [FAR, ROOMY],
            "hold: more traffic than usual, and nothing within bounds meets 100 ms: the best option (knob 1 -> 2) would "
            "bring P95 to 300 ms at 71% load, so that more of it would not help either: what a request takes by itself "
            "has to come down",
        ),
        (
            [FAR, lost(ROOMY, 0.2)],
            "hold: more traffic than usual, and nothing within bounds is likely enough to meet 100 ms by what is known "
            "now: the likeliest (knob 1 -> 2) would with 20% (P95 240 ms to 360 ms); it is looked at again while this "
            "lasts",
        ),
    ],
)
def test_nothing_does(ranked, text):
    assert explain.nothing(SURGE, ranked, LIMITS) == text


def test_another_objective_has_its_own_name():
    item = option()
    shown = {"mean_ms": item.predicted.shown["p95_ms"]}
    item = dataclasses.replace(item, predicted=dataclasses.replace(item.predicted, shown=shown))
    assert "brings mean latency to 60 ms" in explain.chosen(item, SURGE, {"mean_ms": 100.0}, "")
