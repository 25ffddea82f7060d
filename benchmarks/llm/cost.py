"""What predicting one option of a language model costs, in CPU time of this machine."""

from __future__ import annotations

import math
import time

from benchmarks.llm.loop import make_parts
from benchmarks.llm.scenarios import ONSET_S, draw
from benchmarks.simulated import START_S
from tuning.loop.observe import observe
from tuning.planning.engines import get
from tuning.planning.ports import Knowledge


def measure(count: int = 6) -> dict[str, object]:
    """CPU milliseconds per option over all options of some drawn services: mean and worst service."""
    engine, each = get("continuous_batching"), []
    for number in range(count):
        scenario = draw("dev", number)
        parts = make_parts(scenario, scenario.begin(number))
        observation = observe(parts, parts.services["simulated"], START_S + ONSET_S)
        settings = parts.settings.planning
        situation = engine.assess(None, observation, settings, -math.inf)
        options = engine.options(observation, situation)
        began = time.process_time()
        engine.predict(options, observation, situation, Knowledge(), settings)
        each.append(1e3 * (time.process_time() - began) / len(options))
    return {"cpu_ms_per_option": round(sum(each) / len(each), 1), "worst_service": round(max(each), 1)}
