"""Planners: from an incident and what was observed to one plan with everything that was weighed.

A planner is a class with `propose`; the registry below is sorted by name. The other modules are what planners share.
"""

from __future__ import annotations

from collections.abc import Callable

from detection.errors import ConfigError
from tuning.planning import engines
from tuning.planning.beside import Beside
from tuning.planning.evolved import EvolvedPlanner
from tuning.planning.model_planner import ModelPlanner
from tuning.planning.playbook import PlaybookPlanner
from tuning.planning.ppo import PpoPlanner
from tuning.planning.settings import PlanningSettings
from tuning.ports import Planner

REGISTRY: dict[str, Callable[[PlanningSettings], Planner]] = {
    "evolved": lambda settings: EvolvedPlanner(settings, engines.REGISTRY),
    "model": lambda settings: ModelPlanner(settings, engines.REGISTRY),
    "playbook": lambda settings: PlaybookPlanner(settings, engines.REGISTRY),
    "ppo": lambda settings: PpoPlanner(settings, engines.REGISTRY),
}

LEARNED = ("evolved", "ppo")
"""Those that only watch: what they choose is told beside a plan, and never made."""
ACTING = tuple(name for name in REGISTRY if name not in LEARNED)


def get(name: str) -> Callable[[PlanningSettings], Planner]:
    """The factory of a planner; ConfigError with the known names for any other."""
    try:
        return REGISTRY[name]
    except KeyError:
        known = ", ".join(sorted(REGISTRY))
        raise ConfigError(f"no planner is called {name!r}; known are: {known}") from None


def chosen(settings: PlanningSettings) -> Planner:
    """The planner that the settings name, with the learned one beside it that they name.

    ConfigError for an unknown name, for a learned planner in the place of one that acts, and for bad weights.
    """
    if settings.planner in LEARNED:
        raise ConfigError(
            f"the planner {settings.planner} only watches: name one of {', '.join(ACTING)} as planning.planner, and "
            f"{settings.planner} as planning.beside"
        )
    planner = get(settings.planner)(settings)
    if not settings.beside:
        return planner
    if settings.beside not in LEARNED:
        raise ConfigError(f"planning.beside: no learned planner is called {settings.beside!r}; known are: "
                          f"{', '.join(LEARNED)}")  # fmt: skip
    return Beside(planner, get(settings.beside)(settings))
