"""What every ledger must do: one suite, run over memory, SQLite and a real PostgreSQL server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.postgresql import fresh_database
from tuning.caps import Caps
from tuning.errors import ChangeAlreadyOpen, ClaimRefused, Permanent, SlotuneError
from tuning.ledger import SqlLedger
from tuning.ledger.memory import MemoryLedger
from tuning.model import Change, Diagnosis, OpenChange, Option, Plan, Record
from tuning.ports import Ledger
from tuning.query import Query


def plan(plan_id: str = "p1", service: str = "ranker") -> Plan:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    return Plan(
        id=plan_id,
        incident_id="i1",
        service=service,
        decided_at_s=100.0,
        mode="act",
        diagnosis=Diagnosis(cause="unknown"),
        chosen=Option(changes=(change,)),
    )


def open_change(plan_id: str = "p1", service: str = "ranker") -> OpenChange:
    return OpenChange(
        plan_id=plan_id,
        service=service,
        incident_id="i1",
        state="intended",
        plan=plan(plan_id, service),
        opened_at_s=100.0,
        run="run-1",
    )


def record(record_id: str, at_s: float = 100.0, **changes: object) -> Record:
    values: dict[str, object] = {"kind": "choose_action", "service": "ranker", "body": {"a": 1}} | changes
    return Record.model_validate({"id": record_id, "at_s": at_s} | values)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else fresh_database()
    made = SqlLedger.open(url)
    yield made
    made.close()


def test_a_record_comes_back_as_it_was_written(ledger: Ledger) -> None:
    written = record("r1", parent_id="x", incident_id="i", body={"text": "<b>ä\u0000", "n": None, "x": 1.5, "t": [1]})
    assert ledger.put(written)
    assert ledger.get("r1") == written
    assert ledger.get("r2") is None


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "ä😀"])
def test_any_text_can_be_written(ledger: Ledger, text: str) -> None:
    """A lone half of a character, or a NUL, which no database takes in a column: nobody's sweep stops at it."""
    assert ledger.put(record("r1", service=text, parent_id=text, incident_id=text, body={"reason": text}))
    found = ledger.get("r1")
    assert found is not None and found.body == {"reason": text}
    assert isinstance(ledger, MemoryLedger) or found.service in (text, "?", "a?b")


def test_the_first_record_of_an_id_stays(ledger: Ledger) -> None:
    assert ledger.put(record("r1", body={"a": 1}))
    assert not ledger.put(record("r1", body={"a": 2}))
    found = ledger.get("r1")
    assert found is not None
    assert found.body == {"a": 1}


def test_a_number_that_is_none_becomes_null(ledger: Ledger) -> None:
    ledger.put(record("r1", body={"a": float("nan"), "b": [float("inf"), 1.0]}))
    found = ledger.get("r1")
    assert found is not None
    assert found.body == {"a": None, "b": [None, 1.0]}


def test_find_answers_newest_first_and_filters(ledger: Ledger) -> None:
    ledger.put(record("r1", 1.0, kind="keep", incident_id="i1"))
    ledger.put(record("r3", 3.0, service="other", parent_id="p"))
    ledger.put(record("r2", 2.0, kind="keep", incident_id="i2"))
    ledger.put(record("r4", 3.0, kind="keep", incident_id="i2"))
    ledger.put(record("r5", 0.5, phase="intent", incident_id="i1"))
    for query, ids in (
        (Query(), ["r4", "r3", "r2", "r1", "r5"]),
        (Query(kinds=("keep",)), ["r4", "r2", "r1"]),
        (Query(kinds=("keep", "choose_action")), ["r4", "r3", "r2", "r1", "r5"]),
        (Query(kinds=()), []),
        (Query(phase="intent"), ["r5"]),
        (Query(services=("other",)), ["r3"]),
        (Query(services=("other", "ranker"), kinds=("keep",), phase="result"), ["r4", "r2", "r1"]),
        (Query(parent_ids=("p",)), ["r3"]),
        (Query(parent_ids=("p",), kinds=("keep",)), []),
        (Query(ids=("r1", "r4", "nobody")), ["r4", "r1"]),
        (Query(ids=()), []),
        (Query(incident_ids=("i2",), since_s=2.5), ["r4"]),
        (Query(incident_ids=("i1", "i2"), kinds=("keep",), phase="result"), ["r4", "r2", "r1"]),
        (Query(since_s=1.0, until_s=2.0), ["r2", "r1"]),
        (Query(limit=2), ["r4", "r3"]),
        (Query(order="written"), ["r5", "r4", "r2", "r3", "r1"]),
        (Query(order="written", kinds=("keep",), limit=2), ["r4", "r2"]),
    ):
        assert [r.id for r in ledger.find(query)] == ids, query


def test_a_family_is_records_and_what_follows_from_them(ledger: Ledger) -> None:
    for name, parent in (
        ("plan", None),
        ("receipt", "plan"),
        ("outcome", "plan"),
        ("undo", "plan"),
        ("put back", "undo"),
    ):
        ledger.put(record(name, parent_id=parent))
    ledger.put(record("stranger", parent_id="another"))
    found = {r.id for r in ledger.find(Query(family=("plan", "undo")))}
    assert found == {"plan", "receipt", "outcome", "undo", "put back"}
    assert {r.id for r in ledger.find(Query(family=("undo",), kinds=("choose_action",)))} == {"undo", "put back"}
    assert ledger.find(Query(family=())) == []


def test_what_still_waits_for_its_end_is_found_however_much_else_there_is(ledger: Ledger) -> None:
    ledger.put(record("old report", 1.0, kind="email_report", phase="intent", incident_id="i"))
    for n in range(30):
        ledger.put(record(f"r{n}", 2.0 + n, kind="email_report", phase="intent", incident_id="j"))
        ledger.put(record(f"r{n}:sent", 2.0 + n, kind="email_report", incident_id="j"))
    unsent = Query(kinds=("email_report",), phase="intent", without=("id", ":sent"))
    assert [r.id for r in ledger.find(unsent)] == ["old report"]
    ledger.put(record("j:closed", 40.0, incident_id="j"))
    of_open_incidents = Query(kinds=("email_report",), without=("incident_id", ":closed"))
    assert [r.id for r in ledger.find(of_open_incidents)] == ["old report"]


def test_nothing_that_is_meant_is_left_out(ledger: Ledger) -> None:
    for n in range(1200):
        ledger.put(record(f"r{n}", float(n)))
    assert len(ledger.find(Query())) == 1200
    wanted = tuple(f"r{n}" for n in range(0, 1200, 2))
    assert len(ledger.find(Query(ids=wanted))) == 600


def test_a_few_among_many_are_found_by_what_their_bodies_hold(ledger: Ledger) -> None:
    for n, guard in enumerate(("freeze", "ownership:batch_size", "mode", "ownership:replicas")):
        ledger.put(record(f"g{n}", float(n), kind="guard", body={"guard": guard, "reason": "x"}))
    hands = Query(kinds=("guard",), holding='"guard":"ownership:')
    assert [r.id for r in ledger.find(hands)] == ["g3", "g1"]
    assert ledger.find(Query(holding="% _")) == []


def test_records_without_their_bodies_say_only_that_they_are_there(ledger: Ledger) -> None:
    ledger.put(record("r1", body={"a": "long"}))
    (found,) = ledger.find(Query(ids=("r1",), bodies=False))
    assert (found.id, found.body) == ("r1", {})


def test_a_change_is_claimed_moves_on_and_frees_its_service(ledger: Ledger) -> None:
    ledger.open_change(open_change(), record("intent", phase="intent"))
    assert ledger.get("intent") is not None
    (found,) = ledger.open_changes()
    assert found == open_change()
    ledger.update_change("p1", "made", record("made"))
    assert [c.state for c in ledger.open_changes("ranker")] == ["made"]
    ledger.update_change("p1", "leased", record("leased"), expires_at_s=500.0)
    (found,) = ledger.open_changes("ranker")
    assert (found.state, found.expires_at_s) == ("leased", 500.0)
    ledger.update_change("p1", "closed", record("closed"))
    assert ledger.open_changes() == []
    ledger.open_change(open_change("p2"), record("intent2"))
    assert [c.plan_id for c in ledger.open_changes("ranker")] == ["p2"]


def test_a_second_change_of_a_service_is_refused_and_writes_nothing(ledger: Ledger) -> None:
    ledger.open_change(open_change(), record("intent"))
    with pytest.raises(ChangeAlreadyOpen, match="ranker"):
        ledger.open_change(open_change("p2"), record("intent2"))
    assert ledger.get("intent2") is None
    ledger.open_change(open_change("p3", "other"), record("intent3"))
    assert [c.plan_id for c in ledger.open_changes("other")] == ["p3"]
    assert ledger.open_changes("nobody") == []


def test_a_proven_change_on_lease_keeps_nobody_out(ledger: Ledger) -> None:
    ledger.open_change(open_change(), record("intent"))
    ledger.update_change("p1", "made", record("made"))
    ledger.update_change("p1", "leased", record("leased"), expires_at_s=500.0)
    ledger.open_change(open_change("p2"), record("intent2"))
    assert [(c.plan_id, c.state) for c in ledger.open_changes("ranker")] == [("p1", "leased"), ("p2", "intended")]
    with pytest.raises(ChangeAlreadyOpen):
        ledger.open_change(open_change("p3"), record("intent3"))
    ledger.update_change("p2", "leased", record("leased too"), expires_at_s=600.0)
    assert [c.state for c in ledger.open_changes("ranker")] == ["leased", "leased"]


CAPS = Caps(services_at_once=2, changes_per_hour=2, changes_per_hour_total=4)


def make(ledger: Ledger, plan_id: str, service: str, at_s: float, *, changed: bool = True) -> None:
    """A change that is claimed, made and closed at one time."""
    claim = open_change(plan_id, service).model_copy(update={"opened_at_s": at_s})
    ledger.open_change(claim, record(f"{plan_id}:intent", at_s, kind="adjust_batch_size", phase="intent", service=service))
    receipt = record(
        f"{plan_id}:receipt", at_s, kind="adjust_batch_size", service=service, parent_id=plan_id, body={"changed": changed}
    )
    ledger.update_change(plan_id, "made", receipt)
    ledger.update_change(plan_id, "closed", record(f"{plan_id}:closed", at_s, kind="keep", service=service))


def claim(ledger: Ledger, plan_id: str, service: str, at_s: float, caps: Caps = CAPS) -> str | None:
    """The guard that refuses the claim; None where it is there now."""
    wanted = open_change(plan_id, service).model_copy(update={"opened_at_s": at_s})
    try:
        ledger.open_change(wanted, record(f"{plan_id}:intent", at_s, service=service), caps)
    except ClaimRefused as error:
        assert ledger.get(f"{plan_id}:intent") is None, "a refused claim writes nothing"
        return error.guard
    return None


def test_a_claim_is_counted_against_the_caps(ledger: Ledger) -> None:
    assert claim(ledger, "p1", "a", 100.0) is None
    assert claim(ledger, "p2", "b", 100.0) is None
    assert claim(ledger, "p3", "c", 100.0) == "services_at_once"
    assert claim(ledger, "p1", "a", 100.0) is None, "its own claim is not counted against it"
    ledger.update_change("p1", "leased", record("p1 proven", service="a"))
    assert claim(ledger, "p3", "c", 100.0) is None, "what is proven makes room"
    assert claim(ledger, "p4", "c", 100.0) == "one_open_change"


def test_what_was_made_within_the_hour_is_counted(ledger: Ledger) -> None:
    make(ledger, "p1", "a", 100.0)
    make(ledger, "p2", "a", 200.0)
    make(ledger, "p3", "a", 300.0, changed=False)
    assert claim(ledger, "p4", "a", 400.0) == "changes_per_hour"
    assert claim(ledger, "p4", "a", 3701.0) is None
    make(ledger, "p5", "b", 3702.0)
    assert claim(ledger, "p6", "c", 3703.0) is None
    assert claim(ledger, "p7", "d", 3704.0, replace(CAPS, services_at_once=9)) == "changes_per_hour", "of all together"


def test_a_lever_cools_down_for_longer_than_an_hour_where_it_is_told_to(ledger: Ledger) -> None:
    make(ledger, "p1", "a", 100.0)
    slow = replace(CAPS, cool_down_s={"batch_size": 86_400.0})
    assert claim(ledger, "p2", "a", 80_000.0, slow) == "cool_down"
    assert claim(ledger, "p2", "a", 86_501.0, slow) is None


def test_a_clock_that_steps_back_makes_no_room(ledger: Ledger) -> None:
    now_s = 100_000.0
    make(ledger, "p1", "a", now_s)
    make(ledger, "p2", "a", now_s + 10.0)
    back_s = now_s - 3000.0
    assert claim(ledger, "p3", "a", back_s) == "changes_per_hour"
    for minute in range(1, 66):
        ledger.put(record(f"sweep {minute}", back_s + 60.0 * minute, kind="open_incidents"))
    assert claim(ledger, "p3", "a", back_s + 1800.0) == "changes_per_hour"
    assert claim(ledger, "p3", "a", now_s + 3611.0) is None, "by the clock that stepped back it is an hour later"


def test_a_time_far_ahead_that_was_wrong_blocks_nobody_for_ever(ledger: Ledger) -> None:
    wrong_s, right_s = 5_000_000.0, 100_000.0
    make(ledger, "p1", "a", wrong_s)
    make(ledger, "p2", "a", wrong_s)
    assert claim(ledger, "p3", "a", right_s) == "changes_per_hour"
    for minute in range(0, 70, 5):
        ledger.put(record(f"sweep {minute}", right_s + 60.0 * minute, kind="open_incidents"))
    assert claim(ledger, "p3", "a", right_s + 3601.0) is None, "an hour of records lies behind it"


def test_a_change_that_is_in_force_is_claimed_whatever_the_caps_say(ledger: Ledger) -> None:
    assert claim(ledger, "p1", "a", 100.0) is None
    assert claim(ledger, "p2", "b", 100.0) is None
    found = open_change("p3", "c")
    ledger.open_change(found, record("p3:intent"))
    with pytest.raises(ChangeAlreadyOpen):
        ledger.open_change(open_change("p4", "c"), record("p4:intent"))


def test_what_counts_can_be_asked_before_a_claim(ledger: Ledger) -> None:
    make(ledger, "p1", "a", 100.0)
    claim(ledger, "p2", "b", 200.0)
    standing = ledger.standing(300.0, 3600.0)
    assert [(u.plan_id, u.service, u.levers) for u in standing.unproven] == [("p2", "b", ("batch_size",))]
    assert standing.unproven[0].what == "batch_size 1 -> 8"
    assert {(m.plan_id, m.at_s) for m in standing.made} == {("p1", 100.0), ("p2", 200.0)}
    assert {m.plan_id for m in ledger.standing(300.0, 150.0).made} == {"p2"}


def test_claiming_again_is_harmless_until_the_change_is_closed(ledger: Ledger) -> None:
    ledger.open_change(open_change(), record("intent"))
    ledger.update_change("p1", "made", record("made"))
    ledger.open_change(open_change(), record("intent"))
    assert [c.state for c in ledger.open_changes()] == ["made"]
    ledger.update_change("p1", "closed", record("closed"))
    with pytest.raises(ChangeAlreadyOpen):
        ledger.open_change(open_change(), record("intent"))


def test_a_state_never_moves_back_and_a_late_word_is_kept(ledger: Ledger) -> None:
    ledger.open_change(open_change(), record("intent"))
    ledger.update_change("p1", "leased", record("leased"), expires_at_s=9.0)
    ledger.update_change("p1", "made", record("late"))
    assert [c.state for c in ledger.open_changes()] == ["leased"]
    assert ledger.get("late") is not None
    ledger.update_change("p1", "closed", record("closed"))
    ledger.update_change("p1", "leased", record("later"))
    assert ledger.open_changes() == []
    assert ledger.get("later") is not None


def test_an_unknown_change_cannot_move(ledger: Ledger) -> None:
    with pytest.raises(Permanent, match="p9"):
        ledger.update_change("p9", "made", record("made"))
    assert ledger.get("made") is None


def test_a_blob_can_be_replaced(ledger: Ledger) -> None:
    assert ledger.get_blob("k") is None
    ledger.put_blob("k", b"\x00one", at_s=1.0)
    ledger.put_blob("k", b"two\xff", at_s=2.0)
    assert ledger.get_blob("k") == b"two\xff"
    ledger.put_blob("empty", b"", at_s=3.0)
    assert ledger.get_blobs(["k", "none", "empty"]) == {"k": b"two\xff", "empty": b""}
    assert ledger.get_blobs([]) == {}


def race(calls: list[Callable[[], None]]) -> list[SlotuneError | None]:
    """All calls at once, one thread each; their errors in order."""
    gate = threading.Barrier(len(calls))
    errors: list[SlotuneError | None] = [None] * len(calls)

    def run(index: int) -> None:
        gate.wait()
        try:
            calls[index]()
        except SlotuneError as error:
            errors[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_of_many_claims_at_once_exactly_one_wins(ledger: Ledger) -> None:
    if isinstance(ledger, MemoryLedger):
        pytest.skip("a ledger in memory lives in one thread")
    calls = [
        lambda n=n: ledger.open_change(open_change(f"p{n}"), record(f"intent{n}"))  # type: ignore[misc]
        for n in range(8)
    ]
    errors = race(calls)
    assert sum(error is None for error in errors) == 1
    assert all(isinstance(error, ChangeAlreadyOpen) for error in errors if error is not None)
    assert len(ledger.open_changes("ranker")) == 1
    assert len(ledger.find(Query())) == 1


def test_of_many_services_at_once_only_as_many_claim_as_the_caps_allow(ledger: Ledger) -> None:
    if isinstance(ledger, MemoryLedger):
        pytest.skip("a ledger in memory lives in one thread")
    few = Caps(services_at_once=3, changes_per_hour=9, changes_per_hour_total=99)
    calls = [
        lambda n=n: ledger.open_change(open_change(f"p{n}", f"s{n}"), record(f"intent{n}"), few)  # type: ignore[misc]
        for n in range(10)
    ]
    errors = race(calls)
    assert sum(error is None for error in errors) == 3
    assert {error.guard for error in errors if isinstance(error, ClaimRefused)} == {"services_at_once"}
    assert len(ledger.open_changes()) == 3
    assert len(ledger.find(Query())) == 3
