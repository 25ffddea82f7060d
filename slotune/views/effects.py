"""What each lever achieved: how often it worked on which cause, and by how much P95 moved."""

from __future__ import annotations

from slotune.views.reading import Reading
from tuning.report.review import EffectRow, effects_of


def effects(reading: Reading) -> list[EffectRow]:
    """One row per lever and cause over all that the ledger holds, the most used first."""
    past = reading.memory.past(reading.reader, reading.now_s)
    return reading.memory.of("effects", past, lambda: effects_of(past.tries.values()))
