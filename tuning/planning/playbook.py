"""The playbook: fixed rules that need no model.

It is the planner for services that export too little for the model, and the yardstick for the model on the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from detection.model import Incident
from tuning.model import Change, Observation, Option, Plan, Record
from tuning.planning import explain
from tuning.planning.breaking import LEVER as BREAKER
from tuning.planning.breaking import cut, lease_s
from tuning.planning.diagnosis import diagnose
from tuning.planning.objectives import broken
from tuning.planning.ports import Engine
from tuning.planning.restarting import cure
from tuning.planning.reverting import way_back
from tuning.planning.rules import Rules
from tuning.planning.settings import PlanningSettings


class PlaybookPlanner:
    """Batch first, then replicas, then INT8, each only where it can help; else hold with the reason."""

    name = "playbook"

    def __init__(self, settings: PlanningSettings, engines: Mapping[str, Engine[Any]]) -> None:
        self._settings, self._engines = settings, engines
        self._rules = Rules(settings)

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        if observation.service.kind == "training":
            return self._rules.watched(incident, observation)
        observation = replace(observation, objective=broken(incident, observation, self._settings))
        engine = self._engines[observation.service.engine]
        situation = engine.assess(incident, observation, self._settings, -math.inf)
        diagnosis = diagnose(incident, observation, situation, self._settings)
        back = way_back(incident, observation, diagnosis, past)
        if back is not None:
            return self._rules.plan(incident, observation, situation.now, diagnosis, *back)
        healed = cure(incident, observation, diagnosis, past, self._settings, situation.now.busy)
        if healed is not None:
            return self._rules.plan(incident, observation, situation.now, diagnosis, *healed)
        if (out := cut(incident, observation, past, self._settings)) is not None:
            plan = self._rules.plan(incident, observation, situation.now, diagnosis, *out)
            leased = lease_s(observation.service.levers.get(BREAKER)) if plan.chosen.changes else None
            return plan.model_copy(update={"lease_s": leased})
        plan = self._rules.propose(incident, observation, situation.now, diagnosis, past)
        if engine.rules_apply or not plan.chosen.changes:
            return plan
        reason = f"hold: {explain.unpredictable(diagnosis, observation.promise.signal)}"
        hold = Option(changes=(), reason=reason)
        return plan.model_copy(update={"chosen": hold, "reason": reason, "lease_s": None, "revert_below_qps": None})

    def spares(self, incident: Incident, observation: Observation, past: Sequence[Record], step: Change) -> str:
        """Never: rules without a prediction know no number of replicas that is enough. The lease's own end does."""
        return ""
