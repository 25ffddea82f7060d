"""Planners: from an incident and what was observed to one plan with everything that was weighed.

A planner is a class with `propose`; the registry below is sorted by name. The other modules are what planners share.
"""

from __future__ import annotations

from collections.abc import Callable

from detection.errors import ConfigError
from tuning.planning import engines
from tuning.planning.model_planner import ModelPlanner
from tuning.planning.playbook import PlaybookPlanner
from tuning.planning.settings import PlanningSettings
from tuning.ports import Planner

REGISTRY: dict[str, Callable[[PlanningSettings], Planner]] = {
    "model": lambda settings: ModelPlanner(settings, engines.REGISTRY),
    "playbook": lambda settings: PlaybookPlanner(settings, engines.REGISTRY),
}


def get(name: str) -> Callable[[PlanningSettings], Planner]:
    """The factory of a planner; ConfigError with the known names for any other."""
    try:
        return REGISTRY[name]
    except KeyError:
        known = ", ".join(sorted(REGISTRY))
        raise ConfigError(f"no planner is called {name!r}; known are: {known}") from None
