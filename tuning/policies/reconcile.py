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
from typing import Literal, NamedTuple

from detection.model import make_id
from tuning.guards.facts import Unreadable
from tuning.knobs import same_knobs
from tuning.model import Change, Knob, OpenChange, Record, Setting
from tuning.policies.tables import ANY, table

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


class Rule(NamedTuple):
    """wait: how long after the last word the action has to wait, as long as the change's own run may be at work ("run")
    or an answer may be on its way ("answer"); "": not at all. {where} in a reason: what was found."""

    action: Action
    reason: str
    wait: Literal["", "answer", "run"] = ""


_STATES = ("intended", "made", "leased")
_FATES = ("open", "kept", "undoing")
_FOUND = ("old", "new", "mixed", "foreign", "unknown")
_UNPROVEN = frozenset({"intended", "made"})
_NOT_UNDOING = frozenset({"open", "kept"})
# (state of the change, what was decided about it, where the system stands)
RULES = table(
    (_STATES, _FATES, _FOUND),
    [
        ((ANY, ANY, "unknown"), Rule("wait", "The truth cannot be read: {where}")),
        ((ANY, "undoing", "old"), Rule("finish", "The roll-back was made; only its end was not written down.", "run")),
        (
            (ANY, "undoing", frozenset({"new", "mixed"})),
            Rule("undo", "A roll-back was decided and not finished.", "answer"),
        ),
        (
            (ANY, "undoing", "foreign"),
            Rule("stand_down", "A roll-back was begun, and somebody else changed it: {where}", "answer"),
        ),
        ((_UNPROVEN, _NOT_UNDOING, "foreign"), Rule("stand_down", "Somebody else changed it meanwhile: {where}")),
        (
            (_UNPROVEN, _NOT_UNDOING, "mixed"),
            Rule("undo", "Only half of it was made, and half of a plan is no plan: {where}", "answer"),
        ),
        ((_UNPROVEN, "kept", "new"), Rule("finish", "It was proven and kept; only its end was not written down.")),
        (
            (_UNPROVEN, "kept", "old"),
            Rule("stand_down", "It was proven, and the old setting is back: slotune did not do that."),
        ),
        (("intended", "open", "new"), Rule("verify", "The change landed, and nobody wrote that down: verify it.")),
        (
            ("intended", "open", "old"),
            Rule("close_unchanged", "It was intended, and the old setting is still in force.", "answer"),
        ),
        (
            ("made", "open", "old"),
            Rule("stand_down", "It was made, and the old setting is back: slotune did not do that."),
        ),
        (("made", "open", "new"), Rule("verify", "Made and unproven, and its run is gone.", "run")),
        (("leased", _NOT_UNDOING, "old"), Rule("finish", "The temporary change is gone already.")),
        (("leased", _NOT_UNDOING, "new"), Rule("wait", "Proven, and on lease.")),
        (
            ("leased", _NOT_UNDOING, frozenset({"mixed", "foreign"})),
            Rule("wait", "On lease, partly handed back or moved by somebody: {where}"),
        ),
    ],
)
_CLOCK_BACK_S = 60.0
"""A last word that lies further than this in the future was spoken before the clock stepped back."""


def reconcile(
    change: OpenChange,
    settings_now: Mapping[str, Setting | Unreadable],
    records: Sequence[Record],
    at_s: float,
    *,
    in_flight_s: float = 120.0,
    verify_after_s: float | None = None,
) -> Reconciliation:
    """records: those whose parent is this plan, or the plan that undoes it. in_flight_s: how long a change without an
    answer may still land.

    verify_after_s: how long after the last word the change's own run is believed to be still at work: settle time and
    looks together (None: the plan's settle time and `in_flight_s`).
    """
    mine = [record for record in records if record.parent_id == change.plan_id]
    back = [record for record in records if record.parent_id == make_id(change.plan_id, "inverse")]
    found, why = where(change, settings_now, left_by([*mine, *back]))
    rolled = [record.at_s for record in mine if record.kind == "roll_back"]
    kept = any(record.kind == "keep" for record in mine)
    rule = RULES[change.state, "undoing" if rolled else "kept" if kept else "open", found]
    age_s = at_s - max(rolled, default=change.opened_at_s)
    run_s = change.plan.settle_s + in_flight_s if verify_after_s is None else verify_after_s
    wait_s = {"": 0.0, "answer": in_flight_s, "run": run_s}[rule.wait]
    if rule.wait and -_CLOCK_BACK_S <= age_s < wait_s:
        return Reconciliation(
            "wait", f"The last word is {max(age_s, 0.0):.0f} s old; it may still be at work: {why}", found
        )
    return Reconciliation(rule.action, rule.reason.format(where=why), found)


def left_by(records: Sequence[Record]) -> dict[str, dict[str, Knob]]:
    """What the newest receipt of each lever left behind. An endpoint that makes another value of a change, or of the
    way back, has made a change of ours all the same."""
    found: dict[str, tuple[float, dict[str, Knob]]] = {}
    for record in records:
        lever, after = record.body.get("lever"), record.body.get("after")
        if record.phase != "result" or not isinstance(lever, str):
            continue
        applied, changed = record.body.get("applied"), record.body.get("changed")
        moved = changed and not applied if record.kind == "roll_back" else applied or changed
        if isinstance(after, dict) and moved and (lever not in found or record.at_s >= found[lever][0]):
            found[lever] = (record.at_s, after)
    return {lever: knobs for lever, (_, knobs) in found.items()}


def where(
    change: OpenChange,
    settings_now: Mapping[str, Setting | Unreadable],
    left: Mapping[str, Mapping[str, Knob]] | None = None,
) -> tuple[Found, str]:
    """Where the system stands between the plan's old and new values, with the differing knobs in words.

    left: what receipts say was left behind, by lever; where it is neither old nor new, it counts as new.
    """
    places: set[Found] = set()
    words: list[str] = []
    for one in change.plan.chosen.changes:
        now = settings_now.get(one.lever)
        if now is None or isinstance(now, Unreadable):
            return "unknown", f"{one.lever}: {'it was not read' if now is None else now.reason}"
        places |= _places(one, now, (left or {}).get(one.lever))
        words.append(f"{one.lever} is {', '.join(f'{k} {now.values.get(k)}' for k in one.new)}{_apart(one, now)}")
    if "foreign" in places:
        return "foreign", "; ".join(words)
    if len(places) > 1:
        return "mixed", "; ".join(words)
    return (places.pop() if places else "old"), "; ".join(words)


def _places(change: Change, now: Setting, left: Mapping[str, Knob] | None) -> set[Found]:
    """Where most replicas stand, and those that stand at the other end of the change.

    A single replica that shows neither value has restarted, and says nothing about the change.
    """
    others = {_place(change, values, left) for values in now.others.values()}
    return {_place(change, now.values, left), *(others - {"foreign"})}


def _apart(change: Change, now: Setting) -> str:
    shown = [f"{name} {', '.join(str(v.get(k)) for k in change.new)}" for name, v in sorted(now.others.items())]
    return f" (but {'; '.join(shown)})" if shown else ""


def _place(change: Change, values: Mapping[str, Knob], left: Mapping[str, Knob] | None) -> Found:
    # New first: a plan whose old and new agree is there already.
    if same_knobs(change.new, values):
        return "new"
    if same_knobs(change.old, values):
        return "old"
    return "new" if left and same_knobs(left, values) else "foreign"


def landed_late(
    change: OpenChange, closed_at_s: float, settings_now: Mapping[str, Setting | Unreadable], at_s: float, late_s: float
) -> bool:
    """Whether a change that was closed with its old setting in force is there after all: an answer that took longer
    than was waited for. late_s: for how long after its end a change may still land."""
    return at_s - closed_at_s <= late_s and where(change, settings_now)[0] in ("new", "mixed")
