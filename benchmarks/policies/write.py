"""Writes what was learned as the JSON that tuning.planning.weights_file reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tuning.planning.features import FEATURES
from tuning.planning.moves import NAMES
from tuning.planning.weights_file import FORMAT, Policy, parse

DIGITS = 4
"""Significant digits of a weight: what is further behind changes no choice."""


def rounded(values: np.ndarray) -> list[object]:
    """Nested lists of numbers with DIGITS significant digits."""
    found = np.vectorize(lambda v: float(f"{v:.{DIGITS}g}"))(values).tolist()
    assert isinstance(found, list)
    return found


def write(
    path: Path, planner: str, layers: Sequence[tuple[np.ndarray, np.ndarray]], trained: Mapping[str, object]
) -> Policy:
    """layers: (weights (outputs, inputs), bias). What was written, read back."""
    body = {
        "format": FORMAT,
        "planner": planner,
        "trained": dict(trained),
        "features": list(FEATURES),
        "moves": list(NAMES),
        "layers": [{"weights": rounded(weights), "bias": rounded(bias)} for weights, bias in layers],
    }
    text = json.dumps(body, separators=(",", ":")) + "\n"
    policy = parse(planner, text, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return policy
