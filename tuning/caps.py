"""What is counted before a change is claimed: the limits, and what stands against them. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits of one claim, from services.yaml.

    services_at_once: services with an unproven change. changes_per_hour: of this service, and of all together
    (changes_per_hour_total). cool_down_s: by lever of the claim, since its last change on this service. again_s: after
    how long a claim that met a full house may ask again.
    """

    services_at_once: int
    changes_per_hour: int
    changes_per_hour_total: int
    cool_down_s: Mapping[str, float] = field(default_factory=dict)
    again_s: float = 600.0

    @property
    def memory_s(self) -> float:
        """How far back made changes matter."""
        return max([HOUR_S, *self.cool_down_s.values()])


@dataclass(frozen=True, slots=True)
class MadeChange:
    """A change of one lever that was really made, or was claimed and may be (roll-backs excluded)."""

    service: str
    lever: str
    at_s: float
    plan_id: str = ""


@dataclass(frozen=True, slots=True)
class Unproven:
    """A claimed change whose verdict is not known yet. what: in words."""

    plan_id: str
    service: str
    levers: tuple[str, ...]
    at_s: float
    what: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts against the caps now: of ALL services."""

    unproven: Sequence[Unproven] = ()
    made: Sequence[MadeChange] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks: a plan, for these levers of a service, at this time."""

    plan_id: str
    service: str
    levers: tuple[str, ...]
    at_s: float
