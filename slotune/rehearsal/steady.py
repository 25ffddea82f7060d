"""The steady state of a setting under a load, simulated once for every load and speed that is about the same."""

from __future__ import annotations

import math

import numpy as np

from slotune.rehearsal.batch_queue import Now, Step
from slotune.rehearsal.drivers import Drivers
from tuning.planning import whatif
from tuning.planning.whatif import Forecasted, Lane

_RATE_STEP, _PACE_STEP, _CV2_STEP = 0.04, 0.04, 0.4
"""Loads, batch times and variations (logarithms) closer than this have one steady state."""
_BATCHES = 1500
_SAMPLE = 300


class Steady:
    """Steps of a service whose queues only breathe (tuning.planning.whatif, as the planner asks it)."""

    def __init__(self, drivers: Drivers) -> None:
        self._drivers = drivers
        self._known: dict[tuple[float, ...], Forecasted] = {}

    def step(self, now: Now, rng: np.random.Generator) -> Step | None:
        """One step under steady causes; None where nothing comes."""
        if now.rate <= 0:
            return None
        found = self._forecast(now)
        answered = now.rate * (1 - now.failed) * self._drivers.step_s
        count = int(min(_SAMPLE, max(1, rng.poisson(answered))))
        batch_s = found.busy * now.ready * self._drivers.step_s
        batches = answered if now.alpha_s <= 0 else (batch_s - now.beta_s * answered) / now.alpha_s
        return Step(
            rng.choice(found.sample_ms, count) + self._drivers.overhead_ms,
            answered,
            now.rate * now.failed * self._drivers.step_s,
            found.queue_ms / 1e3 * answered,
            float(np.clip(batches, answered / now.batch, answered)),
            answered,
            batch_s,
            found.queue_ms / 1e3 * now.rate,
            now.ready,
        )

    def _forecast(self, now: Now) -> Forecasted:
        took = now.alpha_s + now.beta_s * now.batch
        key = (
            now.batch, now.ready, round(now.timeout_s, 4), round(now.beta_s * now.batch / max(took, 1e-12), 3),
            round(math.log(now.rate * (1 - now.failed) + 1e-9) / _RATE_STEP), round(math.log(took) / _PACE_STEP),
            round(math.log(now.cv2) / _CV2_STEP),
        )  # fmt: skip
        if key not in self._known:
            lane = Lane(
                qps=max(now.rate * (1 - now.failed) / now.ready, 1e-6), cv2=whatif.split_cv2(now.cv2, now.ready),
                batch=now.batch, timeout_s=now.timeout_s, alpha_s=now.alpha_s, beta_s=now.beta_s,
                spread=self._drivers.spread,
            )  # fmt: skip
            self._known[key] = whatif.simulate([lane], batches=_BATCHES, seed=1, requests=4 * _BATCHES)[0]
        return self._known[key]
