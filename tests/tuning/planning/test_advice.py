"""Advice: each is given where its evidence was measured, with its source, and nowhere else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.fakes import reports
from tests.fakes.planning import make_incident, make_observation, make_service
from tests.tuning.planning import test_language_signs as language
from tests.tuning.planning.test_diagnosis import NOW, REST, SITUATION, rate
from tests.tuning.planning.test_stages import diagnose as staged
from tuning.model import Advice, Diagnosis, Option, Outcome
from tuning.planning import diagnosis as dg
from tuning.planning.advice import NEVER, TABLE
from tuning.planning.causes import CAUSES
from tuning.planning.settings import PlanningSettings
from tuning.report import words

ALL = ("batch_size", "replicas", "precision")


def diagnosed(now=None, levers=ALL, situation=None, warming: bool = False, **signals: float) -> Diagnosis:
    shown = dataclasses.replace(SITUATION, now=dataclasses.replace(NOW, **(now or {})), **(situation or {}))
    window = {"p95_ms": 600.0, **signals}
    observation = make_observation(window, service=make_service(levers=levers))
    return dg.diagnose(make_incident(), observation, shown, PlanningSettings())


NOISY = {"slow": 2.0, "variation": 0.41}
SURGE = {"arrivals": rate(200.0)}
ALONE = {**REST, "batch_ms": 140.0, "mean_ms": 145.0}
"""A batch of 140 ms before an SLO of 100 ms, and no queue."""

# name of the advice: (what points to it, its evidence in words, what does not, each for its own reason)
ROWS = {
    "MIG": (
        {"situation": NOISY, "gpu_util": 0.93},
        "batch times come and go on a GPU that is 93% busy",
        [{"situation": NOISY}, {"situation": SURGE, "gpu_util": 0.93}],
    ),
    "CPU affinity": (
        {"situation": NOISY, "cpu": 0.97},
        "batch times come and go, and the CPU is 97% busy",
        [{"situation": NOISY}, {"situation": SURGE, "cpu": 0.97}, {"situation": NOISY, "cpu": 0.97, "gpu_util": 0.5}],
    ),
    "several instances": (
        {"situation": SURGE, "gpu_util": 0.31},
        "the model computes 99% of the time, and the GPU is 31% busy",
        [{"situation": SURGE}, {"situation": SURGE, "gpu_util": 0.5},
         {"situation": SURGE, "gpu_util": 0.31, "now": {"busy": 0.79}}, {"situation": SURGE, "gpu_util": 0.31, "now": {"busy": None}}],
    ),
    "dynamic batching": (
        {"situation": SURGE, "now": {"rows_per_batch": 1.0}, "levers": ("replicas",)},
        "a batch holds 1.0 rows while requests wait",
        [{"situation": SURGE, "now": {"rows_per_batch": 1.0}}, {"situation": SURGE, "now": {"rows_per_batch": 1.5}, "levers": ("replicas",)},
         {"situation": SURGE, "now": {"rows_per_batch": None}, "levers": ("replicas",)}],
    ),
    "INT8": (
        {"now": ALONE, "levers": ("batch_size",)},
        "a batch takes 140 ms by itself with no queue before it, and the SLO is 100 ms; there is no lever `precision`",
        [{"now": ALONE}, {"levers": ("batch_size",)}],
    ),
    "distillation": (
        {"now": ALONE},
        "a batch takes 140 ms by itself with no queue before it, and the SLO is 100 ms",
        [{"now": {**ALONE, "batch_ms": 99.0}}, {"now": {**ALONE, "batch_ms": None}}, {"now": {"batch_ms": 140.0}}],
    ),
    "cooling": (
        {"situation": {"slow": 2.0}, "gpu_temperature_c": 88.0},
        "the GPU is at 88 degrees",
        [{"situation": {"slow": 2.0}, "gpu_temperature_c": 82.0}, {"situation": {"slow": 2.0}}, {"situation": SURGE, "gpu_temperature_c": 88.0}],
    ),
}  # fmt: skip
ROWS["pruning"] = ROWS["distillation"]


def named(found: Diagnosis, name: str) -> list[Advice]:
    return [one for one in found.advice if one.name == name]


@pytest.mark.parametrize("name", ROWS)
def test_it_is_given_with_its_evidence_and_its_source(name):
    given, because, _ = ROWS[name]
    (one,) = named(diagnosed(**given), name)
    assert one.because == because and one.source and one.text


@pytest.mark.parametrize(("name", "without"), [(name, one) for name, (_, _, others) in ROWS.items() for one in others])
def test_it_is_not_given_where_its_evidence_is_absent(name, without):
    assert named(diagnosed(**without), name) == []


@pytest.mark.parametrize(("stage", "name"), [("pre", "pre-processing elsewhere"), ("post", "post-processing elsewhere")])
def test_a_stage_that_dominates_is_done_elsewhere(stage, name):
    grown, calm = {"pre": (2.0, 2.0), "post": (2.0, 2.0), stage: (8.0, 41.0)}, {"pre": (8.0, 8.0)}
    (one,) = named(staged(**grown), name)
    assert one.because.startswith(f"{stage}-processing on the CPU takes ")
    assert len(staged(**grown).advice) == 1 and staged(**calm).advice == ()


LANGUAGE = {
    "smaller KV cache": (language.KV, {"kv_usage": 0.5}, "the KV cache is 97% full"),
    "chunked prefill": (
        {"queue_depth": 0.0, "queue_ms": 2.0, "running": 4.0, "prefill_ms": 2000.0, "ttft_ms": 2010.0, "decode_ms": 1300.0},
        {"queue_depth": 0.0, "queue_ms": 2.0, "running": 4.0, "prefill_ms": 1200.0, "ttft_ms": 1210.0, "decode_ms": 1300.0},
        "the prompt takes 2000 ms of a request and the answer 1300 ms",
    ),
    "prefix cache": ({"prefix_hit_rate": 0.02, "step_tokens": 60.0}, {"prefix_hit_rate": 0.1}, "2% of the prompt tokens are found in the prefix cache"),
}  # fmt: skip


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_have_their_own(name):
    with_it, without, because = LANGUAGE[name]
    found = language.diagnose(with_it)
    assert [one.because for one in named(found, name)] == [because], (found.cause, found.evidence)
    assert named(language.diagnose(without), name) == []


def test_every_row_speaks_of_causes_that_there_are_and_none_is_without_a_source():
    assert {cause for row in TABLE for cause in row.causes} <= set(CAUSES) and set(CAUSES) >= NEVER
    assert all(row.source and "http" not in row.source for row in TABLE)
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_the_page_of_planning_names_every_one_with_its_source():
    page = (Path(__file__).parents[3] / "docs/planning.md").read_text()
    rows = {tuple(cell.strip() for cell in line.split("|")[1:5:3]) for line in page.splitlines() if line.startswith("| ")}
    assert {(row.name, row.source) for row in TABLE} <= rows


def test_where_nothing_was_measured_nothing_is_advised():
    assert diagnosed().advice == () and diagnosed(situation=SURGE).advice == ()


ONE = Advice(name="MIG", because="the GPU is shared", text="give it a part of its own", source="A Guide, NVIDIA")


def told(report) -> list[str]:
    return [text for label, text in words.rows(report) if label == "Advice"]


def test_the_mail_of_a_hold_and_of_an_inconclusive_change_says_it_and_no_other_does():
    advised = Diagnosis(cause="noisy_neighbour", advice=(ONE,))
    hold = reports.plan(diagnosis=advised, chosen=Option(changes=()))
    said = ["the GPU is shared: give it a part of its own (A Guide, NVIDIA)"]
    assert told(reports.report(plan=hold, outcome=None, receipts=(), decision=None)) == said
    changed = reports.report(plan=reports.plan(diagnosis=advised))
    assert told(changed) == []
    outcome = Outcome(id="o", plan_id="plan1", service="ranker", verdict="inconclusive", resolved=False, at_s=1.0, reason="?")
    assert told(changed.model_copy(update={"outcome": outcome})) == said
