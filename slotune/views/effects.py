"""What each lever achieved: how often it worked on which cause, and by how much P95 moved."""

from __future__ import annotations

from slotune.views.reading import Reading
from tuning.loop.coverage import of_levers, words
from tuning.report.review import EffectRow, effects_of


def effects(reading: Reading) -> list[EffectRow]:
    """One row per lever and cause over all that the ledger holds, the most used first."""
    past = reading.memory.past(reading.reader, reading.now_s)
    return reading.memory.of("effects", past, lambda: effects_of(past.tries.values()))


def of_service(reading: Reading, service: str) -> list[EffectRow]:
    """The same for one service: what its levers are ranked by."""
    past = reading.memory.past(reading.reader, reading.now_s)
    return effects_of(one for one in past.tries.values() if one.service == service)


def held_back(reading: Reading, service: str) -> list[str]:
    """Why slotune asks before it pulls a lever of a service that acts otherwise, a sentence each."""
    past, known = reading.memory.past(reading.reader, reading.now_s), reading.services[service]
    found = of_levers(one for one in past.tries.values() if one.service == service)
    acting = {name for name, lever in known.levers.items() if (lever.mode or known.mode) == "act"}
    return [f"{words(lever, one)}." for lever, one in sorted(found.items()) if one.asks and lever in acting]
