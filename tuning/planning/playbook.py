"""The playbook: fixed rules that need no model.

It is the planner for services that export too little for the model, and the yardstick for the model on the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.model import Incident
from tuning.model import Observation, Plan, Record
from tuning.planning.rules import Rules
from tuning.planning.settings import PlanningSettings


class PlaybookPlanner:
    """Batch first, then replicas, then INT8, each only where it can help; else hold with the reason."""

    name = "playbook"

    def __init__(self, settings: PlanningSettings) -> None:
        self._rules = Rules(settings)

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        return self._rules.propose(incident, observation, past)
