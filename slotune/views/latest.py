"""The newest numbers of every service, as the last sweep left them (tuning.loop.window_store.digest)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from slotune.views.reading import Reading
from tuning.loop.window_store import DIGEST


@dataclass(frozen=True)
class Numbers:
    """values: the newest number by signal; absent where there is none. trend: P95 in ms over the look-back, thinned to
    a few dozen points; None is a gap. percentile_source: what the percentiles rest on."""

    values: Mapping[str, float] = field(default_factory=dict)
    trend: tuple[float | None, ...] = ()
    percentile_source: str = "none"


@dataclass(frozen=True)
class Latest:
    """at_s: the time of the sweep; None before the first. unreadable: why a service could not be read.

    asleep: services that are scaled to zero on purpose.
    """

    at_s: float | None = None
    services: Mapping[str, Numbers] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    asleep: frozenset[str] = frozenset()


def latest(reading: Reading) -> Latest:
    """The newest sweep's numbers; nothing where there was no sweep, or where what it left cannot be read."""
    data = reading.blob(DIGEST)
    return reading.memory.of("latest", data, lambda: _latest(data))


def _latest(data: bytes | None) -> Latest:
    try:
        body = json.loads(data) if data else {}
        services = {
            name: Numbers(one["values"], tuple(one["trend"]), one["percentile_source"])
            for name, one in body.get("services", {}).items()
        }
        asleep = frozenset(body.get("asleep", ()))
        return Latest(body.get("at_s"), services, body.get("unreadable", {}), asleep)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Latest()
