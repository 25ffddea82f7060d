"""Worked examples for learned policies: one service's quantities, and weights that prefer one move."""

from __future__ import annotations

import json

import numpy as np

from detection.model import FloatArray
from tuning.planning.features import FEATURES, QUANTITIES
from tuning.planning.moves import NAMES
from tuning.planning.weights_file import FORMAT

TWICE_THE_LOAD: dict[str, float] = {
    "p95_ms": 400.0, "limit_ms": 100.0, "error_rate": 0.0, "arrivals": 200.0, "base_qps": 100.0, "slope": 0.0,
    "slow": 1.0, "slower_per_min": 0.0, "busy": 1.0, "fill": 1.0, "queue_share": 0.9, "alpha_ms": 20.0, "beta_ms": 2.0,
    "batch": 4.0, "batch_max": 32.0, "timeout_ms": 0.0, "timeout_min_ms": 0.0, "replicas": 2.0, "replicas_max": 8.0,
    "base_replicas": 2.0, "slowest": 1.0, "int8": 0.0, "backlog": 0.0, "variation": 0.0, "age_s": 60.0, "cv2": 1.0,
    "tried_batch_size": 0.0, "tried_replicas": 0.0, "tried_precision": 0.0,
}  # fmt: skip


def seen(**known: float) -> dict[str, FloatArray]:
    """TWICE_THE_LOAD with what is given instead, shape (1,) each."""
    values = {**TWICE_THE_LOAD, **known}
    assert set(values) == set(QUANTITIES)
    return {name: np.array([float(value)]) for name, value in values.items()}


def weights_text(planner: str = "ppo", *, likes: str = "hold", **changes: object) -> str:
    """A file of weights whose policy rates one move first, whatever it sees."""
    bias = [float(name == likes) for name in NAMES]
    body: dict[str, object] = {
        "format": FORMAT,
        "planner": planner,
        "features": list(FEATURES),
        "moves": list(NAMES),
        "layers": [{"weights": [[0.0] * len(FEATURES) for _ in NAMES], "bias": bias}],
    }
    return json.dumps({**body, **changes})
