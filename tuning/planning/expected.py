"""What the loop keeps and asks between plans: the learned state, and the P95 expected at another load. Pure."""

from __future__ import annotations

from dataclasses import replace

from detection.model import MetricWindow
from tuning.model import Interval, Observation
from tuning.planning import latency_model as lm
from tuning.planning import options
from tuning.planning.forecast import Forecast
from tuning.planning.predict import Knowledge, predict
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import assess


def learn_state(observation: Observation, settings: PlanningSettings) -> dict[str, object]:
    """The latency models after this observation, to be kept and handed back as `Observation.latency_model`.

    For services WITHOUT an open incident: what an incident shows must not become what is normal. Points that were
    learned before are skipped, so overlapping windows do no harm.
    """
    return lm.dump(assess(None, observation, settings).learned)


def expected_p95_ms(
    observation: Observation, settings: PlanningSettings, window: MetricWindow | None = None
) -> float | None:
    """P95 that the model expects with the observation's setting at the load of `window` (default: its own).

    For load-adjusted verdicts: give the observation from before the change and the window after it. None where the
    model cannot tell, or the load is beyond the setting's capacity (then no steady P95 exists).
    """
    situation = assess(None, observation, settings)
    if window is not None:
        values = window.values.get("qps")
        finite = values[values == values] if values is not None else None
        if finite is None or not finite.size:
            return None
        rate = float(finite.mean())
        situation = replace(
            situation, arrivals=Forecast(Interval(value=rate, low=0.97 * rate, high=1.03 * rate), "measured")
        )
    if not situation.identified:
        return None
    situation = replace(situation, backlog=0.0)
    found = predict([options.unchanged(observation, situation)], observation, situation, Knowledge(), settings)[0]
    return found.p95_ms.value if found.load < 1.0 else None
