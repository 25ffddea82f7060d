"""What goes wrong in the proving ground. Times in seconds; the fault begins at ONSET_S. Seeds change luck and size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.control.simulator import Faults, Profile

ONSET_S = 900.0
END_S = 1900.0

WIDE = Profile(alpha_ms=48.0, beta_ms=2.0, int8_gain=4.0)
"""Wide layers: the weights are streamed once per batch, so batching gains almost in proportion."""
EVEN = Profile(alpha_ms=28.0, beta_ms=8.0, spread=0.2, curve=0.15, int8_gain=3.0)
"""A short-sequence transformer: batching gains about four times, and not along a straight line."""
CONV = Profile(alpha_ms=6.0, beta_ms=28.0, int8_gain=2.0)
"""A convolution on a CPU: batching gains nothing, INT8 a little more."""


@dataclass(frozen=True)
class Scenario:
    """One incident. batch, timeout_ms, replicas: the setting before. use: load before it, as a share of capacity.

    causes: the names that count as the true cause. surge(u): the load's factor u seconds after the onset. slow, lost,
    errors likewise. misset: (batch, timeout) that somebody sets at the onset. slo_factor: SLO over the time of a full
    batch at the present setting; objective_ms and qps: the SLO and the load where they do not follow from that.
    int8: whether the service starts on INT8; falls_back: and goes back to FP32 at the onset. silent: nothing is scraped
    after the onset. vary: how much a seed changes the size of the fault. wave: how far the load waves before the onset,
    and its period in seconds. judged_s: when the incident must be over (its trouble ends by itself there, or END_S).
    stretch_s: the shortest time whose P95 means something at this load.
    """

    name: str
    profile: Profile
    causes: tuple[str, ...]
    batch: int = 4
    timeout_ms: float = 5.0
    replicas: int = 2
    batch_max: int = 32
    replicas_max: int = 8
    use: float = 0.5
    slo_factor: float = 5.0
    surge: Callable[[float], float] = lambda u: 1.0
    slow: Callable[[float, int], float] = lambda u, replica: 1.0
    errors: float = 0.0
    lost: int = 0
    misset: tuple[int, float] | None = None
    cv2: float = 1.0
    precision: bool = True
    incident: bool = True
    objective_ms: float = 0.0
    qps: float = 0.0
    int8: bool = False
    falls_back: bool = False
    silent: bool = False
    vary: float = 0.1
    wave: tuple[float, float] = (0.15, 700.0)
    judged_s: float = END_S
    look_s: float = 150.0
    stretch_s: float = 15.0
    rate_window_s: float = 20.0

    @property
    def slo_ms(self) -> float:
        if self.objective_ms:
            return self.objective_ms
        full = self.profile.alpha_ms + self.profile.beta_ms * self.batch
        return math.ceil(self.slo_factor * full / 10) * 10.0

    def base_qps(self) -> float:
        if self.qps:
            return self.qps
        full_s = (self.profile.alpha_ms + self.profile.beta_ms * self.batch) / 1e3
        return self.use * self.replicas * self.batch / full_s

    def faults(self, seed: int) -> Faults:
        """The fault with its size varied by up to 10 % and its load waving slowly, both by the seed."""
        rng = np.random.default_rng(seed * 7919 + sum(map(ord, self.name)))
        size, phase = rng.uniform(1 - self.vary, 1 + self.vary), rng.uniform(0, 2 * math.pi)
        base, (depth, period_s) = self.base_qps(), self.wave

        def rate(t: float) -> float:
            wave = 1 + depth * math.sin(2 * math.pi * t / period_s + phase) * (1.0 if t < ONSET_S else 0.3)
            factor = self.surge(t - ONSET_S) if t >= ONSET_S else 1.0
            return base * wave * (1 + (factor - 1) * size)

        def slow(t: float, replica: int) -> float:
            return 1 + (self.slow(t - ONSET_S, replica) - 1) * size if t >= ONSET_S else 1.0

        return Faults(
            rate=rate,
            slow=slow,
            errors=lambda t: self.errors if t >= ONSET_S else 0.0,
            lost=lambda t: self.lost if t >= ONSET_S else 0,
            cv2=self.cv2,
            silent=lambda t: self.silent and t >= ONSET_S,
        )


def step(factor: float) -> Callable[[float], float]:
    return lambda u: factor


def ramp(factor: float, over_s: float) -> Callable[[float], float]:
    return lambda u: 1 + (factor - 1) * min(1.0, u / over_s)


def daily(factor: float, half_s: float) -> Callable[[float], float]:
    """The rising half of a daily curve, then its plateau."""
    return lambda u: 1 + (factor - 1) * 0.5 * (1 - math.cos(math.pi * min(1.0, u / half_s)))


def burst(factor: float, length_s: float) -> Callable[[float], float]:
    return lambda u: factor if u < length_s else 1.0


def bursts(factor: float, length_s: float, period_s: float) -> Callable[[float], float]:
    """Again and again: over for `length_s` of every `period_s`."""
    return lambda u: factor if u % period_s < length_s else 1.0


def falls(shape: Callable[[float], float], at_s: float) -> Callable[[float], float]:
    """The shape, and nothing any more from `at_s` on."""
    return lambda u: shape(u) if u < at_s else 1.0


def slower(factor: float) -> Callable[[float, int], float]:
    return lambda u, replica: factor


def slowing(factor: float, over_s: float) -> Callable[[float, int], float]:
    """A leak, a chip that heats up: slower and slower over `over_s`, then as slow as that."""
    return lambda u, replica: 1 + (factor - 1) * min(1.0, u / over_s)


def one_slow(factor: float) -> Callable[[float, int], float]:
    return lambda u, replica: factor if replica == 0 else 1.0


def neighbour(factor: float, period_s: float, share: float = 0.5) -> Callable[[float, int], float]:
    """Something else on the machine: on for a share of a period, and not in step on every replica."""
    return lambda u, replica: factor if (u + 3.7 * replica) % period_s < share * period_s else 1.0


_LOAD, _SLOW, _LOST = ("load_surge",), ("slower_service",), ("lost_capacity",)
SCENARIOS: tuple[Scenario, ...] = (
    Scenario("surge x2, batching helps", WIDE, _LOAD, use=0.6, surge=step(2.0)),
    Scenario("surge x3, batching helps", WIDE, _LOAD, use=0.5, surge=step(3.0)),
    Scenario("surge x5, batching helps", WIDE, _LOAD, batch=4, batch_max=64, use=0.5, surge=step(5.0)),
    Scenario("surge x10, batching helps", WIDE, _LOAD, batch_max=64, use=0.4, surge=step(10.0)),
    Scenario("surge x10, bounds too low", CONV, _LOAD, replicas_max=4, use=0.6, surge=step(10.0)),
    Scenario("surge x2, batching useless", CONV, _LOAD, use=0.6, surge=step(2.0), precision=False),
    Scenario("surge x3, batching useless", CONV, _LOAD, use=0.5, surge=step(3.0), replicas_max=10),
    Scenario("surge x4, half and half", EVEN, _LOAD, use=0.5, surge=step(4.0)),
    Scenario("ramp x3", WIDE, _LOAD, use=0.5, surge=ramp(3.0, 300.0)),
    Scenario("daily curve", EVEN, _LOAD, use=0.45, surge=daily(3.0, 400.0)),
    Scenario("bursty, surge x1.8", EVEN, _LOAD, use=0.45, surge=step(1.8), cv2=6.0, slo_factor=8.0),
    Scenario("short burst", EVEN, _LOAD, use=0.5, surge=burst(4.0, 40.0)),
    Scenario("slower x1.5", WIDE, _SLOW, use=0.72, slow=slower(1.5), slo_factor=6.0),
    Scenario("slower x2", EVEN, _SLOW, use=0.65, slow=slower(2.0), slo_factor=6.0),
    Scenario("slower x3", CONV, _SLOW, use=0.5, slow=slower(3.0), slo_factor=8.0),
    Scenario("slower x4, below the SLO's reach", WIDE, _SLOW, use=0.4, slow=slower(4.0), slo_factor=2.5,
             precision=False),
    Scenario("one of three replicas lost", EVEN, _LOST, replicas=3, use=0.72, lost=1, slo_factor=6.0),
    Scenario("two of four replicas lost", CONV, _LOST, replicas=4, use=0.7, lost=2),
    Scenario("noisy neighbour x2.5", EVEN, ("noisy_neighbour",), use=0.6, slow=neighbour(2.5, 10.0), slo_factor=7.0),
    Scenario("noisy neighbour x4", CONV, ("noisy_neighbour",), use=0.5, slow=neighbour(4.0, 16.0), slo_factor=8.0),
    Scenario("batch set to 1", WIDE, ("batch_too_small",), batch=8, use=0.5, misset=(1, 0.0)),
    Scenario("wait set to 800 ms", EVEN, ("batch_wait_too_long",), batch=8, use=0.12, misset=(32, 800.0)),
    Scenario("errors 30 %", EVEN, ("errors",), use=0.4, errors=0.3),
    Scenario("errors 60 %", CONV, ("errors",), use=0.5, errors=0.6),
    Scenario("surge and slower", WIDE, ("load_surge", "slower_service"), use=0.5, surge=step(1.8), slow=slower(1.6),
             slo_factor=7.0),
    Scenario("surge and a lost replica", EVEN, ("load_surge", "lost_capacity"), replicas=3, use=0.55,
             surge=step(1.6), lost=1),
    Scenario("only INT8 is left", CONV, _SLOW, batch=4, batch_max=4, replicas=3, replicas_max=3, use=0.6,
             slow=slower(2.2), slo_factor=7.0),
    Scenario("nothing is left", CONV, _LOAD, batch=4, batch_max=4, replicas=3, replicas_max=3, use=0.6,
             surge=step(2.5), precision=False),
    Scenario("one replica slow", CONV, ("slow_replica",), replicas=3, use=0.4, slow=one_slow(4.0), replicas_max=5,
             slo_factor=3.5, precision=False),
    Scenario("nothing wrong", EVEN, ("healthy",), use=0.5, incident=False),
)  # fmt: skip
