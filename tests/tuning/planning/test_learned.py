"""Learned planners: what they see of an observation, what becomes of a move, and that they only watch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detection.errors import ConfigError, Permanent
from tests.fakes.planning import SATURATED, make_incident, make_observation, make_service, make_settings
from tests.fakes.policies import weights_text
from tuning.model import Plan
from tuning.planning import ACTING, LEARNED, REGISTRY, chosen, engines, get
from tuning.planning.batching import assess
from tuning.planning.beside import Beside
from tuning.planning.features import QUANTITIES
from tuning.planning.learned import quantities
from tuning.planning.settings import PlanningSettings


def plan_of(tmp_path: Path, likes: str, **observation: object) -> Plan:
    (tmp_path / "w.json").write_text(weights_text("ppo", likes=likes))
    planner = get("ppo")(PlanningSettings(beside_weights=str(tmp_path / "w.json")))
    return planner.propose(make_incident(), make_observation(**observation), ())


@pytest.mark.parametrize(
    ("likes", "new"),
    [
        ("batch to its bound", [{"batch_size": 32, "batch_timeout_ms": 0.0}]),
        ("one replica more", [{"min_replicas": 3, "max_replicas": 10}]),
        ("replicas to their bound", [{"min_replicas": 10, "max_replicas": 10}]),
        ("int8", [{"precision": "int8"}]),
        ("batch to its bound, int8", [{"batch_size": 32, "batch_timeout_ms": 0.0}, {"precision": "int8"}]),
    ],
)
def test_a_move_becomes_absolute_changes(tmp_path, likes, new):
    plan = plan_of(tmp_path, likes)
    assert [change.new for change in plan.chosen.changes] == new
    assert plan.mode == "observe" and f"'{likes}' first" in plan.reason
    assert all("below" in option.reason for option in plan.rejected)


def test_replicas_that_were_asked_for_and_do_not_run_are_not_counted_twice(tmp_path):
    plan = plan_of(
        tmp_path, "one replica more", settings=make_settings(replicas=4), signals={**SATURATED, "replicas": 2.0}
    )
    assert plan.chosen.changes[0].new["min_replicas"] == 5


def test_a_move_that_is_not_open_is_not_made(tmp_path):
    assert plan_of(tmp_path, "no batch wait").chosen.changes == ()
    only = plan_of(tmp_path, "int8", service=make_service(levers=("replicas",)))
    assert only.chosen.changes == () and only.reason.startswith("hold: ")


def test_what_is_seen_of_an_observation():
    observation, incident = make_observation(), make_incident()
    situation = assess(incident, observation, PlanningSettings())
    found = quantities(observation, situation, frozenset({"replicas"}), incident)
    assert list(found) == list(QUANTITIES)
    known = {name: float(values[0]) for name, values in found.items()}
    assert (known["p95_ms"], known["limit_ms"], known["batch"], known["replicas"]) == (600.0, 100.0, 1.0, 2.0)
    assert (known["batch_max"], known["replicas_max"], known["int8"], known["age_s"]) == (32.0, 10.0, 1.0, 60.0)
    assert (known["tried_replicas"], known["tried_batch_size"]) == (1.0, 0.0)
    assert (known["alpha_ms"] + known["beta_ms"]) * (
        known["slow"] if np.isfinite(known["slow"]) else 1.0
    ) == pytest.approx(15.0, rel=0.1)


def test_levers_that_are_not_there_are_not_known():
    observation, incident = make_observation(service=make_service(levers=()), settings={}), make_incident()
    found = quantities(observation, assess(incident, observation, PlanningSettings()), frozenset(), incident)
    assert all(np.isnan(found[name][0]) for name in ("batch_max", "replicas_max", "timeout_min_ms"))
    assert found["int8"][0] == 0.0


def test_what_no_lever_cures_is_no_question_for_a_policy(tmp_path):
    failing = {**SATURATED, "error_rate": 0.5, "queue_ms": 0.5, "busy": 0.1, "mean_ms": 15.0}
    plan = plan_of(tmp_path, "int8", signals=failing)
    assert plan.chosen.changes == () and plan.diagnosis.cause == "errors"


# Beside ----------------------------------------------------------------------------------------------------------


class Fixed:
    """A planner that always proposes the same, or cannot."""

    def __init__(self, name: str, plan: Plan | Exception) -> None:
        self.name, self._plan = name, plan

    def propose(self, *_: object) -> Plan:
        if isinstance(self._plan, Exception):
            raise self._plan
        return self._plan

    def spares(self, *_: object) -> str:
        return f"{self.name} says."


def both(tmp_path: Path, one: str, other: str) -> tuple[Plan, Plan]:
    return plan_of(tmp_path, one), plan_of(tmp_path, other)


def test_what_watches_is_told_and_nothing_else_of_the_plan_changes(tmp_path):
    mine, theirs = both(tmp_path, "batch to its bound", "int8")
    planner = Beside(Fixed("model", mine), Fixed("ppo", theirs))
    plan = planner.propose(make_incident(), make_observation(), ())
    assert plan.beside == "the learned policy ppo would have chosen precision fp32 -> int8"
    assert plan.model_copy(update={"beside": ""}) == mine
    assert planner.name == "model" and planner.spares(make_incident(), make_observation(), (), None) == "model says."
    assert plan.inverse().beside == ""


def test_the_same_choice_is_called_the_same(tmp_path):
    mine, theirs = both(tmp_path, "int8", "int8")
    told = Beside(Fixed("model", mine), Fixed("ppo", theirs)).propose(make_incident(), make_observation(), ()).beside
    assert "the same: precision fp32 -> int8" in told


@pytest.mark.parametrize("error", [ConfigError("x"), Permanent("x"), ValueError("x"), ZeroDivisionError("x")])
def test_what_only_watches_stops_nothing(tmp_path, error):
    mine = plan_of(tmp_path, "int8")
    plan = Beside(Fixed("model", mine), Fixed("ppo", error)).propose(make_incident(), make_observation(), ())
    assert plan.chosen == mine.chosen and "could not answer" in plan.beside and type(error).__name__ in plan.beside


# Who acts --------------------------------------------------------------------------------------------------------


def test_nothing_is_beside_a_planner_unless_it_is_asked_for():
    assert PlanningSettings().beside == ""
    assert chosen(PlanningSettings()).propose(make_incident(), make_observation(), ()).beside == ""


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_planner_stands_beside_and_never_in_the_place_of_one_that_acts(name):
    assert name in REGISTRY and name not in ACTING
    plan = chosen(PlanningSettings(beside=name)).propose(make_incident(), make_observation(), ())
    alone = chosen(PlanningSettings()).propose(make_incident(), make_observation(), ())
    assert plan.chosen == alone.chosen and plan.mode == "act"
    assert plan.beside.startswith(f"the learned policy {name} would have chosen ")
    with pytest.raises(ConfigError, match=r"only watches.*planning\.beside"):
        chosen(PlanningSettings(planner=name))


def test_a_planner_that_acts_stands_beside_nobody():
    with pytest.raises(ConfigError, match="no learned planner is called 'model'"):
        chosen(PlanningSettings(beside="model"))


def test_bad_weights_are_told_before_the_loop_runs(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        chosen(PlanningSettings(beside="ppo", beside_weights=str(tmp_path / "gone.json")))
    # Nobody is beside: the file is not looked at.
    assert chosen(PlanningSettings(beside_weights=str(tmp_path / "gone.json"))).name == "model"


@pytest.mark.parametrize("name", LEARNED)
def test_a_language_model_is_not_what_was_trained_on(name):
    service = make_service().model_copy(update={"engine": "continuous_batching"})
    assert "continuous_batching" in engines.REGISTRY
    plan = get(name)(PlanningSettings()).propose(make_incident(), make_observation(service=service), ())
    assert plan.chosen.changes == () and plan.mode == "observe"
