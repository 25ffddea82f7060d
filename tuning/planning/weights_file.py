"""The weights of a learned policy: a JSON file, read and checked, and the forward pass. Needs nothing but numpy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from detection.errors import ConfigError
from detection.model import FloatArray
from tuning.planning.features import FEATURES
from tuning.planning.moves import NAMES

FORMAT = 1
FOLDER = Path(__file__).parent / "weights"
"""The files that come with slotune, one a learned planner: NAME.json."""
_AGAIN = "train it again with `make train-policies`"


class Layer(BaseModel):
    """weights: a row per output, a number per input. bias: a number per output."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


class WeightsFile(BaseModel):
    """features, moves: what the inputs and outputs mean. trained: how it came about, for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    planner: str
    features: tuple[str, ...]
    moves: tuple[str, ...]
    layers: tuple[Layer, ...]
    trained: dict[str, object] = {}


@dataclass(frozen=True)
class Policy:
    """Layers of (weights, shape (outputs, inputs), and bias), a tanh between them. trained: how it came about."""

    layers: tuple[tuple[FloatArray, FloatArray], ...]
    trained: str = ""

    def scores(self, inputs: FloatArray) -> FloatArray:
        """inputs: (n, features); shape (n, moves), the higher the rather."""
        values = inputs
        for k, (weights, bias) in enumerate(self.layers):
            values = (np.tanh(values) if k else values) @ weights.T + bias
        return values


def read(name: str, path: str = "") -> Policy:
    """The weights of a planner: its own file, or the one at `path`. ConfigError says what is wrong with the file."""
    file = Path(path) if path else FOLDER / f"{name}.json"
    where = str(file)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the weights of the policy {name} cannot be read: {error.strerror}", where=where) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"is no file of weights (no text in UTF-8): {_AGAIN}", where=where) from error
    return parse(name, text, where)


def parse(name: str, text: str, where: str) -> Policy:
    """As `read`, of what stands in the file."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is no file of weights (no JSON): {_AGAIN}", where=where) from error
    if isinstance(data, dict) and data.get("format") not in (None, FORMAT):
        raise ConfigError(f"has format {str(data['format'])[:20]}, this version reads {FORMAT}: {_AGAIN}", where=where)
    try:
        found = WeightsFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"is no file of weights: {place}: {first['msg']}; {_AGAIN}", where=where) from error
    if found.planner != name:
        raise ConfigError(f"holds the weights of {found.planner[:40]!r}, not of {name}", where=where)
    for what, mine, theirs in (("features", FEATURES, found.features), ("moves", NAMES, found.moves)):
        if mine != theirs:
            raise ConfigError(f"was trained on other {what} ({_differs(mine, theirs)}): {_AGAIN}", where=where)
    return Policy(_layers(found.layers, where), str(found.trained.get("told", "")))


def _differs(mine: Sequence[str], theirs: Sequence[str]) -> str:
    missing, added = [x for x in mine if x not in theirs], [x[:60] for x in theirs if x not in mine]
    if missing:
        return f"without {missing[0]!r}"
    return f"with {added[0]!r}" if added else "in another order"


def _layers(found: Sequence[Layer], where: str) -> tuple[tuple[FloatArray, FloatArray], ...]:
    """As arrays; ConfigError where the sizes do not fit each other, the features and the moves."""
    inputs, layers = len(FEATURES), []
    for k, layer in enumerate(found):
        if not layer.bias or len(layer.weights) != len(layer.bias) or {len(r) for r in layer.weights} != {inputs}:
            raise ConfigError(f"layer {k} does not fit what comes before it ({inputs} numbers): {_AGAIN}", where=where)
        layers.append((np.array(layer.weights), np.array(layer.bias)))
        inputs = len(layer.bias)
    if not layers or inputs != len(NAMES):
        raise ConfigError(f"ends in {inputs} numbers, {len(NAMES)} moves need one each: {_AGAIN}", where=where)
    return tuple(layers)
