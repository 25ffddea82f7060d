"""A circuit step by step: when it is probed, when a probe ends it, and that every state has a way back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tuning.policies import breaker

WELL, BAD = np.array([0.0, 0.01, 0.0, 0.02]), np.array([0.0, 0.6, 0.7, 0.8])
GAPS, FEW = np.array([np.nan, np.nan]), np.array([0.9, np.nan, 0.9])


@pytest.mark.parametrize(
    ("state", "after_s", "values", "expected"),
    [
        ("open", 59.0, [], "resting"),
        ("open", 60.0, [], "due"),
        ("half_open", 50.0, [(WELL, 0.2)], "looking"),
        ("half_open", 70.0, [(WELL, 0.2)], "well"),
        ("half_open", 50.0, [(BAD, 0.2)], "failing"),
        ("half_open", 50.0, [(FEW, 0.2)], "looking"),
        ("half_open", 70.0, [(FEW, 0.2)], "silent"),
        ("half_open", 70.0, [(GAPS, 0.2)], "silent"),
        ("half_open", 70.0, [], "silent"),
        ("half_open", 70.0, [(WELL, 0.2), (GAPS, 400.0)], "silent"),
        ("half_open", 70.0, [(WELL, 0.2), (1000 * BAD, 400.0)], "failing"),
        ("half_open", 70.0, [(np.array([0.3, 0.3, 0.3, 0.1]), 0.2)], "failing"),
    ],
)
def test_what_is_seen_of_a_circuit(state, after_s, values, expected):
    found = breaker.seen(state, 1000.0, 1000.0 + after_s, rests_s=60.0, probe_s=30.0, settle_s=30.0, values=values)
    assert found == expected


def test_each_probe_that_failed_doubles_the_rest_up_to_the_longest():
    assert [breaker.rest_s(60.0, 600.0, failed) for failed in range(6)] == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    assert breaker.rest_s(60.0, 600.0, 5000) == 600.0


def test_every_state_has_a_way_back_to_closed_and_only_a_probe_that_went_well_closes():
    ways = {(state, seen): step for (state, seen), step in breaker.NEXT.items()}
    assert len(ways) == len(breaker.STATES) * 6
    assert {seen for (state, seen), step in ways.items() if step == "close"} == {"well"}
    assert {state for (state, _), step in ways.items() if step == "close"} == {"half_open"}
    assert ways["open", "due"] == "probe"
    assert all(ways["closed", seen] == "end" for seen in ("resting", "due", "well"))
    assert not any(step == "close" for (state, _), step in ways.items() if state == "open"), "never without a probe"
    assert len(list(itertools.chain(ways))) == 18
