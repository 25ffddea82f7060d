"""Is the loop itself well: when did it last look, what can it not see, what waits to be finished or said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slotune.views.channels import ChannelRow, channels
from slotune.views.latest import latest
from slotune.views.reading import Reading
from tuning.ledger.lines import OpenLine
from tuning.loop.examples import STATE, stands
from tuning.policies.trouble import HALTED, TROUBLE, Trouble, stored

MISSED = 3.0
"""Sweeps that have to be missing before the loop is called dead; the rule that pages people waits as long."""


@dataclass(frozen=True)
class Health:
    """swept_s: the last sweep. every_s: how often there should be one. unreadable: service -> why. silent: no series.

    unsent: messages that a channel was tried with and has not taken yet, on the channel with the most of them.
    unproven: changes intended or made. overdue: leases past their end.
    problems: the same as sentences, worst first; () when all is well. learning: what labels taught, or what is missing.
    """

    swept_s: float | None
    every_s: float
    unreadable: Mapping[str, str]
    silent: tuple[str, ...]
    unsent: int
    unproven: int
    overdue: tuple[str, ...]
    problems: tuple[str, ...]
    channels: tuple[ChannelRow, ...] = ()
    learning: str = ""

    @property
    def alive(self) -> bool:
        return self.swept_s is not None and not any(problem.startswith("No sweep") for problem in self.problems)


def health(reading: Reading) -> Health:
    """The loop's state at `reading.now_s`."""
    seen, every_s = latest(reading), reading.settings.schedule.watch_every_s
    seen_of = set(seen.services) | set(seen.unreadable) | seen.asleep
    silent = tuple(sorted(set(reading.services) - seen_of)) if seen.at_s else ()
    told, lines = reading.memory.of_ledger("waiting", reading.reader, reading.now_s, lambda: _waiting(reading))
    unsent = max((channel.failing for channel in told), default=0)
    unproven = sum(line.state != "leased" for line in lines)
    leased = [line for line in lines if line.state == "leased" and line.expires_at_s is not None]
    overdue = tuple(sorted(ln.service for ln in leased if (ln.expires_at_s or 0.0) + every_s < reading.now_s))
    problems = (
        *_sweep_problem(seen.at_s, every_s, reading.now_s),
        *(f"{trouble.reason}." for trouble in _halted(reading)),
        *(f"{name} cannot be read: {why}" for name, why in sorted(seen.unreadable.items())),
        *((f"No series of {', '.join(silent[:10])}: check the selectors.",) if silent else ()),
        *((f"The lease of {', '.join(overdue[:10])} is over and not handed back.",) if overdue else ()),
        *(f"{row.failing} messages wait for channel {row.name}: {row.why}" for row in told if row.failing),
        *(f"{row.given_up} messages were given up on channel {row.name}: {row.why}" for row in told if row.given_up),
    )
    learning = stands(reading.blob(STATE), reading.settings.detection)
    return Health(seen.at_s, every_s, seen.unreadable, silent, unsent, unproven, overdue, problems, told, learning)


def _waiting(reading: Reading) -> tuple[tuple[ChannelRow, ...], Sequence[OpenLine]]:
    """(how telling people goes, open changes)."""
    return tuple(channels(reading)), reading.reader.open_lines()


def _sweep_problem(at_s: float | None, every_s: float, now_s: float) -> tuple[str, ...]:
    if at_s is None:
        return ("No sweep has been recorded yet: is the DAG watch_services switched on?",)
    age_s = now_s - at_s
    if age_s <= MISSED * every_s:
        return ()
    every = f"{every_s:.0f} seconds" if every_s < 120 else f"{every_s / 60:.3g} minutes"
    wanted = f"there should be one every {every}"
    return (f"No sweep for {age_s / 60:.0f} minutes, and {wanted}: see the DAG watch_services.",)


def _halted(reading: Reading) -> list[Trouble]:
    """What keeps runs from doing anything about incidents, as the last sweep found it."""
    return [trouble for trouble in stored(reading.blob(TROUBLE)) if trouble.key == HALTED]
