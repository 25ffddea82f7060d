"""Which promise is broken: a plan is about one, and is proven on it; the others are watched beside it."""

from __future__ import annotations

from detection.model import Incident, Objective
from tuning.model import Observation
from tuning.planning.reading import level, recent_s
from tuning.planning.settings import PlanningSettings


def broken(incident: Incident | None, observation: Observation, settings: PlanningSettings) -> Objective:
    """The promise that is missed by the largest factor now; where none is, the first that the incident names, and the
    service's first where it names none."""
    promised = observation.service.slo.objectives
    within_s = recent_s(observation, settings)
    over = []
    for one in promised:
        value = level(observation.window, one.signal, within_s)
        if value is not None and value > one.limit_ms:
            over.append((value / one.limit_ms, one))
    if over:
        return max(over, key=lambda pair: pair[0])[1]
    named = incident.signals if incident is not None else ()
    return next((one for one in promised if one.signal in named), promised[0])
