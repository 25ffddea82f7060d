"""Where services that were rehearsed apart would have got into each other's way: the caps over all services. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slotune.rehearsal.result import Made
from tuning.guards.settings import SafetySettings

_HOUR_S = 3600.0


def crowded(made: Mapping[str, Sequence[Made]], safety: SafetySettings) -> list[frozenset[str]]:
    """The services that meet at each change that a cap over all services would have refused.

    A change alone is never refused here: what one service is allowed was asked for where it was rehearsed.
    """
    everyone = sorted(((one.at_s, name, one) for name, several in made.items() for one in several), key=lambda m: m[:2])
    found = []
    for place, (at_s, name, one) in enumerate(everyone):
        if not one.proves:
            continue
        before = everyone[:place]
        busy = {other for _, other, m in before if other != name and m.proves and m.proven_s > at_s}
        recent = [(other, m.levers) for when_s, other, m in before if at_s - when_s < _HOUR_S]
        many = sum(levers for _, levers in recent) + one.levers > safety.changes_per_hour_total
        meet = busy if len(busy) >= safety.services_at_once else set()
        meet = meet | ({other for other, _ in recent} if many else set())
        if meet - {name}:
            found.append(frozenset({name, *meet}))
    return found


def merged(companies: Sequence[frozenset[str]], meeting: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """Companies of services, with those in one that meet."""
    found = list(companies)
    for group in meeting:
        touched = [one for one in found if one & group]
        found = [one for one in found if not one & group] + [frozenset().union(*touched)]
    return sorted(found, key=sorted)
