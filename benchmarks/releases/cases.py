"""The releases: what version 7 does otherwise than version 6, and what else happens. Pure functions of a seed.

Times in seconds since the start; the release comes at RELEASE_S. A release is never alone in the world: most cases
have a trouble of another cause beside it, which breaks the SLO where the release does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.control.scenarios import CONV, EVEN, WIDE
from benchmarks.control.simulator import Profile

RELEASE_S = 600.0
END_S = 1000.0
OLD, NEW = "6", "7"
PROFILES = (WIDE, EVEN, CONV)
HARMLESS = ("alone", "more load", "much more load", "lost replica", "slower later", "errors later", "smaller batch")
"""What happens beside a release that changed nothing. "later": of its own accord, minutes after the release."""
BAD = ("slower", "slower, more load", "errors", "errors, more load")


@dataclass(frozen=True)
class Case:
    """slow: the new version's time per batch over the old one's. errors: the share that it fails more. surge: the
    load's factor from surge_s on. lost: replicas that are gone from the release on. other_slow, other_errors: of
    whatever serves, from other_s on. misset: the batch limit that somebody sets at the release (0: none)."""

    kind: str
    seed: int
    profile: Profile
    use: float
    batch: int
    replicas: int
    slow: float = 1.0
    errors: float = 0.0
    surge: float = 1.0
    surge_s: float = RELEASE_S
    lost: int = 0
    other_slow: float = 1.0
    other_errors: float = 0.0
    other_s: float = END_S
    misset: int = 0

    @property
    def bad(self) -> bool:
        return self.kind in BAD

    def base_qps(self) -> float:
        full_s = (self.profile.alpha_ms + self.profile.beta_ms * self.batch) / 1e3
        return self.use * self.replicas * self.batch / full_s


def harmless(seed: int) -> Case:
    """A release that changed nothing that anybody could feel: its time lies within 3 % of the old one's."""
    rng = np.random.default_rng([seed, 1])
    kind = HARMLESS[seed % len(HARMLESS)]
    base = _base(kind, seed, rng)
    base |= {"slow": float(rng.uniform(0.97, 1.03))}
    made: dict[str, Callable[[], dict[str, object]]] = {
        "alone": dict,
        "more load": lambda: {"surge": rng.uniform(1.3, 1.9), "surge_s": RELEASE_S + rng.uniform(-30, 30)},
        "much more load": lambda: {"surge": rng.uniform(1.9, 3.0), "surge_s": RELEASE_S + rng.uniform(-30, 30)},
        "lost replica": lambda: {"lost": 1, "replicas": int(rng.integers(2, 4))},
        "slower later": lambda: {"other_slow": rng.uniform(1.5, 2.5), "other_s": RELEASE_S + rng.uniform(120, 220)},
        "errors later": lambda: {"other_errors": rng.uniform(0.05, 0.2), "other_s": RELEASE_S + rng.uniform(120, 220)},
        "smaller batch": lambda: {"misset": max(1, int(base["batch"]) // 4)},  # type: ignore[call-overload]
    }
    return Case(**{**base, **made[kind]()})  # type: ignore[arg-type]


def bad(seed: int) -> Case:
    """A release that is slower by half to three times, or fails requests; half of them with a load change beside it."""
    rng = np.random.default_rng([seed, 2])
    kind = BAD[seed % len(BAD)]
    base = _base(kind, seed, rng)
    if kind.startswith("slower"):
        base |= {"slow": float(rng.uniform(1.5, 3.0))}
    else:
        base |= {"errors": float(rng.uniform(0.03, 0.2))}
    if kind.endswith("more load"):
        base |= {"surge": float(rng.uniform(1.15, 1.5)), "surge_s": RELEASE_S + float(rng.uniform(-30, 30))}
    return Case(**base)  # type: ignore[arg-type]


def _base(kind: str, seed: int, rng: np.random.Generator) -> dict[str, object]:
    return {
        "kind": kind,
        "seed": seed,
        "profile": PROFILES[int(rng.integers(len(PROFILES)))],
        "use": float(rng.uniform(0.5, 0.65)),
        "batch": int(rng.choice([1, 4, 8])),
        "replicas": int(rng.integers(1, 4)),
    }
