"""The P95 that the service's engine expects with the observed setting at another load, for load-adjusted verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

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

    Give the observation from before the change and the window after it. None where the engine cannot tell, or the
    load is beyond the setting's capacity (then no steady P95 exists).
    """
    engine = engines.get(observation.service.engine)
    situation = engine.assess(None, observation, settings, -math.inf)
    if window is not None:
        values = window.values.get("qps")
        finite = values[values == values] if values is not None else None
        if finite is None or not finite.size:
            return None
        rate = float(finite.mean())
        measured = Interval(value=rate, low=(1 - th.RATE_ERROR) * rate, high=(1 + th.RATE_ERROR) * rate)
        situation = replace(situation, arrivals=Forecast(measured, "measured"))
    if not situation.identified:
        return None
    situation = replace(situation, backlog=0.0)
    stay = engine.unchanged(observation, situation)
    found = engine.predict([stay], observation, situation, Knowledge(), settings)[0]
    return found.shown["p95_ms"].value if found.load < 1.0 and "p95_ms" in found.shown else None
