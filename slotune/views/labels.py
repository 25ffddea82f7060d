"""What labels of incidents taught about a service: every step of its alarms' strictness, and why."""

from __future__ import annotations

from slotune.views.reading import Reading
from tuning.loop.adapt import STRICTNESS, steps_of
from tuning.policies.strictness import Step
from tuning.query import Query


def steps(reading: Reading, service: str) -> list[Step]:
    """The steps of a service, the newest first."""
    found = reading.reader.find(Query(kinds=(STRICTNESS,), services=(service,), order="written"))
    return steps_of(found).get(service, [])[::-1]
