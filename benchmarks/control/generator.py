"""Incidents nobody wrote down: a service, its traffic and what goes wrong with it, drawn from ranges by a seed.

Two streams of seeds, `dev` and `report`, share no random number: thresholds are chosen on the first and figures are
reported on the second. What is true of an incident (its causes, its SLO) comes from simulating it, see `truth`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from benchmarks.control import scenarios as sc
from benchmarks.control.scenarios import ONSET_S, Scenario
from benchmarks.control.simulator import Profile, SimulatedService

STREAMS = {"dev": 1, "report": 2}
"""First word of every seed of a stream: seeds of different streams never meet."""

CALM_S = (200.0, 600.0)
"""How long the calm is looked at for its SLO, at least and at most: 6,000 requests where they come in that time."""
PAIRS = 0.25
"""Share of incidents in which two things go wrong at once."""

ALONE = ("errors", "none", "stale data")
"""What is never half of a pair: it would hide the other half, or is none."""


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong. cause: its name in the diagnosis' vocabulary. changes: fields of the scenario."""

    kind: str
    cause: str
    changes: dict[str, object]


@dataclass(frozen=True)
class Draw:
    """A drawn incident: the service in its calm, and what goes wrong at the onset."""

    calm: Scenario
    troubles: tuple[Trouble, ...]

    @property
    def name(self) -> str:
        return self.calm.name

    def scenario(self, troubles: tuple[Trouble, ...] | None = None) -> Scenario:
        """The scenario with these troubles (default: all of them)."""
        chosen = self.troubles if troubles is None else troubles
        scenario = self.calm
        for trouble in chosen:
            changes = dict(trouble.changes)
            if "slow" in changes:
                changes["slow"] = partial(_product, scenario.slow, changes["slow"])
            scenario = replace(scenario, **changes)  # type: ignore[arg-type]
        return replace(scenario, incident=bool(chosen), causes=tuple(t.cause for t in chosen) or ("healthy",))


def _product(one: object, other: object, u: float, replica: int) -> float:
    return float(one(u, replica) * other(u, replica))  # type: ignore[operator]


@lru_cache(maxsize=8)
def draw(stream: str, number: int) -> Draw:
    """Incident `number` of a stream; the same every time."""
    rng = np.random.default_rng([STREAMS[stream], number])
    calm = _service(f"{stream} {number}", rng)
    count = 2 if rng.random() < PAIRS else 1
    troubles: list[Trouble] = []
    while len(troubles) < count:
        kinds = sorted(KINDS)
        weights = np.array([KINDS[kind][0] for kind in kinds])
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        found = KINDS[kind][1](calm, rng)
        taken = {name for t in troubles for name in t.changes} - {"slow"}
        again = kind in {t.kind for t in troubles} or taken & set(found.changes if found else ())
        if found is None or again or (count == 2 and kind in ALONE):
            continue
        troubles.append(found)
    return Draw(calm, tuple(t for t in troubles if t.kind != "none"))


# The service -----------------------------------------------------------------------------------------------------


def _service(name: str, rng: np.random.Generator) -> Scenario:
    """A service that holds its SLO: from traffic, use and setting follows what a batch must take."""
    qps = _log(rng, 0.5, 2000.0)
    replicas = int(rng.choice([1, 2, 3, 4, 6, 8], p=[0.15, 0.3, 0.2, 0.2, 0.1, 0.05]))
    batch = int(rng.choice([1, 2, 4, 8, 16]))
    use = rng.uniform(0.25, 0.72)
    # Nobody batches what takes seconds, and no server starts ten thousand batches a second.
    while batch > 1 and replicas * batch * use / qps > 1.2:
        batch //= 2
    replicas = max(1, min(replicas, int(1.5 * qps / use / batch)))
    full_ms = 1e3 * replicas * batch * use / qps
    while full_ms < 2.0 and batch < 64:
        batch, full_ms = 2 * batch, 2 * full_ms
    ratio = _log(rng, 0.1, 50.0)
    beta = full_ms / (ratio + batch)
    cv2 = 1.0 if rng.random() < 0.3 else _log(rng, 0.3, 6.0)
    gain = rng.uniform(1.2, 4.0)
    precision = bool(rng.random() < 0.6)
    int8 = precision and bool(rng.random() < 0.25)
    profile = Profile(
        alpha_ms=ratio * beta * (gain if int8 else 1.0),
        beta_ms=beta * (gain if int8 else 1.0),
        spread=_log(rng, 0.03, 0.4),
        overhead_ms=rng.uniform(0.3, 5.0),
        int8_gain=gain,
        start_s=_log(rng, 10.0, 120.0),
        queue_limit=math.ceil(min(5000.0, max(20.0, _log(rng, 2.0, 40.0) * qps / replicas))),
        curve=float(rng.choice([0.0, rng.uniform(0.0, 0.4)])),
    )
    stretch_s = min(75.0, max(15.0, 40.0 / qps))
    calm = Scenario(
        name,
        profile,
        causes=("healthy",),
        batch=batch,
        timeout_ms=float(rng.choice([0.0, 0.0, min(10.0, 0.2 * full_ms), min(50.0, full_ms)])),
        replicas=replicas,
        batch_max=min(128, batch * int(rng.choice([1, 2, 4, 8, 16], p=[0.1, 0.1, 0.3, 0.3, 0.2]))),
        replicas_max=math.ceil(replicas * rng.choice([1.0, 1.5, 2.0, 3.0, 4.0], p=[0.1, 0.15, 0.3, 0.3, 0.15])),
        cv2=cv2,
        precision=precision,
        int8=int8,
        qps=qps,
        incident=False,
        vary=0.0,
        wave=(rng.uniform(0.0, 0.25), rng.uniform(300.0, 1500.0)),
        stretch_s=stretch_s,
        look_s=max(150.0, 4 * stretch_s),
        rate_window_s=20.0 if qps >= 3 else 60.0,
    )  # fmt: skip
    return replace(calm, objective_ms=_objective(calm, rng.uniform(1.3, 4.0)))


def _objective(calm: Scenario, room: float) -> float:
    """An SLO that the service holds while all is well: `room` times its P95, and over what its stretches reach."""
    service = SimulatedService(
        calm.profile, calm.faults(0), batch=calm.batch, timeout_ms=calm.timeout_ms, replicas=calm.replicas, seed=77
    )
    service.int8 = calm.int8
    end_s = float(np.clip(6000.0 / calm.qps, *CALM_S))
    service.advance(end_s)
    starts = np.arange(60.0, end_s - calm.stretch_s + 1, calm.stretch_s)
    stretches = [service.p95_ms(t, t + calm.stretch_s) for t in starts]
    value = max(room * service.p95_ms(60.0, end_s), 1.2 * float(np.nanmax(stretches)))
    digits = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / digits) * digits


# What goes wrong -------------------------------------------------------------------------------------------------


def _surge(calm: Scenario, rng: np.random.Generator) -> Trouble:
    factor = _log(rng, 1.4, 6.0)
    shapes: dict[str, Callable[[], dict[str, object]]] = {
        "step": lambda: {"surge": sc.step(factor)},
        "ramp": lambda: {"surge": sc.ramp(factor, rng.uniform(60.0, 480.0))},
        "daily": lambda: {"surge": sc.daily(factor, rng.uniform(300.0, 600.0))},
        "short": lambda: {"surge": sc.burst(factor, rng.uniform(20.0, 80.0))},
        "bursts": lambda: _bursts(calm, factor, rng),
        "fall": lambda: _fall(factor, rng),
    }
    shape = str(rng.choice(list(shapes), p=[0.3, 0.2, 0.15, 0.08, 0.12, 0.15]))
    return Trouble(f"surge {shape}", "load_surge", shapes[shape]())


def _bursts(calm: Scenario, factor: float, rng: np.random.Generator) -> dict[str, object]:
    period_s = rng.uniform(90.0, 240.0)
    shape = sc.bursts(factor, rng.uniform(0.4, 0.7) * period_s, period_s)
    return {"surge": shape, "look_s": max(calm.look_s, 1.5 * period_s)}


def _fall(factor: float, rng: np.random.Generator) -> dict[str, object]:
    at_s = float(round(rng.uniform(560.0, 800.0)))
    return {"surge": sc.falls(sc.step(factor), at_s), "judged_s": ONSET_S + at_s}


def _slower(calm: Scenario, rng: np.random.Generator) -> Trouble:
    return Trouble("slower", "slower_service", {"slow": sc.slower(_log(rng, 1.3, 4.0))})


def _gradual(calm: Scenario, rng: np.random.Generator) -> Trouble:
    slow = sc.slowing(_log(rng, 1.6, 4.0), rng.uniform(180.0, 600.0))
    return Trouble("slower gradually", "slower_service", {"slow": slow})


def _neighbour(calm: Scenario, rng: np.random.Generator) -> Trouble:
    slow = sc.neighbour(_log(rng, 1.5, 5.0), _log(rng, 8.0, 60.0), rng.uniform(0.3, 0.6))
    return Trouble("neighbour", "noisy_neighbour", {"slow": slow})


def _one_slow(calm: Scenario, rng: np.random.Generator) -> Trouble | None:
    if calm.replicas < 2:
        return None
    return Trouble("one slow replica", "slow_replica", {"slow": sc.one_slow(_log(rng, 1.6, 6.0))})


def _lost(calm: Scenario, rng: np.random.Generator) -> Trouble | None:
    if calm.replicas < 2:
        return None
    return Trouble("lost replicas", "lost_capacity", {"lost": int(rng.integers(1, max(2, calm.replicas * 2 // 3 + 1)))})


def _small_batch(calm: Scenario, rng: np.random.Generator) -> Trouble | None:
    if calm.batch < 4:
        return None
    size = int(rng.choice([k for k in (1, 2, 4, 8) if k <= calm.batch / 4]))
    return Trouble("batch too small", "batch_too_small", {"misset": (size, calm.timeout_ms)})


def _long_wait(calm: Scenario, rng: np.random.Generator) -> Trouble:
    """The wait alone, or with a larger batch that does not fill."""
    wait_ms = calm.slo_ms * _log(rng, 0.4, 3.0)
    batch = min(128, calm.batch * int(rng.choice([1, 2, 4, 8])))
    misset = (max(2, batch), round(min(wait_ms, 2000.0), 1))
    return Trouble("wait too long", "batch_wait_too_long", {"misset": misset})


def _errors(calm: Scenario, rng: np.random.Generator) -> Trouble:
    return Trouble("errors", "errors", {"errors": _log(rng, 0.03, 0.7)})


def _stale(calm: Scenario, rng: np.random.Generator) -> Trouble:
    return Trouble("stale data", "stale_data", {"silent": True})


def _fallback(calm: Scenario, rng: np.random.Generator) -> Trouble | None:
    """The service ran on INT8, and goes back to FP32."""
    if not (calm.precision and calm.int8):
        return None
    return Trouble("precision lost", "slower_service", {"falls_back": True})


def _none(calm: Scenario, rng: np.random.Generator) -> Trouble:
    return Trouble("none", "healthy", {})


KINDS = {
    "batch too small": (1.0, _small_batch),
    "errors": (0.6, _errors),
    "lost replicas": (1.2, _lost),
    "neighbour": (1.2, _neighbour),
    "none": (0.4, _none),
    "one slow replica": (0.8, _one_slow),
    "precision lost": (2.5, _fallback),
    "slower": (1.3, _slower),
    "slower gradually": (1.2, _gradual),
    "stale data": (0.35, _stale),
    "surge": (3.0, _surge),
    "wait too long": (1.2, _long_wait),
}
"""What can go wrong: how often (relative), and what draws it (None: not on this service)."""


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))
