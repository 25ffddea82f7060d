"""The learned planner `ppo`: a network of two hidden layers, trained by proximal policy optimisation."""

from __future__ import annotations

from tuning.planning.learned import LearnedPlanner


class PpoPlanner(LearnedPlanner):
    """Rates every move with what a network learned from its own trials; watches only."""

    name = "ppo"
