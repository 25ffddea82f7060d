"""Labels: whose word counts, and what is no label at all."""

from __future__ import annotations

from tests.tuning.report.test_review import closed, cured, opened, planned
from tuning.labels import labelled
from tuning.loop import records
from tuning.orders import Order, order
from tuning.past import Past


def said(number: int, label: str, at_s: float = 900.0, who: str = "ann") -> Order:
    return order("label", who, at_s, about=f"i{number}", label=label)


def labels_of(*lines, orders=()):
    return {one.incident_id: (one.label, one.strength) for one in labelled(Past().add(lines), orders)}


def test_a_verdict_and_a_self_closed_incident_are_weak_labels():
    alone = (opened(2, 200.0), records.plan_record(planned(2, 210.0)), closed(2, 300.0))
    assert labels_of(*cured(1, 100.0), *alone) == {"i1": ("real", "weak"), "i2": ("not_real", "weak")}


def test_a_person_turns_both_and_an_order_about_nothing_known_is_left_out():
    orders = (said(1, "not_real"), said(9, "real"))
    assert labels_of(*cured(1, 100.0), orders=orders) == {"i1": ("not_real", "strong")}


def test_the_end_of_a_warning_says_nothing_but_a_person_may():
    warned = (opened(3, 100.0, tier="warn"), closed(3, 300.0))
    assert labels_of(*warned) == {"i3": ("", "")}
    assert labels_of(*warned, orders=(said(3, "not_real"),)) == {"i3": ("not_real", "strong")}


def test_people_may_disagree_and_all_their_words_are_kept():
    (one,) = labelled(Past().add([opened(1, 100.0)]), (said(1, "real", 900.0), said(1, "not_real", 901.0, "bob")))
    assert one.label == "not_real" and one.disputed and [word.who for word in one.said] == ["ann", "bob"]
