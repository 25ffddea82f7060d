"""The learned planner `evolved`: a linear score for every move, found by an evolution strategy."""

from __future__ import annotations

from tuning.planning.learned import LearnedPlanner


class EvolvedPlanner(LearnedPlanner):
    """Rates every move with weights that were bred, not derived; watches only."""

    name = "evolved"
