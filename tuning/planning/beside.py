"""A planner with a second one beside it, whose choice is told and never made."""

from __future__ import annotations

from collections.abc import Sequence

from detection.errors import SlotuneError
from detection.model import Incident
from tuning.model import Change, Observation, Plan, Record
from tuning.ports import Planner


class Beside:
    """The plans of `planner`, each with what `watching` would have chosen in `Plan.beside`; all else is the first's."""

    def __init__(self, planner: Planner, watching: Planner) -> None:
        self.name = planner.name
        self._planner, self._watching = planner, watching

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        plan = self._planner.propose(incident, observation, past)
        return plan.model_copy(update={"beside": self._told(plan, incident, observation, past)})

    def spares(self, incident: Incident, observation: Observation, past: Sequence[Record], step: Change) -> str:
        return self._planner.spares(incident, observation, past, step)

    def _told(self, plan: Plan, incident: Incident, observation: Observation, past: Sequence[Record]) -> str:
        """One sentence. Whoever only watches stops nothing: what it cannot answer is said."""
        name = self._watching.name
        try:
            other = self._watching.propose(incident, observation, past).chosen
        except (SlotuneError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            return f"the learned policy {name} could not answer ({type(error).__name__})"
        if [change.new for change in other.changes] == [change.new for change in plan.chosen.changes]:
            return f"the learned policy {name} would have chosen the same: {other.text()}"
        return f"the learned policy {name} would have chosen {other.text()}"
