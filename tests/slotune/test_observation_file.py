"""Observation files: the example in the docs works, and what is wrong is named with its path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detection.errors import ConfigError
from slotune.observation_file import parse

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "observation.json"


def body(**change):
    found = json.loads(EXAMPLE.read_text())
    found.update(change)
    return json.dumps(found)


def test_the_example_is_read_whole():
    incident, observation = parse(EXAMPLE.read_text())
    assert observation.window.values["replicas"].shape == (25,)
    assert observation.settings["batch_size"].values["batch_size"] == 4
    assert incident.opened_at_s == 1_699_999_925


def test_null_is_a_gap_and_not_zero():
    _, observation = parse(body(signals={"p95_ms": [None, 5.0], "qps": 3}))
    assert np.isnan(observation.window.values["p95_ms"][0])
    assert list(observation.window.values["qps"]) == [3.0, 3.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ("{}", "service"),
        (body(signals={"p96_ms": 5}), "signals.p96_ms"),
        (body(signals={"p95_ms": [1, 2], "qps": [1, 2, 3]}), "differ in length"),
        (body(step_s=0), "step_s"),
        (body(step_s="x"), "step_s"),
        (body(colour="red"), "colour"),
        (body(settings={"gears": {}}), "settings.gears"),
        (body(incident={"symptom": "headache"}), "headache"),
        (body(signals={"p95_ms": []}), "signals.p95_ms"),
        (body(service={"name": "x"}), "service.slo"),
        (body(service={"name": "x", "slo": {"p95_ms": 5}, "levers": {"gears": {}}}), "gears"),
        (body(service={"name": "x", "slo": {"p95_ms": 5}, "mode": "yolo"}), "mode"),
    ],
)
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(ConfigError, match=r"file\.json") as caught:
        parse(text, "file.json")
    assert words in str(caught.value)
