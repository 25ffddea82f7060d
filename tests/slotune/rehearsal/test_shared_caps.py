"""Services that were rehearsed apart, and the caps over all of them."""

from __future__ import annotations

from slotune.rehearsal.result import Made
from slotune.rehearsal.shared_caps import crowded, merged
from tuning.guards.settings import SafetySettings


def made(at_s: float, until_s: float, levers: int = 1, *, proves: bool = True) -> Made:
    return Made(at_s, until_s, levers, proves)


def names(*several: str) -> list[frozenset[str]]:
    return [frozenset(one) for one in several]


TWO = SafetySettings(services_at_once=2)


def test_no_more_at_once_than_is_allowed_is_no_crowd():
    assert crowded({"a": [made(0, 100)], "b": [made(50, 150)], "c": [made(100, 200)]}, TWO) == []


def test_the_change_that_would_have_waited_and_those_it_would_have_waited_for_meet():
    apart = {"a": [made(0, 100)], "b": [made(50, 150)], "c": [made(99, 200)], "d": [made(500, 600)]}
    assert crowded(apart, TWO) == names("abc")


def test_a_way_back_is_never_held_up_and_holds_nobody_up_at_once():
    back = {
        "a": [made(0, 100)],
        "b": [made(50, 50, proves=False)],
        "c": [made(60, 60, proves=False)],
        "d": [made(70, 200)],
    }
    assert crowded(back, TWO) == []


def test_the_changes_of_an_hour_are_counted_over_all_services_and_levers():
    few = SafetySettings(services_at_once=9, changes_per_hour_total=3)
    apart = {"a": [made(0, 1, levers=2)], "b": [made(1000, 1001)], "c": [made(3500, 3501)], "d": [made(9000, 9001)]}
    assert crowded(apart, few) == names("abc")
    assert crowded({"a": [made(k * 10.0, k * 10.0 + 1) for k in range(9)]}, few) == [], "its own were asked for already"


def test_those_that_meet_are_put_together_over_and_over():
    companies = names("a", "b", "c", "d", "e")
    assert merged(companies, names("ab", "bc")) == names("abc", "d", "e")
    assert merged(companies, []) == companies
