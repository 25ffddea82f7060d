"""The P95 that the service's engine expects with the observed setting at another load, or slowness, for verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from detection.model import MetricWindow
from tuning.model import Interval, Observation
from tuning.planning import engines
from tuning.planning import thresholds as th
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Knowledge
from tuning.planning.settings import PlanningSettings


def expected_p95_ms(
    observation: Observation, settings: PlanningSettings, window: MetricWindow | None = None
) -> float | None:
    """P95 that the engine expects with the observation's setting at the load of `window` (default: its own).

    Give the observation from before the change and the window after it. inf where the load is beyond the setting's
    capacity (then no steady P95 exists), None where the engine cannot tell, or not surely enough which of the two.
    """
    engine = engines.get(observation.service.engine)
    situation = engine.assess(None, observation, settings, -math.inf)
    if window is not None:
        values = window.values.get("qps")
        finite = values[values == values] if values is not None else None
        if finite is None or not finite.size:
            return None
        situation = replace(situation, arrivals=_measured(float(finite.mean())))
    if not situation.identified:
        return None
    situation = replace(situation, backlog=0.0)
    stay = engine.unchanged(observation, situation)
    found = engine.predict([stay], observation, situation, Knowledge(), settings)[0]
    if observation.promise.signal not in found.shown:
        return None
    if found.load < 1.0:
        return found.told(observation.promise.signal).value
    return math.inf if found.carries <= th.LEAST_CARRIES else None


def unhelped_p95_ms(
    observation: Observation, settings: PlanningSettings, window: MetricWindow, *, same_model: bool
) -> float | None:
    """P95 that the observation's setting would have led to by `window` AT LEAST, where the service grew slower since.

    A trouble that grows hides what a change has done: P95 after it is to be compared with what P95 would be by then,
    not with what it was. same_model: the change left alone what computes, so that the slowness is measured in `window`.
    `thresholds.UNHELPED` of the prediction: a queue that refuses grows less than one that does not, and no change is
    to be praised for that. None where the service did not grow slower, or where the engine cannot tell.
    """
    engine = engines.get(observation.service.engine)
    situation = engine.assess(None, observation, settings, -math.inf)
    rates = window.values.get("qps")
    rate = float(np.nanmean(rates)) if rates is not None and np.isfinite(rates).any() else 0.0
    if not situation.identified or rate <= 0:
        return None
    ahead_s = max(0.0, (window.span.start_s + window.span.end_s) / 2 - observation.at_s)
    later = engine.by_then(situation, window, ahead_s, same_model=same_model)
    if later is None:
        return None
    later = replace(later, arrivals=_measured(rate))
    # What grows along a line from nothing has, over the whole stretch, the effect of its end over half of it.
    delay_s = max(0.0, ahead_s / 2 - settings.rate_window_s - settings.verify_window_s)
    stay = replace(engine.unchanged(observation, later), delay_s=delay_s)
    found = engine.predict([stay], observation, later, Knowledge(), settings)[0]
    signal = observation.promise.signal
    return th.UNHELPED * found.told(signal).value if signal in found.shown else None


def _measured(rate: float) -> Forecast:
    return Forecast(Interval(value=rate, low=(1 - th.RATE_ERROR) * rate, high=(1 + th.RATE_ERROR) * rate), "measured")
