"""What stands between a plan and a change: small pure functions, each a Refusal with its reason, or None."""

from __future__ import annotations

from tuning.guards.checks import GUARDS, guard
from tuning.guards.facts import (
    GuardFacts,
    MadeChange,
    Truth,
    Unreadable,
    foreign_since,
    last_written,
    made_changes,
)
from tuning.guards.settings import SafetySettings
from tuning.guards.stop import Stop, effective_mode, stopped
from tuning.knobs import same_knobs

__all__ = [
    "GUARDS",
    "GuardFacts",
    "MadeChange",
    "SafetySettings",
    "Stop",
    "Truth",
    "Unreadable",
    "effective_mode",
    "foreign_since",
    "guard",
    "last_written",
    "made_changes",
    "same_knobs",
    "stopped",
]
