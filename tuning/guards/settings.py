"""What must never happen: the section `safety` of services.yaml."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tuning.guards.freeze import parse_freeze, zone


class SafetySettings(BaseModel):
    """What must never happen."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dry_run: bool = False
    """Plan and report everything, change nothing, whatever the services' modes say."""

    cool_down_s: float = Field(600.0, ge=0)
    """Shortest time between two changes of one lever of one service (a lever's own cool_down goes first)."""

    changes_per_hour: int = Field(6, ge=0)
    """Most changes of one service within an hour; roll-backs are not counted and never held up."""

    changes_per_hour_total: int = Field(30, ge=0)
    """Most changes of all services together within an hour."""

    services_at_once: int = Field(3, ge=1)
    """How many services may have an unproven change at the same time."""

    freeze: tuple[str, ...] = ()
    """Times without changes: "Fri 18:00-Mon 08:00", "22:00-06:00" (every day), "Sat" or
    "2026-12-23 12:00/2027-01-04 08:00"."""

    timezone: str = "UTC"
    """Time zone of `freeze`, such as Europe/Berlin."""

    error_budget: float = Field(0.5, ge=0)
    """Share of failed requests at which a service is on fire: no lever is pulled, a person is asked."""

    stale_after_s: float = Field(180.0, gt=0)
    """P95 older than this is no ground for a change."""

    clock_tolerance_s: float = Field(30.0, gt=0)
    """How far the clock of the metrics source may differ from ours: beyond it, what was measured before a change cannot
    be told from what came after, so nothing is changed, nothing is judged, and a person is told."""

    stand_down_s: float = Field(86_400.0, ge=0)
    """Somebody else changed a knob: for this long slotune leaves the lever alone, then takes the value as given."""

    max_attempts: int = Field(3, ge=1)
    """Levers tried for one incident before a person is asked."""

    keep_free_changes: bool = True
    """A change that made no difference, costs nothing and harmed nothing may stay."""

    lease_s: float = Field(3600.0, gt=0)
    """How long a temporary change (one that costs money) lasts before it is tested for removal."""

    lease_renewals: int = Field(24, ge=0)
    """How often a lease whose load is still high is renewed before a person is asked."""

    revert_hysteresis: float = Field(0.15, ge=0, lt=1)
    """Load must be this share below what the old setting carried before a lease is handed back early."""

    revert_for_s: float = Field(600.0, ge=0)
    """The load must have been that low for this long."""

    replicas_per_step: int = Field(1, ge=1)
    """Replicas handed back at a time; each step is settled and looked at before the next. Where what was measured since
    the change says with room to spare that far fewer do, a step is larger: at most half of the replicas that serve."""

    in_flight_s: float = Field(120.0, ge=0)
    """How long a change without an answer may still land; before that an open intent is not closed as "not made"."""

    late_s: float = Field(900.0, ge=0)
    """For how long after its end a change that timed out, or was rolled back, is looked for: when it is in force after
    all, it is open again, and proven or undone."""

    control_timeout_s: float = Field(30.0, gt=0)
    """How long the calls of one change to its control endpoints may take together; putting back what was changed has
    the same time again. A lever's request_timeout is never longer. What a server does while one waits has limits of
    its own (load_timeout, rollout_timeout), and so has a Kubernetes API server that does not answer (30 s)."""

    stuck_after_s: float = Field(1800.0, gt=0)
    """A run that holds a change this much longer than settling, looks and roll-back take is no longer believed to be at
    work, even when Airflow calls it running: sweeps settle its change, and a person is told."""

    dead_task_s: float = Field(330.0, gt=0)
    """How long Airflow takes to notice that a task's process died and to run the task again: its [scheduler]
    task_instance_heartbeat_timeout (300 s), the check's interval, and the retry's delay. Part of the worst-case time
    to roll back."""

    hold_again_s: float = Field(600.0, ge=0)
    """An incident for which nothing could be done is looked at again this often while it is still firing."""

    passing_again_s: float = Field(60.0, ge=0)
    """The same for an incident that was expected to pass by itself, or whose SLO was met when it was looked at, and for
    one that has changed since (`hold_moved`): a rate window later there is something else to see."""

    hold_moved: float = Field(0.3, gt=0)
    """Share by which the load or the number of ready replicas must have risen or fallen since nothing could be done,
    for a look before `hold_again` is over; less comes and goes with any traffic."""

    approval_timeout_s: float = Field(1800.0, ge=60)
    """Mode approve: how long a person may take to answer; no answer in time means no change."""

    approvers: tuple[str, ...] = ()
    """Mode approve: who may answer, by the id that Airflow has of a person (its simple auth manager: the name of the
    user; FAB: the number); empty: whoever Airflow lets. Airflow takes the answer of nobody else, and a yes that comes
    another way changes nothing and is named in the report."""

    @field_validator("freeze")
    @classmethod
    def _freeze(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_freeze(text)
        return value

    @model_validator(mode="after")
    def _zone(self) -> Self:
        zone(self.timezone)
        return self
