"""What is counted before a change is claimed, as tables."""

from __future__ import annotations

import pytest

from tuning.caps import Caps, Claim, MadeChange, Standing, Unproven
from tuning.guards.caps import capped, one_open_change, standing_of
from tuning.model import Record

NOW_S = 1_000_000.0
CAPS = Caps(
    services_at_once=3, changes_per_hour=6, changes_per_hour_total=30, cool_down_s={"batch_size": 600.0}, again_s=90.0
)
CLAIM = Claim("p1", "ranker", ("batch_size",), NOW_S)


def unproven(service: str, plan_id: str, age_s: float = 60.0) -> Unproven:
    return Unproven(plan_id, service, ("batch_size",), NOW_S - age_s)


def made(age_s: float, service: str = "ranker", lever: str = "replicas", plan_id: str = "") -> MadeChange:
    return MadeChange(service, lever, NOW_S - age_s, plan_id)


@pytest.mark.parametrize(
    ("standing", "stop", "until_s"),
    [
        (Standing(), None, None),
        (Standing([unproven("ranker", "p9")]), "one_open_change", NOW_S + 90.0),
        (Standing([unproven("ranker", "p1")]), None, None),
        (Standing([unproven("a", "pa"), unproven("b", "pb")]), None, None),
        (Standing([unproven("a", "pa"), unproven("b", "pb"), unproven("c", "pc")]), "services_at_once", NOW_S + 90.0),
        (Standing([unproven("a", "pa"), unproven("a", "pb"), unproven("a", "pc")]), None, None),
        (Standing(made=[made(500.0, lever="batch_size")]), "cool_down", NOW_S + 100.0),
        (Standing(made=[made(600.0, lever="batch_size")]), None, None),
        (Standing(made=[made(500.0, lever="batch_size", plan_id="p1")]), None, None),
        (Standing(made=[made(500.0)]), None, None),
        (Standing(made=[made(500.0, service="other", lever="batch_size")]), None, None),
        (Standing(made=[made(700.0 + n) for n in range(6)]), "changes_per_hour", NOW_S - 705.0 + 3600.0),
        (Standing(made=[made(700.0 + n) for n in range(5)]), None, None),
        (Standing(made=[made(3600.0) for _ in range(6)]), None, None),
        (Standing(made=[made(10.0, service=f"s{n}") for n in range(30)]), "changes_per_hour", NOW_S - 10.0 + 3600.0),
        (Standing(made=[made(10.0, service=f"s{n}") for n in range(29)]), None, None),
    ],
)
def test_a_claim_against_what_stands(standing: Standing, stop: str | None, until_s: float | None) -> None:
    found = capped(CLAIM, CAPS, standing)
    assert (None if found is None else found.name, None if found is None else found.until_s) == (stop, until_s)
    assert found is None or found.reason.endswith(".")


def test_a_pair_of_levers_is_two_changes() -> None:
    pair = Claim("p1", "ranker", ("batch_size", "replicas"), NOW_S)
    five = Standing(made=[made(700.0 + n, lever="precision") for n in range(5)])
    found = capped(pair, CAPS, five)
    assert found is not None
    assert found.name == "changes_per_hour"
    assert capped(CLAIM, CAPS, five) is None


def test_a_clock_that_stepped_back_reopens_nothing() -> None:
    ahead = [made(-3400.0 - n, lever="batch_size") for n in range(6)]
    cooling = capped(CLAIM, CAPS, Standing(made=ahead[:1]))
    assert cooling is not None
    assert (cooling.name, cooling.until_s) == ("cool_down", NOW_S + 600.0), "as young as can be"
    other = Claim("p1", "ranker", ("replicas",), NOW_S)
    full = capped(other, CAPS, Standing(made=ahead))
    assert full is not None
    assert (full.name, full.until_s) == ("changes_per_hour", NOW_S + 3600.0)


def receipt(
    record_id: str, at_s: float, *, plan_id: str, changed: bool = True, kind: str = "adjust_batch_size"
) -> Record:
    return Record(id=record_id, kind=kind, service="ranker", parent_id=plan_id, at_s=at_s, body={"changed": changed})


def test_what_counts_is_what_was_made_or_may_have_been() -> None:
    claimed = [
        Unproven("open", "a", ("batch_size", "replicas"), 50.0),
        Unproven("kept back", "b", ("batch_size",), 60.0),
    ]
    receipts = [
        receipt("r1", 10.0, plan_id="canary first"),
        receipt("r2", 20.0, plan_id="canary first"),
        receipt("r3", 30.0, plan_id="no-op", changed=False),
        receipt("r4", 40.0, plan_id="undo", kind="roll_back"),
        receipt("r5", 55.0, plan_id="open"),
        receipt("r6", 65.0, plan_id="kept back", changed=False),
    ]
    found = standing_of(claimed, receipts)
    assert found.unproven == tuple(claimed)
    assert {(m.plan_id, m.lever, m.at_s) for m in found.made} == {
        ("canary first", "batch_size", 20.0),
        ("open", "batch_size", 55.0),
        ("open", "replicas", 50.0),
    }


def test_where_nobody_says_how_long_an_open_change_is_waited_for_ten_minutes() -> None:
    found = one_open_change(CLAIM, Standing([unproven("ranker", "p9")]))
    assert found is not None
    assert found.until_s == NOW_S + 600.0
