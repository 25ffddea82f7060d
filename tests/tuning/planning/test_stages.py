"""Stages around the model: what dominates and grew is named, and no lever is pulled for it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.fakes import reports
from tests.fakes.planning import AT_S, make_incident, make_observation
from tests.tuning.planning.test_diagnosis import BASE, NOW, REST, SITUATION
from tuning.planning import diagnosis as dg
from tuning.planning.causes import CAUSES
from tuning.planning.settings import PlanningSettings
from tuning.report import words

POINTS, ONSET = 61, 48
"""A point every 5 s; the incident's onset is 60 s before the end."""


def course(before: float, now: float) -> np.ndarray:
    return np.where(np.arange(POINTS) < ONSET, before, now)


def diagnose(pre=(8.0, 41.0), compute=(18.0, 18.0), post=(2.0, 2.0), reading=None, **more: float):
    window = {"p95_ms": 600.0, "queue_ms": course(3.0, 3.0), "pre_ms": course(*pre), "compute_ms": course(*compute)}
    window |= {"post_ms": course(*post), **more}
    now = dataclasses.replace(NOW, **(REST if reading is None else reading))
    situation = dataclasses.replace(SITUATION, now=now, base=BASE)
    observation = dataclasses.replace(make_observation(window), since_s=AT_S - 60)
    return dg.diagnose(make_incident(), observation, situation, PlanningSettings())


def test_pre_processing_that_dominates_and_grew_is_the_cause_and_no_lever_cures_it():
    found = diagnose()
    assert found.cause == "slow_stage" and not found.curable and CAUSES["slow_stage"].levers == ()
    assert found.evidence == ("pre-processing on the CPU takes 64% of a request's time (41 ms, before 8 ms)",)
    assert dict(found.stages) == {"queue": 3.0, "pre-processing": 41.0, "compute": 18.0, "post-processing": 2.0}


def test_how_busy_the_cpu_is_stands_beside_it():
    assert diagnose(cpu=0.97).evidence[0].endswith("(41 ms, before 8 ms), and the CPU is 97% busy")


def test_post_processing_as_well():
    assert "post-processing on the CPU takes" in diagnose(pre=(2.0, 2.0), post=(8.0, 41.0)).evidence[0]


@pytest.mark.parametrize(
    "stages",
    [
        {"pre": (41.0, 41.0)},
        {"pre": (8.0, 22.0)},
        {"pre": (2.0, 2.0), "compute": (18.0, 80.0)},
        {"pre": (36.0, 41.0)},
    ],
    ids=["it always was so", "it grew and is not most of it", "the model itself", "it hardly grew"],
)
def test_what_does_not_dominate_or_did_not_grow_is_no_cause(stages):
    found = diagnose(**stages)
    assert found.cause != "slow_stage" and not any("on the CPU" in text for text in found.evidence)


def test_while_a_queue_stands_it_is_evidence_beside_the_cause():
    found = diagnose(reading={})
    assert found.cause != "slow_stage" and found.evidence[-1].startswith("pre-processing on the CPU takes 64%")


def test_a_server_that_shows_nothing_around_the_model_has_no_stages():
    window = {"p95_ms": 600.0, "queue_ms": 3.0, "compute_ms": 18.0}
    situation = dataclasses.replace(SITUATION, now=dataclasses.replace(NOW, **REST))
    found = dg.diagnose(make_incident(), make_observation(window), situation, PlanningSettings())
    assert found.stages == ()


def test_the_mail_says_where_the_time_goes():
    plan = reports.plan(diagnosis=diagnose())
    said = words.shares(reports.report(plan=plan))
    assert said == (
        "A request takes 64 ms on average: queue 3 ms (5%), pre-processing 41 ms (64%), compute 18 ms (28%), "
        "post-processing 2 ms (3%)."
    )
