"""Plans about training jobs: named, held, with advice; never a change."""

from __future__ import annotations

import pytest

from detection.model import Lever, Service, Slo
from tests.detection.test_training import JOB, job
from tests.fakes.planning import make_incident
from tuning import planning
from tuning.model import Observation
from tuning.planning.causes import CAUSES
from tuning.planning.settings import PlanningSettings

KINDS = {
    "stall": ("training_stalled", "no iteration has ended for", "hang"),
    "nan": ("loss_rising", "the loss is no number any more", "learning rate"),
    "rise": ("loss_rising", "it rises", "learning rate"),
    "step": ("slower_iterations", "times as long", "profiling"),
    "data": ("data_bound", "for its data, and the GPU is", "data loading"),
    "gpu": ("gpu_rests", "its data take", "profiling"),
    "flat": ("loss_flat", "has moved by less than 0.5%", "stopping"),
}


def planned(kind: str, planner: str = "model", service: Service = JOB, without: tuple[str, ...] = ()):
    window = job(2, kind, without)
    observation = Observation(service=service, window=window, at_s=window.span.end_s, settings={})
    incident = make_incident("training").model_copy(update={"service": "job"})
    return planning.get(planner)(PlanningSettings()).propose(incident, observation, [])


@pytest.mark.parametrize("planner", sorted(planning.REGISTRY))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_named_with_advice_and_held(kind, planner):
    cause, said, advice = KINDS[kind]
    plan = planned(kind, planner)
    assert plan.diagnosis.cause == cause and said in plan.reason and not plan.diagnosis.curable
    assert not plan.chosen.changes and plan.reason.endswith("a training job is only watched")
    assert advice in [one.name for one in plan.diagnosis.advice]
    assert all(one.source and one.because in plan.reason for one in plan.diagnosis.advice)
    assert CAUSES[cause].levers == () and not CAUSES[cause].curable


def test_even_a_lever_that_slipped_in_is_never_chosen():
    levers = {"replicas": Lever(name="replicas", actuator="kubernetes", maximum=9)}
    plan = planned("step", service=JOB.model_copy(update={"levers": levers, "mode": "act"}))
    assert not plan.chosen.changes


def test_two_things_that_are_wrong_are_both_told():
    plan = planned("step")
    window = job(2, "step")
    window.values["data_wait_ms"][:] = 0.6 * window.values["iteration_ms"]
    observation = Observation(service=JOB, window=window, at_s=window.span.end_s, settings={})
    both = planning.get("model")(PlanningSettings()).propose(make_incident("training"), observation, [])
    assert both.diagnosis.cause == plan.diagnosis.cause == "slower_iterations"
    assert any(text.startswith("beside it, ") and "for its data" in text for text in both.diagnosis.evidence)
    assert {"profiling", "data loading"} <= {one.name for one in both.diagnosis.advice}


@pytest.mark.parametrize(
    ("limit_ms", "cause", "said"),
    [(1e6, "healthy", "it recovered by itself: the mean time of an iteration is"), (1.0, "unknown", "nothing that is exported has moved")],
)  # fmt: skip
def test_where_nothing_is_wrong_with_it_the_promise_is_what_there_is(limit_ms, cause, said):
    plan = planned("calm", service=JOB.model_copy(update={"slo": Slo(iteration_ms=limit_ms)}))
    assert plan.diagnosis.cause == cause and said in plan.reason and plan.diagnosis.advice == ()


def test_numbers_that_are_missing_are_stale():
    plan = planned("calm", without=("iteration_ms", "data_wait_ms"))
    assert plan.diagnosis.cause == "stale_data" and "no mean time of an iteration is exported" in plan.reason
