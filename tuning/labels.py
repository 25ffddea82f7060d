"""Whether an incident was a real problem: what people said of it, and what its own end says where nobody did.

A person's word is a strong label; how an incident ended is a weak one. Pure, of the past's fold and of people's orders:
reviews count false alarms by it, and the re-ranker of detection learns from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.orders import Order
from tuning.past import Case, Past, Try

By = Literal["label", "change", "cause", "alone", "open", "idle"]
WHY: dict[By, str] = {
    "label": "a person said so",
    "change": "a change was made for it",
    "cause": "a cause was found that no lever cures",
    "alone": "it closed by itself, though slotune was allowed to act",
    "open": "it is still open",
    "idle": "nothing was allowed to be changed",
}


@dataclass(frozen=True)
class Alarm:
    """Whether an incident was a false alarm. by: what says so; open and idle say nothing (false is then False)."""

    false: bool
    by: By

    @property
    def known(self) -> bool:
        return self.by not in ("open", "idle")


@dataclass(frozen=True)
class Label:
    """What is known of one incident. said: every word of people about it, oldest first; the newest counts."""

    incident_id: str
    service: str
    symptom: str
    tier: str
    opened_at_s: float
    detected_at_s: float
    alarm: Alarm
    said: tuple[Order, ...]

    @property
    def label(self) -> Literal["real", "not_real", ""]:
        """"" where nobody knows."""
        if not self.alarm.known:
            return ""
        return "not_real" if self.alarm.false else "real"

    @property
    def strength(self) -> Literal["strong", "weak", ""]:
        """A person's word is strong, what follows from an incident's end is weak."""
        if not self.alarm.known:
            return ""
        return "strong" if self.alarm.by == "label" else "weak"

    @property
    def disputed(self) -> bool:
        """Whether people said both."""
        return len({given.label for given in self.said}) > 1


def judged_alarm(case: Case, tries: Sequence[Try], label: str) -> Alarm:
    """A person's word goes first. Without one an incident was real when a change was made for it or a cause was found
    that no lever cures; a false alarm when it closed by itself though slotune was allowed to act; else nobody knows."""
    if label:
        return Alarm(label == "not_real", "label")
    if any(one.made or (one.verdict is not None and one.verdict.solved) for one in tries):
        return Alarm(False, "change")
    if any(not one.curable for one in tries):
        return Alarm(False, "cause")
    if case.closed_at_s is None:
        return Alarm(False, "open")
    if any(one.mode == "observe" or one.dry_run or one.refused for one in tries):
        return Alarm(False, "idle")
    return Alarm(True, "alone")


def said_of(orders: Iterable[Order]) -> dict[str, list[Order]]:
    """People's words by incident, in the order in which they were given."""
    found: dict[str, list[Order]] = defaultdict(list)
    for given in orders:
        if given.what == "label" and given.about and given.label:
            found[given.about].append(given)
    return found


def labelled(past: Past, orders: Iterable[Order]) -> list[Label]:
    """One per incident that slotune found by itself, the newest first. orders: oldest first.

    A warning starts no attempt, so that its end says nothing: only a person's word labels it.
    """
    said, tries = said_of(orders), past.tries_of()
    found = []
    for case in past.incidents.values():
        if case.symptom == "by_hand":
            continue
        words = said.get(case.id, [])
        alarm = judged_alarm(case, tries.get(case.id, []), words[-1].label if words else "")
        if case.tier != "act" and not words:
            alarm = Alarm(False, "open" if case.closed_at_s is None else "idle")
        seen_s = case.opened_at_s if case.detected_at_s is None else case.detected_at_s
        found.append(
            Label(case.id, case.service, case.symptom, case.tier, case.opened_at_s, seen_s, alarm, tuple(words))
        )
    return sorted(found, key=lambda one: (-one.detected_at_s, one.incident_id))
