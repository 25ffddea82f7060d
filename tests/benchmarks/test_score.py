"""What counts as an incident, as held and as eased; when the oracle may act: the same for every policy."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest

from benchmarks.control import judge, score
from benchmarks.control import scenarios as sc
from benchmarks.control.cases import Case, begin
from benchmarks.control.oracle import Choice, choices, oracle
from benchmarks.control.runs import Run, alarm_s
from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import Profile

SMALL = Scenario(
    "small", Profile(alpha_ms=20.0, beta_ms=1.0, start_s=10.0), ("load_surge",), batch=4, replicas=2, replicas_max=2,
    batch_max=4, use=0.5, vary=0.0, precision=False, wave=(0.0, 700.0),
)  # fmt: skip
"""Two replicas, 167 requests/s of 333; nothing can be changed but the batch downwards."""


@cache
def idle(scenario: Scenario):
    service = begin(scenario, 1)
    service.advance(END_S)
    return service


def kind(scenario: Scenario) -> str:
    row = score.judge(scenario, 1, "nothing", Run(idle(scenario), held=True), idle(scenario))
    return str(row["kind"])


@pytest.mark.parametrize(
    ("surge", "expected"),
    [
        (sc.step(3.0), "broken"),
        (sc.step(1.0), "needless"),
        (sc.burst(3.0, 30.0), "needless"),  # over before a change could do anything
        (lambda u: 3.0 if u > 900.0 else 1.0, "borderline"),  # shows too late for a change to be seen to cure
        (lambda u: 3.0 if 300.0 < u < 360.0 else 1.0, "borderline"),  # breaks the SLO's rule, and is over by itself
    ],
)
def test_what_an_incident_is(surge, expected):
    assert kind(replace(SMALL, surge=surge)) == expected


def test_what_was_there_before_the_onset_is_not_what_was_drawn():
    waves = replace(SMALL, use=0.9, wave=(0.25, 1000.0), surge=sc.step(3.0))
    assert alarm_s(waves, idle(waves), 300.0) < ONSET_S
    assert kind(waves) == "borderline"


def test_the_slos_rule_speaks_half_a_minute_after_it_is_broken():
    broken = replace(SMALL, surge=sc.step(3.0))
    assert ONSET_S + 30.0 < alarm_s(broken, idle(broken)) <= ONSET_S + 70.0
    assert alarm_s(SMALL, idle(SMALL)) is None


def run_with(scenario: Scenario, **setting) -> Run:
    service = begin(scenario, 1)
    service.advance(ONSET_S + 60.0)
    if "replicas" in setting:
        service.set_replicas(setting.pop("replicas"))
    if setting:
        service.set_batch(setting["batch"], setting["timeout_ms"])
    service.advance(END_S)
    return Run(service)


@pytest.mark.parametrize(
    ("setting", "held"),
    [
        ({}, True),
        ({"batch": 2, "timeout_ms": 5.0}, False),  # worse
        ({"batch": 16, "timeout_ms": 5.0}, True),  # free, and P95 is a fraction of what it would be
        ({"replicas": 4}, False),  # eased as well, and somebody pays for it
    ],
)
def test_held_is_who_ends_where_he_began_or_pays_nothing_for_what_helps(setting, held):
    """Six times the load: nothing carries it, and what carries more makes the queue grow less."""
    scenario = replace(SMALL, surge=sc.step(6.0), replicas_max=4, batch_max=16)
    row = score.judge(scenario, 1, "somebody", run_with(scenario, **setting), idle(scenario))
    assert row["held_right"] is held


def test_the_oracle_tells_what_eases_where_nothing_cures():
    """Three replicas carry twice the load and not four times, four replicas both; in the end four times come."""
    scenario = replace(SMALL, surge=lambda u: 2.2 if u < 750.0 else 3.4)
    start = begin(scenario, 1)
    for most, found in ((2, (False, False)), (3, (False, True)), (4, (True, False))):
        _, *told = oracle(replace(scenario, replicas_max=most), copy.deepcopy(start), ONSET_S + 60.0)
        assert tuple(told) == found


def test_the_oracle_tells_that_fewer_requests_are_refused():
    """P95 is over the SLO whatever is done; more than half are refused, with four replicas about a tenth."""
    refuses = replace(SMALL, surge=sc.step(4.5), profile=replace(SMALL.profile, queue_limit=200))
    start = begin(refuses, 1)
    for most, found in ((2, (False, False)), (4, (False, True))):
        _, *told = oracle(replace(refuses, replicas_max=most), copy.deepcopy(start), ONSET_S + 60.0)
        assert tuple(told) == found


def test_the_oracle_takes_away_a_wait_beside_another_lever():
    """What needs INT8 and no wait, or a replica and no wait, is curable."""
    scenario = replace(SMALL, precision=True, replicas_max=3, misset=(4, 800.0))
    service = begin(scenario, 1)
    service.advance(ONSET_S + 10.0)
    found = choices(scenario, service)
    assert (service.batch, service.timeout_ms) == (4, 800.0)
    assert Choice(batch=(4, 0.0), int8=True) in found and Choice(batch=(4, 0.0), replicas=3) in found
    assert Choice(batch=(4, 800.0), int8=True) not in found and len(set(found)) == len(found)


def test_where_requests_fail_nothing_is_eased():
    """P95 is fine whatever is done."""
    scenario = replace(SMALL, errors=0.4)
    _, *told = oracle(scenario, copy.deepcopy(begin(scenario, 1)), ONSET_S + 60.0)
    assert tuple(told) == (False, False)


def test_the_oracle_acts_at_the_first_sweep_after_the_rule_speaks():
    stage = judge._Stage(Case("named", 1))
    spoke_s = alarm_s(stage.scenario, stage.idle.service)
    at_s = judge._first_sweep_s(stage)
    assert spoke_s <= at_s < spoke_s + 30.0 and (at_s - ONSET_S) % 30.0 == 0
