"""Which option wins, on hand-made predictions: one row of the tables is one argument between two options."""

from __future__ import annotations

import dataclasses
import math

import pytest

from tuning.model import Change, Interval
from tuning.planning import ranking
from tuning.planning import thresholds as th
from tuning.planning.effects import Posterior
from tuning.planning.ports import Candidate, Predicted
from tuning.planning.ranking import Ranked
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings()
LIMITS = {"p95_ms": 100.0}
TRUSTED = Posterior(*th.WORKED_PRIOR, 0, 0)


def option(
    levers="batch_size",
    p95=60.0,
    *,
    high=None,
    meets=0.95,
    cost=0.0,
    delay=5.0,
    drain=10.0,
    risk=0.02,
    size=(2.0, 8.0),
    room=0.8,
    carries=0.9,
    load=0.5,
    posterior=TRUSTED,
    barred="",
    **flags,
) -> Ranked:
    changes = tuple(Change(lever=lever, old={"knob": 1}, new={"knob": 2}) for lever in levers.split("+"))
    shown = Interval(value=p95, low=0.8 * p95, high=high if high is not None else 1.2 * p95)
    predicted = Predicted({"p95_ms": shown}, meets, carries, room, load, drain, 0.5, **flags)
    candidate = Candidate({"knob": 2}, changes, cost, delay, risk, size)
    return Ranked(candidate, predicted, posterior, 20.0, barred)


@pytest.mark.parametrize(
    ("item", "may"),
    [
        (option(p95=90.0), True),
        (option(p95=90.1), False),
        (option(meets=0.9), True),
        (option(meets=0.899), False),
        (option(drain=math.inf), False),
        (option(barred="tried"), False),
        (option(meets=1.0, posterior=Posterior(2.0, 1.0, 0, 1)), False),
        (option(risk=0.099, high=150.0), True),
        (option(risk=0.1, high=150.0), False),
        (option(risk=0.1, high=100.0), True),
        (option(risk=0.1, high=100.1), False),
        (option(unknown=True, high=100.0), True),
        (option(unknown=True, high=100.1), False),
        (option(unproven=True, high=100.1), True),
    ],
)
def test_an_option_is_eligible_if_it_does_surely_with_headroom(item, may):
    assert item.eligible(SETTINGS, LIMITS) is may


def test_the_time_to_effect_is_delay_drain_and_rate_window():
    assert option(delay=5.0, drain=10.0).time_to_effect_s == 35.0


def test_success_is_the_models_word_times_the_ledgers():
    half = Posterior(3.0, 5.0, 0, 4)
    assert option(meets=0.8, posterior=half).success == pytest.approx(0.8 * 0.375 / 0.75)


# the better one first
ARGUMENTS = {
    "a gain that nobody measured is free all the same": (option(unproven=True, risk=0.15, high=99.0), option(cost=1.2)),
    "what was measured goes before what never was": (option(delay=60.0), option(unproven=True, risk=0.15, high=99.0)),
    "what was measured goes before what was never seen": (option(delay=60.0), option(unknown=True, high=99.0)),
    "the surer of two that nobody measured": (
        option("precision", meets=0.99, delay=60.0, unproven=True, risk=0.15, high=99.0),
        option(meets=0.92, unknown=True, high=99.0),
    ),
    "the cheaper": (option("batch_size", cost=1.2), option("replicas", cost=2.4)),
    "one change before two": (option("batch_size"), option("batch_size+precision")),
    "the surer, from a step of 5 % on": (option(meets=0.99, delay=60.0), option(meets=0.94)),
    "the faster, from a step of half a minute on": (option(delay=5.0), option(delay=40.0)),
    "the easier to undo": (option(risk=0.02), option(risk=0.03)),
    "fewer replicas": (option(size=(2.0, 32.0)), option(size=(3.0, 8.0))),
    "the surer, in full": (option(meets=0.955), option(meets=0.945, room=0.89)),
    "two changes with room for what may come, before one without": (
        option("batch_size+precision", room=0.9, delay=60.0),
        option("batch_size", room=0.899, meets=1.0),
    ),
    "one change of two that have room": (option("batch_size", room=0.9), option("batch_size+precision", room=1.0)),
    "one change of two that have none": (option("batch_size", room=0.1), option("batch_size+precision", room=0.89)),
    "what was measured, before what has room": (
        option(room=0.1),
        option("precision", unproven=True, risk=0.15, high=99.0, room=1.0),
    ),
    "the cheaper, whatever the room": (option("batch_size", room=0.1), option("replicas", cost=1.2, room=1.0)),
    "more room": (option(room=0.8), option(room=0.7, size=(2.0, 4.0))),
    "the lower upper end": (option(high=70.0), option(high=72.0, size=(2.0, 4.0))),
    "the smaller batch": (option(size=(2.0, 4.0)), option(size=(2.0, 8.0))),
}


@pytest.mark.parametrize("why", ARGUMENTS)
def test_of_two_that_do_the_better_wins(why):
    better, worse = ARGUMENTS[why]
    assert ranking.best([worse, better], SETTINGS, LIMITS) is better
    assert ranking.best([better, worse], SETTINGS, LIMITS) is better


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (option(room=0.9, delay=13.0), option(room=0.8, delay=3.0)),  # 43 s and 33 s: no half minute apart
        (option(room=0.9, meets=0.956), option(room=0.8, meets=0.958)),  # less than a hundredth
    ],
)
def test_differences_that_mean_nothing_do_not_decide(earlier, later):
    assert ranking.best([later, earlier], SETTINGS, LIMITS) is earlier


FREE = {"p95": 80.0, "meets": 0.7, "size": (2.0, 16.0)}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({}, True),
        ({"meets": 0.699}, False),
        ({"p95": 90.1}, False),
        ({"p95": 90.0}, True),
        ({"cost": 0.0001}, False),
        ({"cost": 0.00005}, True),
        ({"risk": 0.1}, False),
        ({"barred": "tried"}, False),
        ({"drain": math.inf}, False),
        ({"unknown": True}, False),
        ({"meets": 0.9, "posterior": Posterior(2.0, 1.0, 0, 1)}, True),
        ({"meets": 0.7, "posterior": Posterior(2.0, 1.0, 0, 1)}, False),
    ],
)
def test_a_free_step_that_probably_suffices_goes_before_one_that_costs(change, first):
    free, paid = option(**(FREE | change)), option("replicas", cost=2.4)
    assert (ranking.best([paid, free], SETTINGS, LIMITS) is free) is first


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({}, True),
        ({"unknown": True}, False),
        ({"meets": 0.699}, False),
        ({"p95": 90.1}, False),
        ({"cost": 0.0001}, False),
        ({"cost": 0.00005}, True),
        ({"risk": 0.1}, False),
        ({"barred": "tried"}, False),
        ({"drain": math.inf}, False),
        ({"meets": 0.7, "posterior": Posterior(2.0, 1.0, 0, 1)}, False),
    ],
)
def test_a_free_step_that_probably_suffices_goes_before_one_that_costs_and_is_not_sure_either(change, first):
    free, paid = option(**(FREE | change)), option("replicas", cost=2.4, meets=0.899)
    assert ranking.best([paid, free], SETTINGS, LIMITS) is (free if first else paid)
    assert ranking.best([free, paid], SETTINGS, LIMITS) is (free if first else paid)


def test_of_free_steps_that_probably_suffice_the_likeliest_goes_first():
    less, more = option(**FREE), option(**(FREE | {"meets": 0.8}))
    assert ranking.best([less, more, option("replicas", cost=2.4, meets=0.88)], SETTINGS, LIMITS) is more


def test_a_probable_free_step_does_not_pass_one_that_is_free_and_sure():
    probable, sure = option(**FREE), option(meets=0.95, size=(2.0, 32.0))
    assert ranking.best([probable, sure], SETTINGS, LIMITS) is sure


INT8_FREE = {"levers": "precision", "p95": 80.0, "high": 900.0, "meets": 0.9, "risk": 0.15, "unproven": True}


@pytest.mark.parametrize(
    ("change", "winner", "first"),
    [
        ({}, {}, True),
        ({"levers": "batch_size+precision", "risk": 0.17}, {}, True),
        ({"meets": 0.899}, {}, False),
        ({"p95": 90.1}, {}, False),
        ({"drain": math.inf}, {}, False),
        ({"barred": "tried"}, {}, False),
        ({"cost": 0.1}, {}, False),
        ({"risk": 0.18}, {}, False),
        ({"risk": 0.02, "unknown": True}, {}, False),  # a risk of another kind: nobody has seen such batches
        ({}, {"levers": "replicas", "risk": 0.02}, False),  # whoever pays for replicas alone does not take that risk
    ],
)
def test_a_risk_that_is_taken_anyway_is_taken_without_its_price(change, winner, first):
    free = option(**(INT8_FREE | change))
    paid = option(**({"levers": "precision+replicas", "cost": 2.4, "high": 95.0, "meets": 1.0, "risk": 0.17} | winner))
    assert (ranking.best([paid, free], SETTINGS, LIMITS) is free) is first


def test_of_several_free_steps_the_likeliest_goes_first():
    one, other, paid = option(**FREE), option(**(FREE | {"meets": 0.85})), option("replicas", cost=2.4)
    assert ranking.best([paid, one, other], SETTINGS, LIMITS) is other


@pytest.mark.parametrize(
    ("items", "winner"),
    [
        ([option(p95=95.0, meets=0.35)], 0),
        ([option(p95=95.0, meets=0.349)], None),
        ([option(p95=95.0, meets=0.8, barred="tried")], None),
        ([option(p95=95.0, meets=0.8, drain=math.inf)], None),
        ([], None),
        ([option(p95=95.0, meets=0.5), option(p95=95.0, meets=0.6, cost=2.0)], 1),
        ([option(p95=95.0, meets=0.58, cost=2.0), option(p95=95.0, meets=0.59, size=(9.0, 9.0))], 1),
        ([option(p95=95.0, meets=0.6, room=0.5), option(p95=95.0, meets=0.6, room=0.6)], 1),
        ([option(p95=95.0, meets=0.6, size=(2.0, 9.0)), option(p95=95.0, meets=0.6, size=(2.0, 8.0))], 1),
        # A pair that costs more, or is harder to undo, is worth its second change from 15 % more on.
        ([option(p95=95.0, meets=0.6), option("batch_size+replicas", 95.0, meets=0.75, cost=1.0)], 0),
        ([option(p95=95.0, meets=0.6), option("batch_size+replicas", 95.0, meets=0.76, cost=1.0)], 1),
        ([option(p95=95.0, meets=0.6), option("precision+batch_size", 95.0, meets=0.75, risk=0.2)], 0),
        # At the price of the single step it is not.
        ([option("replicas", p95=95.0, meets=0.79, cost=7.2), option("batch_size+replicas", 95.0, meets=0.88, cost=7.2)], 1),
        ([option("replicas", p95=95.0, meets=0.79, cost=7.2), option("batch_size+replicas", 95.0, meets=0.8, cost=7.2)], 0),
        ([option("batch_size+replicas", 95.0, meets=0.5)], 0),
    ],
)
def test_where_nothing_is_sure_the_likeliest_is_tried_if_it_has_a_chance(items, winner):
    found = ranking.best(items, SETTINGS, LIMITS)
    assert found is (None if winner is None else items[winner])


@pytest.mark.parametrize(
    ("items", "winner"),
    [
        ([option("replicas", meets=1.0, drain=600.0, cost=2.0)], 0),
        ([option("replicas", meets=1.0, drain=599.0, cost=2.0), option(meets=1.0, drain=600.0)], 0),
        ([option("replicas", meets=1.0, drain=700.0, cost=2.0), option(meets=1.0, drain=1400.0)], 0),
        # Within five minutes of each other the price decides.
        ([option("replicas", meets=1.0, drain=700.0, cost=2.0), option(meets=1.0, drain=720.0)], 1),
        ([option("replicas", meets=0.5, drain=700.0, cost=2.0)], 0),
        ([option("replicas", meets=0.499, drain=700.0, cost=2.0)], None),
        ([option("replicas", meets=1.0, drain=700.0, barred="tried")], None),
        ([option("replicas", meets=1.0, drain=math.inf)], None),
    ],
)
def test_what_drains_late_is_taken_only_where_nothing_drains_soon_and_the_soonest_of_it(items, winner):
    found = ranking.best(items, SETTINGS, LIMITS)
    assert found is (None if winner is None else items[winner])


@pytest.mark.parametrize(
    ("change", "tried"),
    [
        ({}, True),
        ({"unknown": False}, False),
        ({"cost": 0.1}, False),
        ({"cost": -0.1}, True),
        ({"barred": "tried"}, False),
        ({"risk": 0.1}, False),
        ({"carries": 0.049}, False),
        ({"meets": 0.049}, False),
        ({"carries": 0.05, "meets": 0.05}, True),
        ({"levers": "batch_size+precision"}, False),
    ],
)
def test_an_unseen_free_step_is_explored_only_while_holding_loses(change, tried):
    item = option(**({"p95": 300.0, "meets": 0.2, "carries": 0.3, "unknown": True} | change))
    assert ranking.explore([item], True) is (item if tried else None)
    assert ranking.explore([item], False) is None


@pytest.mark.parametrize(
    ("items", "winner"),
    [
        ([option("replicas", 300.0, meets=0.35, drain=math.inf, cost=9.6)], 0),
        ([option("replicas", 300.0, meets=0.349, drain=math.inf, cost=9.6)], None),
        ([option("replicas", 300.0, meets=0.5, drain=math.inf, barred="tried")], None),
        ([option(meets=0.4, drain=math.inf), option("replicas", meets=0.5, drain=math.inf, cost=9.6)], 1),
        ([option(meets=0.5, drain=math.inf), option("replicas", meets=0.5, drain=math.inf, cost=9.6)], 0),
        ([], None),
    ],
)
def test_what_may_carry_the_load_is_tried_at_last_where_holding_loses_for_sure(items, winner):
    assert ranking.last_resort(items, True) is (None if winner is None else items[winner])
    assert ranking.last_resort(items, False) is None


def test_of_unseen_steps_the_one_with_most_room_is_explored():
    common = {"p95": 300.0, "meets": 0.2, "unknown": True}
    tight, wide = option(room=0.3, carries=0.9, **common), option(room=0.4, carries=0.3, **common)
    assert ranking.explore([tight, wide], True) is wide
    more = dataclasses.replace(wide, predicted=dataclasses.replace(wide.predicted, carries=0.5))
    assert ranking.explore([wide, more], True) is more


@pytest.mark.parametrize(
    ("posterior", "tried", "reason"),
    [
        (TRUSTED, frozenset(), ""),
        (TRUSTED, frozenset({"replicas"}), ""),
        (TRUSTED, frozenset({"batch_size"}), "batch_size was tried for this incident and did not help"),
        (Posterior(2.0, 3.0, 1, 3), frozenset(), ""),
        (Posterior(1.99, 3.0, 1, 3), frozenset(), "demoted: for this cause it worked 1 of 3 times here"),
    ],
)
def test_what_failed_here_is_barred(posterior, tried, reason):
    assert ranking.barred(option().candidate, posterior, tried) == reason


@pytest.mark.parametrize(
    ("levers", "tried", "harmful", "reason"),
    [
        ("batch_size+replicas", {"batch_size"}, set(), ""),
        (
            "batch_size+replicas",
            {"batch_size"},
            {"batch_size"},
            "batch_size was tried for this incident and made it worse",
        ),
        ("batch_size", {"batch_size"}, {"batch_size"}, "batch_size was tried for this incident and made it worse"),
        ("replicas", {"batch_size"}, {"batch_size"}, ""),
    ],
)
def test_what_was_not_enough_alone_may_be_half_of_what_is_but_nothing_that_made_it_worse(
    levers, tried, harmful, reason
):
    found = ranking.barred(option(levers).candidate, TRUSTED, frozenset(tried), frozenset(harmful))
    assert found == reason


def test_both_halves_of_a_pair_that_failed_are_named():
    pair = option("batch_size+replicas").candidate
    both = frozenset({"batch_size", "replicas"})
    assert ranking.barred(pair, TRUSTED, both).startswith("batch_size and replicas was tried")


def test_with_two_objectives_the_worse_one_decides():
    shown = {"a": Interval(value=50, low=40, high=90), "b": Interval(value=18, low=10, high=30)}
    predicted = dataclasses.replace(option().predicted, shown=shown)
    limits = {"a": 100.0, "b": 20.0}
    assert predicted.worst(limits) == "b"
    assert predicted.ratio(limits) == pytest.approx(0.9)
    assert predicted.high_ratio(limits) == pytest.approx(1.5)


def lossy(loss: float, **kwargs: object) -> Ranked:
    item = option("variant", **kwargs)
    return dataclasses.replace(item, candidate=dataclasses.replace(item.candidate, loss=loss))


@pytest.mark.parametrize(
    ("ranked", "winner"),
    [
        ([lossy(0.02, p95=20.0), lossy(0.01, p95=80.0)], 1),
        ([lossy(0.02, p95=20.0), lossy(0.01, p95=95.0)], 0),
        ([lossy(0.02, p95=20.0), lossy(0.01, barred="tried")], 0),
        ([lossy(0.01, meets=0.49), lossy(0.02, meets=0.5)], 1),
        ([lossy(0.01, meets=0.6), lossy(0.02, meets=0.8)], 1),
        ([lossy(0.01, meets=0.49), lossy(0.02, drain=math.inf)], None),
        ([], None),
    ],
    ids=["the least loss that does", "headroom", "barred", "even odds", "likelier", "nothing would buy it", "none"],
)
def test_of_what_costs_quality_the_least_that_does_wins(ranked, winner):
    found = ranking.least_loss(ranked, SETTINGS, LIMITS)
    assert found is (None if winner is None else ranked[winner])


@pytest.mark.parametrize(
    ("item", "does"),
    [
        (None, False),
        (option(p95=90.0), True),
        (option(p95=90.1), False),
        (option(p95=60.0, meets=0.4), True),
        (option(p95=60.0, drain=th.QUEUE_TIME_MAX_S), False),
    ],
)
def test_what_may_do_without_a_loss_is_tried_before_one(item, does):
    assert ranking.does(item, SETTINGS, LIMITS) is does
