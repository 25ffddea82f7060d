"""What a rehearsal found, as values: every incident, and the minutes over the SLO with slotune and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detection.model import FloatArray

How = Literal["cured", "eased", "not cured", "under way", "held", "passed", "cannot tell"]
AROUND_S = 600.0
"""So much before and after an incident is kept for its timeline."""
HOW: dict[How, str] = {
    "cured": "a change brought P95 under its SLO, and it stayed",
    "eased": "a change helped and was kept, and P95 stayed over its SLO",
    "not cured": "what was tried did not help and was undone",
    "under way": "a change was made, and the history ended before its verdict",
    "held": "nothing was changed, with the reason",
    "passed": "it was over before anything was decided",
    "cannot tell": "the model explains this part of the history badly",
}


@dataclass(frozen=True)
class Amount:
    """A figure with its 90 % interval. modelled: share of it that is modelled, 0..1; the rest was measured."""

    value: float
    low: float
    high: float
    modelled: float = 0.0


@dataclass(frozen=True)
class Happened:
    """One step of an incident. at_s: epoch seconds."""

    at_s: float
    what: str


@dataclass(frozen=True)
class Incident:
    """One act-tier incident as the loop saw it in the rehearsal.

    start_s, end_s: the stretch that its minutes are counted in. off: how far the modelled P95 of the recorded setting
    is from the measured one (0.1: 10 %), None where nothing was modelled. recorded_min: minutes over the SLO as
    recorded; rehearsed_min: with slotune. not_lent: levers of the service that a rehearsal cannot lend and that might
    have helped here, where what could be lent did not cure it.
    """

    id: str
    service: str
    symptom: str
    cause: str
    start_s: float
    end_s: float
    how: How
    reason: str
    changes: tuple[str, ...]
    steps: tuple[Happened, ...]
    off: float | None
    recorded_min: float
    rehearsed_min: Amount
    not_lent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """Something that was set, as the caps over all services count it. at_s: when. proven_s: until when it was unproven
    (`at_s` for what undoes a change). levers: how many. proves: whether it waits for a proof."""

    at_s: float
    proven_s: float
    levers: int
    proves: bool


@dataclass(frozen=True)
class Rival:
    """What somebody else would have done with the same history. minutes over the SLO; replica_hours in all."""

    name: str
    minutes: float
    replica_hours: float
    cost: float
    changes: int


@dataclass(frozen=True)
class Curves:
    """For the timelines, shape (n,) each, the points around incidents. replicas: recorded, rehearsed. modelled: where
    numbers are."""

    times: FloatArray
    recorded_ms: FloatArray
    rehearsed_ms: FloatArray
    recorded_replicas: FloatArray
    rehearsed_replicas: FloatArray
    modelled: FloatArray


@dataclass(frozen=True)
class ServiceResult:
    """One service. minutes: over the SLO with slotune. quiet_days: days without trouble as recorded; quiet_changes:
    changes made on them. made: what the caps of all services count. replica_hours_added, cost_added: against the
    recorded replicas. modelled: share of the points.
    """

    service: str
    slo_ms: float
    start_s: float
    end_s: float
    incidents: tuple[Incident, ...]
    recorded_min: float
    minutes: Amount
    changes: int
    undone: int
    days: int
    quiet_days: int
    quiet_changes: int
    replica_hours_added: float
    cost_added: float
    modelled: float
    rivals: tuple[Rival, ...]
    notes: tuple[str, ...]
    made: tuple[Made, ...]
    curves: Curves

    @property
    def saved(self) -> Amount:
        """Minutes over the SLO that slotune would have saved."""
        m = self.minutes
        return Amount(self.recorded_min - m.value, self.recorded_min - m.high, self.recorded_min - m.low, m.modelled)


@dataclass(frozen=True)
class Rehearsal:
    """The whole. left_out: services that could not be rehearsed, with the reason. label: of the configuration."""

    label: str
    days: float
    services: tuple[ServiceResult, ...]
    left_out: tuple[str, ...]

    @property
    def incidents(self) -> tuple[Incident, ...]:
        found = [incident for service in self.services for incident in service.incidents]
        return tuple(sorted(found, key=lambda incident: (incident.start_s, incident.service)))

    def count(self, how: How) -> int:
        return sum(incident.how == how for incident in self.incidents)

    @property
    def saved(self) -> Amount:
        """Over all services: their deviations are taken for independent."""
        parts = [service.saved for service in self.services]
        value = sum(part.value for part in parts)
        below = sum((part.value - part.low) ** 2 for part in parts) ** 0.5
        above = sum((part.high - part.value) ** 2 for part in parts) ** 0.5
        weight = sum(abs(part.value) for part in parts)
        modelled = sum(part.modelled * abs(part.value) for part in parts) / weight if weight else 0.0
        return Amount(value, value - below, value + above, modelled)
