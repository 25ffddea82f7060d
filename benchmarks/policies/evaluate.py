"""How a policy does in the fluid service: the mean reward and what it is made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.policies.fluid import Fluid
from benchmarks.policies.incidents import Incidents

Chooses = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(features (n, k), open moves (n, moves)) to the move of each lane, shape (n,)."""


def best_open(scores: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The open move of the highest score in each row."""
    return np.asarray(np.where(free, scores, -np.inf).argmax(axis=1))


def run(incidents: Incidents, chooses: Chooses, seed: int) -> dict[str, float]:
    """Means over the incidents: reward, minutes over the SLO, changes, added replica-minutes over the replicas there
    were, share cured."""
    world, total = Fluid(incidents, seed), np.zeros(incidents.count)
    while not world.done:
        total += world.step(chooses(*world.question()))
    return {
        "reward": round(float(total.mean()), 4),
        "minutes": round(float(world.minutes.mean()), 3),
        "changes": round(float(world.changes.mean()), 3),
        "added": round(float(world.added.mean()), 3),
        "cured": round(float(world.cured().mean()), 4),
    }


def hold(_: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Nobody does anything."""
    return np.zeros(len(free), dtype=int)


def at_random(seed: int) -> Chooses:
    """Any open move."""
    rng = np.random.default_rng(seed)
    return lambda _, free: best_open(rng.random(free.shape), free)
