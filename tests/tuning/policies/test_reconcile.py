"""What a crash leaves behind at every point of a change, and what recovery makes of it."""

from __future__ import annotations

import pytest

from tuning.guards import Unreadable
from tuning.model import Change, Diagnosis, Knob, OpenChange, Option, Plan, Record, Setting
from tuning.policies.reconcile import Reconciliation, landed_late, left_by, reconcile, where

OLD: dict[str, Knob] = {"batch_size": 1}
NEW: dict[str, Knob] = {"batch_size": 8}
SETTLE_S = 60.0
YOUNG_S, OLD_S = 10.0, 10_000.0


def a_plan(pair: bool = False) -> Plan:
    changes = [Change(lever="batch_size", old=OLD, new=NEW)]
    if pair:
        changes.append(Change(lever="replicas", old={"replicas": 1}, new={"replicas": 2}))
    return Plan(
        id="p",
        incident_id="i",
        service="ranker",
        decided_at_s=0.0,
        mode="act",
        diagnosis=Diagnosis(cause="unknown"),
        chosen=Option(changes=tuple(changes)),
        settle_s=SETTLE_S,
    )


def change(state: str, pair: bool = False) -> OpenChange:
    values = {"plan_id": "p", "service": "ranker", "incident_id": "i", "plan": a_plan(pair), "opened_at_s": 0.0}
    return OpenChange.model_validate(values | {"state": state})


def truth(batch_size: Knob | None, replicas: Knob | None = None) -> dict[str, Setting | Unreadable]:
    found: dict[str, Setting | Unreadable] = {}
    for lever, knob, value in (("batch_size", "batch_size", batch_size), ("replicas", "replicas", replicas)):
        found[lever] = Unreadable("timeout") if value is None else Setting(lever=lever, values={knob: value})
    return found


def record(kind: str, at_s: float = 0.0) -> Record:
    return Record(id=f"{kind}-{at_s}", kind=kind, service="ranker", parent_id="p", at_s=at_s, body={})


# (killed after, state, roll-back decided, value in force, what follows while young, what follows later)
KILL_POINTS = [
    ("intent", "intended", False, 1, "wait", "close_unchanged"),
    ("apply sent, landed", "intended", False, 8, "verify", "verify"),
    ("apply sent, lands late", "intended", False, 1, "wait", "close_unchanged"),
    ("apply sent, endpoint gone", "intended", False, None, "wait", "wait"),
    ("receipt", "made", False, 8, "wait", "verify"),
    ("settle", "made", False, 8, "wait", "verify"),
    ("verify", "made", False, 8, "wait", "verify"),
    ("receipt, endpoint gone", "made", False, None, "wait", "wait"),
    ("roll-back intent", "made", True, 8, "wait", "undo"),
    ("roll-back sent, landed", "made", True, 1, "wait", "finish"),
    ("roll-back sent, endpoint gone", "made", True, None, "wait", "wait"),
    ("roll-back of an intent", "intended", True, 8, "wait", "undo"),
    ("keep, leased", "leased", False, 8, "wait", "wait"),
    ("lease handed back", "leased", False, 1, "finish", "finish"),
    ("lease being handed back", "leased", True, 8, "wait", "undo"),
    ("somebody else, before the receipt", "intended", False, 4, "stand_down", "stand_down"),
    ("somebody else, after the receipt", "made", False, 4, "stand_down", "stand_down"),
    ("somebody else during a roll-back", "made", True, 4, "stand_down", "stand_down"),
    ("the old value is back by itself", "made", False, 1, "stand_down", "stand_down"),
]


@pytest.mark.parametrize(("killed", "state", "undoing", "value", "young", "later"), KILL_POINTS)
def test_every_kill_point(killed: str, state: str, undoing: bool, value: Knob | None, young: str, later: str) -> None:
    records = [record("roll_back")] if undoing else []
    for at_s, wanted in ((YOUNG_S, young), (OLD_S, later)):
        found = reconcile(change(state), truth(value), records, at_s)
        if wanted == "stand_down" and at_s == YOUNG_S:
            assert found.action in ("stand_down", "wait"), killed
        else:
            assert found.action == wanted, (killed, at_s, found)
        assert found.reason


def after(found: Reconciliation, value: Knob | None) -> Knob | None:
    """What carrying out an answer does to the value in force."""
    return 1 if found.action == "undo" else value


@pytest.mark.parametrize(("killed", "state", "undoing", "value", "young", "later"), KILL_POINTS)
def test_recovering_twice_does_nothing_twice(
    killed: str, state: str, undoing: bool, value: Knob | None, young: str, later: str
) -> None:
    records = [record("roll_back")] if undoing else []
    first = reconcile(change(state), truth(value), records, OLD_S)
    records_then = [*records, record("roll_back", OLD_S)] if first.action == "undo" else records
    second = reconcile(change(state), truth(after(first, value)), records_then, 2 * OLD_S)
    assert second.action != "undo", killed
    if first.action == "undo":
        assert second.action == "finish"


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ((1, 1), "old"),
        ((8, 2), "new"),
        ((8, 1), "mixed"),
        ((1, 2), "mixed"),
        ((8, 3), "foreign"),
        ((8, None), "unknown"),
    ],
)
def test_a_pair_is_all_or_nothing(values: tuple[Knob, Knob | None], place: str) -> None:
    assert where(change("intended", pair=True), truth(*values))[0] == place


def test_half_a_plan_is_undone_once_the_rest_cannot_be_on_its_way() -> None:
    half = truth(8, 1)
    assert reconcile(change("intended", pair=True), half, [], YOUNG_S).action == "wait"
    assert reconcile(change("intended", pair=True), half, [], OLD_S).action == "undo"
    assert reconcile(change("made", pair=True), half, [], OLD_S).action == "undo"


def test_a_kept_change_whose_end_was_not_written_is_finished() -> None:
    assert reconcile(change("made"), truth(8), [record("keep")], OLD_S).action == "finish"


def test_a_live_run_is_left_alone_for_as_long_as_it_may_take() -> None:
    assert reconcile(change("made"), truth(8), [], 500.0, verify_after_s=600.0).action == "wait"
    assert reconcile(change("made"), truth(8), [], 700.0, verify_after_s=600.0).action == "verify"


def test_the_autoscaler_moves_replicas_and_that_is_nobodys_hand() -> None:
    bounds = Change(
        lever="replicas",
        old={"min_replicas": 1, "max_replicas": 2, "replicas": 1},
        new={"min_replicas": 2, "max_replicas": 4, "replicas": 2},
    )
    plan = a_plan().model_copy(update={"chosen": Option(changes=(bounds,))})
    one = change("made").model_copy(update={"plan": plan})
    now = {"replicas": Setting(lever="replicas", values={"min_replicas": 2, "max_replicas": 4, "replicas": 3})}
    assert where(one, now)[0] == "new"


def test_a_change_that_landed_after_it_was_given_up_is_found() -> None:
    given_up = change("intended")
    assert landed_late(given_up, 1000.0, truth(8), 1500.0, late_s=900.0)
    assert not landed_late(given_up, 1000.0, truth(1), 1500.0, late_s=900.0)
    assert not landed_late(given_up, 1000.0, truth(8), 9000.0, late_s=900.0)
    assert not landed_late(given_up, 1000.0, truth(None), 1500.0, late_s=900.0)
    assert not landed_late(given_up, 1000.0, truth(3), 1500.0, late_s=900.0), "somebody else's value is theirs"
    apart = {"batch_size": Setting(lever="batch_size", values=OLD, others={"r1": NEW})}
    assert landed_late(given_up, 1000.0, apart, 1500.0, late_s=900.0), "on one replica of several"


@pytest.mark.parametrize(
    ("most", "others", "found"),
    [
        (OLD, {"r1": NEW}, "mixed"),
        (NEW, {"r1": OLD}, "mixed"),
        (NEW, {"r1": {"batch_size": 3}}, "new"),
        (OLD, {"r1": {"batch_size": 3}}, "old"),
        ({"batch_size": 3}, {"r1": NEW}, "foreign"),
    ],
    ids=["one has it", "one has it not", "one restarted", "one restarted before", "somebody else, on most"],
)
def test_replicas_that_differ_are_half_a_change(most: dict[str, Knob], others: dict, found: str) -> None:
    now = {"batch_size": Setting(lever="batch_size", values=most, others=others)}
    place, why = where(change("made"), now)
    assert place == found and f"(but r1 {others['r1']['batch_size']})" in why


@pytest.mark.parametrize(("back_s", "action"), [(59.0, "wait"), (60.0, "wait"), (61.0, "close_unchanged")])
def test_a_clock_that_stepped_far_back_keeps_nobody_waiting(back_s: float, action: str) -> None:
    found = reconcile(change("intended"), truth(1), [], -back_s)
    assert found.action == action
    assert action != "wait" or "The last word is 0 s old" in found.reason


def receipt(at_s: float, after: dict[str, Knob], **body: object) -> Record:
    told = {"lever": "batch_size", "after": after, "applied": True} | body
    kind = str(told.pop("kind", "adjust_batch_size"))
    return Record(id=f"r{at_s}", kind=kind, phase="result", service="ranker", parent_id="p", at_s=at_s, body=told)


@pytest.mark.parametrize(
    ("records", "left"),
    [
        ([], {}),
        ([receipt(1.0, {"batch_size": 6})], {"batch_size": {"batch_size": 6}}),
        ([receipt(1.0, {"batch_size": 6}), receipt(2.0, {"batch_size": 7})], {"batch_size": {"batch_size": 7}}),
        ([receipt(2.0, {"batch_size": 7}), receipt(1.0, {"batch_size": 6})], {"batch_size": {"batch_size": 7}}),
        ([receipt(1.0, {"batch_size": 6}, applied=False)], {}),
        ([receipt(1.0, {"batch_size": 6}, applied=False, changed=True)], {"batch_size": {"batch_size": 6}}),
        ([receipt(1.0, {"batch_size": 1}, kind="roll_back")], {}),
        ([record("adjust_batch_size", 1.0)], {}),
    ],
)
def test_what_receipts_say_was_left_behind(records: list[Record], left: dict[str, dict[str, Knob]]) -> None:
    assert left_by(records) == left


@pytest.mark.parametrize(("age_s", "action"), [(119.0, "wait"), (120.0, "close_unchanged")])
def test_where_nobody_says_how_long_a_change_may_still_land_within_two_minutes(age_s: float, action: str) -> None:
    assert reconcile(change("intended"), truth(1), [], age_s).action == action
