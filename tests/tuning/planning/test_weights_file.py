"""A file of weights: read, checked against what the policy sees and can do, refused in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detection.errors import ConfigError
from tests.fakes.policies import weights_text
from tuning.planning import LEARNED
from tuning.planning.features import FEATURES
from tuning.planning.moves import NAMES
from tuning.planning.weights_file import FOLDER, parse, read


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse("ppo", text, "weights.json")
    told = str(caught.value)
    assert "weights.json" in told and "\n" not in told and len(told) < 400
    return told


def layer(rows: int, columns: int) -> dict[str, object]:
    return {"weights": [[0.5] * columns for _ in range(rows)], "bias": [0.0] * rows}


@pytest.mark.parametrize("name", LEARNED)
def test_what_comes_with_slotune_can_be_read_and_is_small(name):
    policy = read(name)
    scores = policy.scores(np.zeros((3, len(FEATURES))))
    assert scores.shape == (3, len(NAMES)) and np.isfinite(scores).all()
    assert (FOLDER / f"{name}.json").stat().st_size < 60_000
    assert "development incidents" in policy.trained


def test_layers_are_applied_with_a_tanh_between_them():
    first, last = layer(2, len(FEATURES)), layer(len(NAMES), 2)
    policy = parse("ppo", weights_text(layers=[first, last]), "x")
    inputs = np.full((1, len(FEATURES)), 0.01)
    assert policy.scores(inputs) == pytest.approx(np.tanh(0.5 * 0.01 * len(FEATURES)) * np.ones((1, len(NAMES))))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no file of weights"),
        ("{}", "format"),
        (weights_text(format=2), "has format 2, this version reads 1"),
        (weights_text(format="<script>" * 99), "has format"),
        (weights_text("evolved"), "holds the weights of 'evolved', not of ppo"),
        (weights_text(features=list(FEATURES[1:])), f"other features (without {FEATURES[0]!r})"),
        (weights_text(features=[*FEATURES, "moon"]), "other features (with 'moon')"),
        (weights_text(features=list(reversed(FEATURES))), "other features (in another order)"),
        (weights_text(moves=[*NAMES, "pray"]), "other moves (with 'pray')"),
        (weights_text(layers=[]), "ends in"),
        (weights_text(layers=[layer(len(NAMES), 3)]), "layer 0 does not fit"),
        (weights_text(layers=[layer(4, len(FEATURES))]), f"ends in 4 numbers, {len(NAMES)} moves"),
        (weights_text(layers=[{"weights": [], "bias": []}]), "layer 0 does not fit"),
        (weights_text(layers=[{"weights": [["a"]], "bias": [0]}]), "no file of weights: layers.0"),
        (weights_text(moon=1), "moon"),
    ],
)
def test_a_bad_file_is_one_sentence(text, says):
    assert says in refused(text)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_weight_that_is_no_number_is_refused(value):
    assert "finite" in refused(weights_text().replace("0.0", value, 1))


def test_a_file_that_is_not_there_or_no_text_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read("ppo", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read("ppo", str(tmp_path))
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        read("ppo", str(tmp_path / "x.json"))


def test_a_file_of_ones_own_is_read(tmp_path):
    (tmp_path / "mine.json").write_text(weights_text("ppo", likes="batch x4"))
    scores = read("ppo", str(tmp_path / "mine.json")).scores(np.ones((1, len(FEATURES))))
    assert NAMES[int(scores.argmax())] == "batch x4"
    assert json.loads((tmp_path / "mine.json").read_text())["planner"] == "ppo"
