"""Figures with intervals: ratios over incidents, resampled incident by incident."""

from __future__ import annotations

import pytest

from benchmarks.control import headline
from benchmarks.control.score import Result, kind_of


def row(scenario: str, policy: str = "slotune", **change) -> Result:
    values: dict[str, object] = dict(  # noqa: C408 (keyword names read better here)
        scenario=scenario, seed=1, policy=policy, kind="curable", first=True, second=True, held_right=False, actions=1,
        wrong=0, violation_min=2.0, replica_hours=1.0, resolve_s=60.0, cause="load_surge", cause_right=True,
        observed=[], measured=[], texts=[], causes=["load_surge"], price=0,
    )  # fmt: skip
    return Result(**(values | change))


def test_a_share_is_of_the_incidents_of_its_kind():
    rows = [row("a"), row("b", first=False), row("c", kind="incurable", first=False, held_right=True)]
    found = headline.headline(rows)
    assert found["first_change"]["value"] == 0.5 and found["first_change"]["of"] == 2
    assert found["hold_right"]["value"] == 1.0 and found["hold_right"]["of"] == 1
    assert found["left_alone_where_needless"]["value"] is None


def test_minutes_are_compared_on_the_same_incidents():
    rows = [row("a"), row("a", "hpa", violation_min=8.0), row("b"), row("b", "hpa", violation_min=2.0)]
    found = headline.headline(rows)
    assert found["violation_min_of_hpa"]["value"] == 0.4
    assert "violation_min_of_oracle" not in found


def test_the_interval_is_wide_on_few_incidents_and_narrow_on_many():
    few = headline.headline([row(str(k), first=k % 2 == 0) for k in range(10)])["first_change"]
    many = headline.headline([row(str(k), first=k % 2 == 0) for k in range(400)])["first_change"]
    assert few["low"] < 0.3 and few["high"] > 0.7
    assert many["low"] == pytest.approx(0.45, abs=0.02) and many["high"] == pytest.approx(0.55, abs=0.02)


def test_none_of_a_few_is_no_certainty():
    """0 of 20: the exact bound is 1 - 0.025^(1/20)."""
    rows = [row(str(k), wrong=0, actions=1) for k in range(20)]
    found = headline.headline(rows)
    assert found["wrong"] == {"value": 0.0, "low": 0.0, "high": 0.1684, "of": 20}
    assert found["first_change"] == {"value": 1.0, "low": 0.8316, "high": 1.0, "of": 20}


def test_paying_where_a_free_option_cures_is_counted():
    rows = [
        row("a", price=2),
        row("a", "oracle"),
        row("b"),
        row("b", "oracle"),
        row("c", price=2),
        row("c", "oracle", price=1),
    ]
    assert headline.headline(rows)["paid_where_free_cures"] == {"value": 0.5, "low": 0.0, "high": 1.0, "of": 2}


def test_an_interval_covers_what_was_seen_in_it():
    seen = [(100.0, 80.0, 120.0, 110.0), (100.0, 80.0, 120.0, 130.0), (100.0, 80.0, 120.0, float("nan"))]
    found = headline.headline([row("a", observed=seen)])
    assert found["interval_covers"]["value"] == 0.5 and found["interval_covers"]["of"] == 2


@pytest.mark.parametrize(
    ("kind", "curable", "eased", "expected"),
    [
        ("broken", True, False, "curable"),
        ("broken", False, False, "incurable"),
        ("broken", False, True, "borderline"),
        ("blind", True, False, "incurable"),
        ("blind", False, True, "incurable"),
        ("needless", True, False, "needless"),
        ("borderline", True, False, "borderline"),
    ],
)
def test_the_kind_of_an_incident(kind, curable, eased, expected):
    assert kind_of(kind, curable, eased) == expected


def test_replica_hours_are_compared_beyond_what_everybody_has():
    """The service's own replicas run for 4 hours whatever is done: 5 against 6 hours are half of what HPA adds."""
    rows = [row("a", replica_hours=5.0), row("a", "hpa", replica_hours=6.0), row("a", "nothing", replica_hours=4.0)]
    found = headline.headline(rows)
    assert found["replica_hours_added_of_hpa"]["value"] == 0.5
    assert found["replica_hours_of_hpa"]["value"] == pytest.approx(0.8333)
