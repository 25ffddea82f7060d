"""What guards look at, and how it is read out of the ledger's records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from detection.model import Service
from tuning.caps import Standing
from tuning.guards.settings import SafetySettings
from tuning.model import Knob, Record, Setting
from tuning.orders import Order


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A lever whose truth could not be read; `reason` is a sentence."""

    reason: str


Truth = Mapping[str, Setting | Unreadable]
"""What was read, by lever. A lever that is missing was not asked for."""


@dataclass(frozen=True)
class GuardFacts:
    """Everything that a guard may look at.

    standing: what counts against the caps, of ALL services. last_written: what slotune wrote last, by lever, of this
    service, and taken_away: what stood there before. foreign_since_s: when slotune first saw that somebody else had
    changed a lever. stale_s: age of the newest P95 sample (None: there is none). error_rate: None when not exported.
    clock_skew_s: the source's clock minus ours (None: unknown). approved: a person said yes (or will be asked right
    after these guards). orders: what people said about this service.
    """

    at_s: float
    service: Service
    safety: SafetySettings
    settings_now: Truth = field(default_factory=dict)
    standing: Standing = field(default_factory=Standing)
    last_written: Mapping[str, Mapping[str, Knob]] = field(default_factory=dict)
    taken_away: Mapping[str, Mapping[str, Knob]] = field(default_factory=dict)
    foreign_since_s: Mapping[str, float] = field(default_factory=dict)
    stale_s: float | None = 0.0
    error_rate: float | None = None
    clock_skew_s: float | None = None
    approved: bool = False
    orders: tuple[Order, ...] = ()


def last_written(records: Iterable[Record], service: str) -> dict[str, dict[str, Knob]]:
    """What the newest receipt of each lever left behind: of changes and of roll-backs.

    records: newest written first. What slotune did last is what it wrote last, whatever its clock said.
    """
    return _newest(records, service, "after")


def taken_away(records: Iterable[Record], service: str) -> dict[str, dict[str, Knob]]:
    """What stood there before the newest receipt of each lever, in the same order."""
    return _newest(records, service, "before")


def _newest(records: Iterable[Record], service: str, side: str) -> dict[str, dict[str, Knob]]:
    found: dict[str, dict[str, Knob]] = {}
    for record in records:
        lever, knobs = record.body.get("lever"), record.body.get(side)
        if record.service != service or record.phase != "result" or not isinstance(lever, str):
            continue
        if not isinstance(knobs, dict) or not record.body.get("applied"):
            continue
        found.setdefault(lever, knobs)
    return found


def foreign_since(records: Iterable[Record], service: str) -> dict[str, float]:
    """When the ownership guard first refused each lever since slotune last wrote it."""
    written: dict[str, float] = {}
    seen: dict[str, list[float]] = {}
    for record in records:
        if record.service != service:
            continue
        lever = record.body.get("lever")
        if record.phase == "result" and isinstance(lever, str) and record.body.get("applied"):
            written[lever] = max(record.at_s, written.get(lever, record.at_s))
        if record.kind == "guard" and str(record.body.get("guard", "")).startswith("ownership:"):
            seen.setdefault(str(record.body["guard"]).removeprefix("ownership:"), []).append(record.at_s)
    first = {lever: [at for at in times if at > written.get(lever, float("-inf"))] for lever, times in seen.items()}
    return {lever: min(times) for lever, times in first.items() if times}
