"""Overloads with replicas and batches at their bounds, and the variants that stand by. Pure functions of a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.control.scenarios import CONV, EVEN, WIDE
from benchmarks.control.simulator import Profile

ONSET_S = 600.0
LASTS_S = (600.0, 1200.0)
WAVE = 0.1
"""How far the load goes up and down by itself, as a day's does in hours."""
AFTER_S = 4200.0
"""How long is watched once the load has fallen: a lease's hour, the ten minutes below its limit, and the look."""
PROFILES = (WIDE, EVEN, CONV)
NAMES = ("full", "int8", "small", "cached")


@dataclass(frozen=True)
class Case:
    """use: load over capacity before; from ONSET_S to over_s it is three times the capacity and more (overload). told,
    true: service times by variant as services.yaml has them, and as they are. quality: by variant, 0..1. sheds: the
    queue is so short that what is answered is answered in time, and the rest is refused: the best that can be done
    without the lever. Else it is long, and all answers are late."""

    seed: int
    profile: Profile
    use: float
    overload: float
    sheds: bool
    over_s: float
    batch: int
    replicas: int
    told: tuple[float, ...]
    true: tuple[float, ...]
    quality: tuple[float, ...]

    @property
    def end_s(self) -> float:
        return self.over_s + AFTER_S

    def capacity_qps(self) -> float:
        return self.replicas * self.batch / ((self.profile.alpha_ms + self.profile.beta_ms * self.batch) / 1e3)


def overload(seed: int) -> Case:
    """Three times what it carries, on a service that has no more replicas to give."""
    rng = np.random.default_rng([seed, 7])
    told = (1.0, float(rng.uniform(0.45, 0.8)), float(rng.uniform(0.15, 0.35)), float(rng.uniform(0.03, 0.1)))
    scatter = np.exp(rng.normal(0.0, 0.1, 3))
    losses = np.cumsum([rng.uniform(0.001, 0.006), rng.uniform(0.01, 0.03), rng.uniform(0.05, 0.1)])
    best = float(rng.uniform(0.85, 0.97))
    return Case(
        seed=seed,
        profile=PROFILES[int(rng.integers(len(PROFILES)))],
        use=float(rng.uniform(0.4, 0.65)),
        overload=float(rng.uniform(3.0, 3.6)),
        sheds=bool(seed % 2),
        over_s=ONSET_S + float(rng.uniform(*LASTS_S)),
        batch=int(rng.choice([2, 4, 8])),
        replicas=int(rng.integers(1, 4)),
        told=tuple(round(one, 3) for one in told),
        true=(1.0, *(float(t * s) for t, s in zip(told[1:], scatter, strict=True))),
        quality=(best, *(float(best - loss) for loss in losses)),
    )


def rate_of(case: Case, t: float) -> float:
    """Requests per second."""
    wave = 1 + WAVE * math.sin(2 * math.pi * t / 700 + case.seed)
    return case.capacity_qps() * wave * (case.overload if ONSET_S <= t < case.over_s else case.use)
