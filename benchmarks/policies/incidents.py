"""The drawn incidents of the proving ground as tables of numbers, for the fluid service that policies are trained on.

Each incident of the generator's stream `dev` becomes one row: what the service is made of, and on a grid of STEP_S
after the onset the load and the slowness. Incidents that no lever cures by their diagnosis (errors, stale data) are
left out: a planner's policy is never asked about them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.control.generator import ALONE, Draw, draw
from benchmarks.control.scenarios import END_S, ONSET_S, Scenario

STEP_S = 5.0
STEPS = int((END_S - ONSET_S) / STEP_S)
TRAIN = (100_000, 600)
"""First number and count of the development incidents to train on."""
CHECK = (200_000, 150)
"""Those on which the better of several trained policies is chosen."""


@dataclass(frozen=True)
class Incidents:
    """Arrays of shape (n,); rate, slow_first, slow_rest, peak_first, peak_rest and lost: (n, STEPS).

    rate: requests/s. slow_*: factor on batch times of replica 0 and of the others, mean over a step, peak_*: its
    highest there. setting_*: what stands at the onset. calm_*: what stood before.
    """

    alpha_ms: np.ndarray
    beta_ms: np.ndarray
    curve: np.ndarray
    spread: np.ndarray
    overhead_ms: np.ndarray
    gain: np.ndarray
    start_s: np.ndarray
    queue_limit: np.ndarray
    slo_ms: np.ndarray
    qps: np.ndarray
    cv2: np.ndarray
    batch: np.ndarray
    timeout_ms: np.ndarray
    int8: np.ndarray
    replicas: np.ndarray
    batch_max: np.ndarray
    replicas_max: np.ndarray
    precision: np.ndarray
    judged: np.ndarray
    rate: np.ndarray
    slow_first: np.ndarray
    slow_rest: np.ndarray
    peak_first: np.ndarray
    peak_rest: np.ndarray
    lost: np.ndarray

    @property
    def count(self) -> int:
        return len(self.slo_ms)

    def take(self, rows: np.ndarray) -> Incidents:
        """These rows, in this order, again and again if asked for."""
        return Incidents(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def table(first: int, count: int, folder: Path | None = None) -> Incidents:
    """Incidents `first` to `first + count - 1` of the stream dev; kept in `folder` once drawn."""
    path = folder / f"incidents.{first}.{count}.npz" if folder is not None else None
    if path is not None and path.exists():
        with np.load(path) as kept:
            return Incidents(**{f.name: kept[f.name] for f in fields(Incidents)})
    drawn = [draw("dev", number) for number in range(first, first + count)]
    rows = [_row(one) for one in drawn if not _silent(one)]
    found = Incidents(**{f.name: np.array([row[f.name] for row in rows], dtype=float) for f in fields(Incidents)})
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **{f.name: getattr(found, f.name) for f in fields(found)})
    return found


def _silent(one: Draw) -> bool:
    return any(t.kind in ALONE and t.kind != "none" for t in one.troubles)


def _row(one: Draw) -> dict[str, object]:
    """One incident with the luck of seed 1, as the proving ground runs it."""
    scenario = one.scenario()
    profile, faults = scenario.profile, scenario.faults(1)
    batch, timeout_ms = scenario.misset if scenario.misset is not None else (scenario.batch, scenario.timeout_ms)
    at = ONSET_S + np.arange(STEPS * 5) * STEP_S / 5
    ends = at.reshape(STEPS, 5)[:, 0]
    slow = np.array([[faults.slow(t, k) for t in at] for k in range(3)]).reshape(3, STEPS, 5)
    return {
        "alpha_ms": profile.alpha_ms,
        "beta_ms": profile.beta_ms,
        "curve": profile.curve,
        "spread": profile.spread,
        "overhead_ms": profile.overhead_ms,
        "gain": profile.int8_gain,
        "start_s": profile.start_s,
        "queue_limit": profile.queue_limit,
        "slo_ms": scenario.slo_ms,
        "qps": scenario.base_qps(),
        "cv2": scenario.cv2,
        "batch": batch,
        "timeout_ms": timeout_ms,
        "int8": scenario.int8 and not scenario.falls_back,
        "replicas": scenario.replicas,
        "batch_max": max(scenario.batch_max, batch),
        "replicas_max": scenario.replicas_max,
        "precision": scenario.precision,
        "judged": _judged(scenario),
        "rate": [faults.rate(t) for t in ends],
        "slow_first": slow[0].mean(axis=1),
        "slow_rest": slow[1:].mean(axis=(0, 2)),
        "peak_first": slow[0].max(axis=1),
        "peak_rest": slow[1:].max(axis=(0, 2)),
        "lost": [faults.lost(t) for t in ends],
    }


def _judged(scenario: Scenario) -> int:
    """The step at which the incident must be over."""
    return int((scenario.judged_s - ONSET_S) / STEP_S)
