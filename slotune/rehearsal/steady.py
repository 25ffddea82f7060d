"""The steady state of a setting under a load, simulated once for every load and speed that is about the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np

from slotune.rehearsal.batch_queue import Now, Step
from slotune.rehearsal.drivers import Drivers
from tuning.planning import whatif
from tuning.planning.whatif import Forecasted, Lane

_RATE_STEP, _PACE_STEP, _CV2_STEP = 0.04, 0.04, 0.4
"""Loads, batch times and variations (logarithms) closer than this have one steady state."""
_BATCHES = 1500
_SAMPLE = 300
_AT_ONCE = 256
_RATES_AROUND, _PACES_AROUND = range(-5, 6), (-1, 0, 1)
_Key = tuple[int, int, float, float, int, int, int]
"""Batch, replicas, timeout in s, share of a full batch that its rows take, and the bins of rate, pace and cv2."""


class Steady:
    """Steps of a service whose queues only breathe (tuning.planning.whatif, as the planner asks it). Every bin of
    loads, speeds and variations is simulated at its middle, so that what was asked before changes nothing."""

    def __init__(self, drivers: Drivers) -> None:
        self._drivers = drivers
        self._known: dict[_Key, Forecasted] = {}

    def step(self, now: Now, rng: np.random.Generator) -> Step | None:
        """One step under steady causes; None where nothing comes."""
        if now.rate <= 0:
            return None
        found = self._found(now)
        answered = now.rate * (1 - now.failed) * self._drivers.step_s
        count = int(min(_SAMPLE, max(1, rng.poisson(answered))))
        batch_s = found.busy * now.ready * self._drivers.step_s
        batches = answered if now.alpha_s <= 0 else (batch_s - now.beta_s * answered) / now.alpha_s
        return Step(
            found.sample_ms[rng.integers(found.sample_ms.size, size=count)] + self._drivers.overhead_ms,
            answered,
            now.rate * now.failed * self._drivers.step_s,
            found.queue_ms / 1e3 * answered,
            float(np.clip(batches, answered / now.batch, answered)),
            answered,
            batch_s,
            found.queue_ms / 1e3 * now.rate,
            now.ready,
        )

    def p95_ms(self, now: Now) -> float:
        """Of the steady state; what is overloaded has the one of a queue that has grown for a while."""
        return self._found(now).p95_ms + self._drivers.overhead_ms

    def prepare(self, nows: Iterable[Now]) -> None:
        """Simulate what is not known yet."""
        self._simulate(dict.fromkeys(key for now in nows if (key := _key(now)) not in self._known))

    def _found(self, now: Now) -> Forecasted:
        """Loads and speeds wander: with what is not known yet its neighbours are simulated, many at nearly the price of
        one."""
        if (key := _key(now)) not in self._known:
            *rest, rate, pace, cv2 = key
            around = [(*rest, rate + r, pace + p, cv2) for r in _RATES_AROUND for p in _PACES_AROUND]
            self._simulate(one for one in around if one not in self._known)  # type: ignore[misc]
        return self._known[key]

    def _simulate(self, keys: Iterable[_Key]) -> None:
        """Batch size by batch size: the arrivals that are drawn depend on it, not on who is beside."""
        for _, group in itertools.groupby(sorted(keys), key=lambda key: key[0]):
            wanted = list(group)
            for first in range(0, len(wanted), _AT_ONCE):
                part = wanted[first : first + _AT_ONCE]
                lanes = [_lane(key, self._drivers.spread) for key in part]
                found = whatif.simulate(lanes, batches=_BATCHES, seed=1, requests=4 * _BATCHES)
                self._known |= zip(part, found, strict=True)


def _key(now: Now) -> _Key:
    took = now.alpha_s + now.beta_s * now.batch
    return (
        now.batch, now.ready, round(now.timeout_s, 4), round(now.beta_s * now.batch / max(took, 1e-12), 2),
        round(math.log(now.rate * (1 - now.failed) + 1e-9) / _RATE_STEP), round(math.log(took) / _PACE_STEP),
        round(math.log(now.cv2) / _CV2_STEP),
    )  # fmt: skip


def _lane(key: _Key, spread: float) -> Lane:
    batch, ready, timeout_s, share, rate, pace, cv2 = key
    took, qps = math.exp(_PACE_STEP * pace), math.exp(_RATE_STEP * rate)
    return Lane(
        qps=max(qps / ready, 1e-6), cv2=whatif.split_cv2(math.exp(_CV2_STEP * cv2), ready), batch=batch,
        timeout_s=timeout_s, alpha_s=took * (1 - share), beta_s=took * share / batch, spread=spread,
    )  # fmt: skip
