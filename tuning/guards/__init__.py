"""What stands between a plan and a change: small pure functions, each a Refusal with its reason, or None."""

from __future__ import annotations

from tuning.caps import MadeChange, Standing
from tuning.guards.caps import CAPS, capped, caps_of, claim_of, standing_of
from tuning.guards.checks import GUARDS, guard
from tuning.guards.clock import clocks_apart
from tuning.guards.facts import GuardFacts, Truth, Unreadable, foreign_since, last_written, taken_away
from tuning.guards.settings import SafetySettings
from tuning.guards.stop import Stop, effective_mode, stopped
from tuning.knobs import same_knobs

__all__ = [
    "CAPS",
    "GUARDS",
    "GuardFacts",
    "MadeChange",
    "SafetySettings",
    "Standing",
    "Stop",
    "Truth",
    "Unreadable",
    "capped",
    "caps_of",
    "claim_of",
    "clocks_apart",
    "effective_mode",
    "foreign_since",
    "guard",
    "last_written",
    "same_knobs",
    "standing_of",
    "stopped",
    "taken_away",
]
