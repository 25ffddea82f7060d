"""`slotune plan --observation`: text and JSON, and what is wrong in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from detection.errors import ConfigError
from slotune.commands import plan
from tuning.model import Plan

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "observation.json"


def run(*arguments: str):
    app = typer.Typer()
    plan.register(app)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["plan", *arguments])


def test_text_has_diagnosis_options_and_choice():
    result = run("--observation", str(EXAMPLE))
    assert result.exit_code == 0
    for words in ("ranker: load surge", "mean latency: queue", "min_replicas 2 -> 3", "choice: batch_size 4 ->"):
        assert words in result.stdout


def test_json_is_a_plan_and_nothing_but():
    made = Plan.model_validate(json.loads(run("--observation", str(EXAMPLE), "--json").stdout))
    assert made.dry_run
    assert made.chosen.levers == ("batch_size",)


@pytest.mark.parametrize("name", ["evolved", "ppo"])
def test_a_learned_planner_can_be_asked_and_only_watches(name):
    made = json.loads(run("--observation", str(EXAMPLE), "--json", "--planner", name).stdout)
    assert made["mode"] == "observe" and f"{name} rates" in made["reason"]


def test_the_playbook_can_be_asked():
    made = json.loads(run("--observation", str(EXAMPLE), "--json", "--planner", "playbook").stdout)
    assert made["chosen"]["predicted_p95_ms"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name one of"),
        (("--service", "x", "--observation", "y"), "name one of"),
        (("--observation", "missing.json"), "missing.json"),
        (("--observation", str(EXAMPLE), "--planner", "oracle"), "no planner is called 'oracle'"),
    ],
)
def test_wrong_input_is_a_sentence(arguments, words):
    result = run(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
