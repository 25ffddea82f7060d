"""What to do about a change that was left open: pure, from the ledger's rows and the truth that was read back.

The sequence of one change, and what a crash leaves behind after each step:

    open_change(intent)     state "intended": perhaps made. Read the truth back
    apply                   state "intended", truth new
    update_change(made)     state "made": unproven
    settle, verify          a verify_p95 record
    roll_back intent        a roll_back intent record: the roll-back was decided, perhaps made
    apply the inverse       the same, truth old
    close                   nothing is open any more

"Never twice" holds because changes are absolute and the answer is made from the truth: a change that is there already
is not made again, and one that is gone is not undone again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.guards.facts import Unreadable
from tuning.knobs import same_knobs
from tuning.model import Change, Knob, OpenChange, Record, Setting

Action = Literal["verify", "undo", "finish", "close_unchanged", "stand_down", "wait"]
Found = Literal["old", "new", "mixed", "foreign", "unknown"]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What follows, and why.

    verify: the change is there and unproven: write what is missing (`update_change(..., "made")`), look at P95, decide.
    undo: apply `plan.inverse()` (after its roll_back intent is written), verify, close.
    finish: the system is as it should be, only rows are missing: write `closing` and close.
    close_unchanged: the change never landed: close. stand_down: the knob holds somebody else's value: close, leave it
    alone, tell a person. wait: ask again later.
    found: where the system stands.
    """

    action: Action
    reason: str
    found: Found


def reconcile(
    change: OpenChange,
    settings_now: Mapping[str, Setting | Unreadable],
    records: Sequence[Record],
    at_s: float,
    *,
    in_flight_s: float = 120.0,
    verify_after_s: float | None = None,
) -> Reconciliation:
    """records: those whose parent is this plan. in_flight_s: how long a change without an answer may still land.

    verify_after_s: how long after it was opened the change's own run is believed to be still at work: settle time and
    looks together (None: the plan's settle time and `in_flight_s`).
    """
    found, why = where(change, settings_now)
    if found == "unknown":
        return Reconciliation("wait", f"The truth cannot be read: {why}", found)
    undoing = any(record.kind == "roll_back" and record.parent_id == change.plan_id for record in records)
    age_s = at_s - change.opened_at_s
    if undoing:
        last_s = max(r.at_s for r in records if r.kind == "roll_back" and r.parent_id == change.plan_id)
        alive_s = change.plan.settle_s + in_flight_s if verify_after_s is None else verify_after_s
        return _undoing(found, why, at_s - last_s, in_flight_s, alive_s)
    if change.state == "leased":
        return _leased(found, why)
    if found == "foreign":
        return Reconciliation("stand_down", f"Somebody else changed it meanwhile: {why}", found)
    if found == "mixed":
        if age_s < in_flight_s:
            return Reconciliation("wait", f"Half of it is there, the rest may still land: {why}", found)
        return Reconciliation("undo", f"Only half of it was made, and half of a plan is no plan: {why}", found)
    if any(record.kind == "keep" and record.parent_id == change.plan_id for record in records):
        return Reconciliation("finish", "It was proven and kept; only its end was not written down.", found)
    if change.state == "intended":
        return _intended(found, age_s, in_flight_s)
    return _made(found, change, age_s, in_flight_s, verify_after_s)


def _undoing(found: Found, why: str, quiet_s: float, in_flight_s: float, alive_s: float) -> Reconciliation:
    """quiet_s: since the last word about this roll-back; its own run may still be at work."""
    if quiet_s < (alive_s if found == "old" else in_flight_s):
        return Reconciliation("wait", f"Its roll-back was at work {quiet_s:.0f} s ago.", found)
    if found == "old":
        return Reconciliation("finish", "The roll-back was made; only its end was not written down.", found)
    if found == "foreign":
        return Reconciliation("stand_down", f"A roll-back was begun, and somebody else changed it: {why}", found)
    return Reconciliation("undo", "A roll-back was decided and not finished.", found)


def _leased(found: Found, why: str) -> Reconciliation:
    if found == "old":
        return Reconciliation("finish", "The temporary change is gone already.", found)
    if found == "foreign":
        return Reconciliation("wait", f"On lease, partly handed back or moved by somebody: {why}", found)
    return Reconciliation("wait", "Proven, and on lease.", found)


def _intended(found: Found, age_s: float, in_flight_s: float) -> Reconciliation:
    if found == "new":
        return Reconciliation("verify", "The change landed, and nobody wrote that down: verify it.", found)
    if age_s < in_flight_s:
        return Reconciliation("wait", f"Not there yet; an answer may still be on its way ({age_s:.0f} s old).", found)
    return Reconciliation("close_unchanged", "It was intended, and the old setting is still in force.", found)


def _made(
    found: Found, change: OpenChange, age_s: float, in_flight_s: float, verify_after_s: float | None
) -> Reconciliation:
    if found == "old":
        return Reconciliation("stand_down", "It was made, and the old setting is back: slotune did not do that.", found)
    alive_s = change.plan.settle_s + in_flight_s if verify_after_s is None else verify_after_s
    if age_s < alive_s:
        return Reconciliation("wait", f"Made {age_s:.0f} s ago: it is settling.", found)
    return Reconciliation("verify", "Made and unproven, and its run is gone.", found)


def where(change: OpenChange, settings_now: Mapping[str, Setting | Unreadable]) -> tuple[Found, str]:
    """Where the system stands between the plan's old and new values, with the differing knobs in words."""
    places: set[Found] = set()
    words: list[str] = []
    for one in change.plan.chosen.changes:
        now = settings_now.get(one.lever)
        if now is None or isinstance(now, Unreadable):
            return "unknown", f"{one.lever}: {'it was not read' if now is None else now.reason}"
        places |= _places(one, now)
        words.append(f"{one.lever} is {', '.join(f'{k} {now.values.get(k)}' for k in one.new)}{_apart(one, now)}")
    if "foreign" in places:
        return "foreign", "; ".join(words)
    if len(places) > 1:
        return "mixed", "; ".join(words)
    return (places.pop() if places else "old"), "; ".join(words)


def _places(change: Change, now: Setting) -> set[Found]:
    """Where most replicas stand, and those that stand at the other end of the change.

    A single replica that shows neither value has restarted, and says nothing about the change.
    """
    others = {_place(change, values) for values in now.others.values()}
    return {_place(change, now.values), *(others - {"foreign"})}


def _apart(change: Change, now: Setting) -> str:
    shown = [f"{name} {', '.join(str(v.get(k)) for k in change.new)}" for name, v in sorted(now.others.items())]
    return f" (but {'; '.join(shown)})" if shown else ""


def _place(change: Change, values: Mapping[str, Knob]) -> Found:
    # New first: a plan whose old and new agree is there already.
    if same_knobs(change.new, values):
        return "new"
    return "old" if same_knobs(change.old, values) else "foreign"


def landed_late(
    change: OpenChange, closed_at_s: float, settings_now: Mapping[str, Setting | Unreadable], at_s: float, late_s: float
) -> bool:
    """Whether a change that was closed with its old setting in force is there after all: an answer that took longer
    than was waited for. late_s: for how long after its end a change may still land."""
    return at_s - closed_at_s <= late_s and where(change, settings_now)[0] in ("new", "mixed")
