"""What is known of each incident: real or not, and who or what says so."""

from __future__ import annotations

from slotune.views.reading import Reading
from slotune.views.spoken import spoken
from tuning.labels import Label, labelled


def labels(reading: Reading) -> list[Label]:
    """One per incident that slotune found, the newest first."""
    past, said = reading.memory.past(reading.reader, reading.now_s), spoken(reading)
    return reading.memory.of("labels", (past, said.labels), lambda: labelled(past, reversed(said.said)))
