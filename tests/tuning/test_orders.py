"""What people say: which pause holds, for what, until when; and that a stop is a stop."""

from __future__ import annotations

import pytest

from detection.model import Lever, Service, Slo
from tuning.guards import SafetySettings, stopped
from tuning.guards.stop import direction
from tuning.model import Change, Record
from tuning.orders import labels, order, order_record, orders_of, paused, pauses, to_hand_back

SERVICE = Service(
    name="ranker", serving="triton", slo=Slo(p95_ms=100), mode="act",
    levers={"batch_size": Lever(name="batch_size", actuator="triton"), "replicas": Lever(name="replicas", actuator="kubernetes")},
)  # fmt: skip
UP = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})


def pause(at_s=100.0, **told):
    return order("pause", "ann", at_s, **{"service": "ranker", "why": "a test", **told})


def resume(at_s=200.0, **told):
    return order("resume", "bob", at_s, **told)


@pytest.mark.parametrize(
    ("said", "at_s", "held"),
    [
        ([pause()], 99.0, 1), ([pause()], 100.0, 1), ([pause()], 1e9, 1),
        ([pause(until_s=150.0)], 149.0, 1), ([pause(until_s=150.0)], 150.0, 0),
        ([pause(), resume(service="ranker")], 200.0, 0), ([pause(), resume(at_s=50.0, service="ranker")], 60.0, 0),
        ([pause(), resume(service="other")], 300.0, 1), ([pause(), resume()], 300.0, 0),
        ([pause(lever="replicas"), resume(service="ranker", lever="batch_size")], 300.0, 1),
        ([pause(lever="replicas"), resume(service="ranker")], 300.0, 0),
        ([pause(), pause(at_s=150.0, until_s=160.0)], 170.0, 0),  # the newest word counts
        ([resume(at_s=50.0), pause()], 300.0, 1),
    ],
)  # fmt: skip
def test_which_pause_is_in_force(said, at_s, held):
    assert len(pauses(said, at_s)) == held


@pytest.mark.parametrize(
    ("told", "moves", "forbidden"),
    [
        ({}, {"batch_size": "up"}, True), ({"service": ""}, {"batch_size": "up"}, True), ({"service": "other"}, {"batch_size": "up"}, False),
        ({"lever": "replicas"}, {"batch_size": "up"}, False), ({"lever": "replicas"}, {"batch_size": "up", "replicas": "up"}, True),
        ({"direction": "up"}, {"batch_size": "down"}, False), ({"direction": "up"}, {"batch_size": "up"}, True),
        ({"direction": "up"}, {"batch_size": "both"}, True), ({}, {}, False),
    ],
)  # fmt: skip
def test_what_a_pause_forbids(told, moves, forbidden):
    assert (paused([pause(**told)], "ranker", moves, 500.0) is not None) is forbidden


@pytest.mark.parametrize(
    ("old", "new", "way"),
    [({"a": 1}, {"a": 2}, "up"), ({"a": 2}, {"a": 1}, "down"), ({"a": 1, "b": 2}, {"a": 2, "b": 1}, "both"),
     ({"a": 1, "b": 2}, {"a": 2, "b": 2}, "up"), ({"v": "1"}, {"v": "2"}, "both"), ({}, {"a": 1}, "both"), ({"a": 1}, {"a": 1}, "both")],
)  # fmt: skip
def test_which_way_a_change_goes(old, new, way):
    assert direction(Change(lever="x", old=old, new=new)) == way


def test_a_pause_stops_and_says_who_and_why():
    stop = stopped(SERVICE, ["batch_size"], SafetySettings(), 200.0, orders=[pause(until_s=900.0)], changes=[UP])
    assert stop.name == "paused" and stop.until_s == 900.0
    assert stop.reason == "ann paused every lever of ranker: a test."
    assert stopped(SERVICE, ["batch_size"], SafetySettings(), 200.0, orders=[pause(direction="down")], changes=[UP]) is None
    assert stopped(SERVICE, ["batch_size"], SafetySettings(), 200.0, orders=[pause(direction="down")]).name == "paused"


def test_a_clock_that_steps_back_turns_no_word_around():
    """The pause was said last, an hour earlier by the clock; then it was ended, and said again."""
    said = [resume(at_s=4000.0), pause(at_s=400.0), resume(at_s=300.0), pause(at_s=200.0)]
    for words, held in ((said[:2], 1), (said[:3], 0), (said, 1)):
        assert len(pauses(orders_of(order_record(o) for o in reversed(words)), 100.0)) == held


def test_orders_survive_the_ledger_and_unknown_fields_do_no_harm():
    given = pause(until_s=900.0)
    record = order_record(given)
    later = record.model_copy(update={"body": {**record.body, "colour": "red"}})
    broken = Record(id="x", kind="order", service="ranker", at_s=1.0, body={"what": "dance"})
    assert orders_of([broken, later]) == [given]


def test_the_newest_word_about_an_incident_and_a_lease_counts():
    said = [order("label", "ann", 1.0, about="i", label="real"), order("label", "bob", 2.0, about="i", label="not_real")]
    assert labels(said) == {"i": "not_real"}
    back = order("hand_back", "ann", 50.0, service="ranker", about="p")
    assert to_hand_back([back], "p") == back
    assert to_hand_back([back], "q") is None
