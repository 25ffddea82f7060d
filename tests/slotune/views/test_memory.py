"""A process that is asked again reads only what is new, and nobody who looks holds up whoever writes."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from slotune.views.memory import FRESH_S, OVERLAP, Memory
from tests.postgresql import fresh_database
from tuning.ledger import SqlLedger
from tuning.ledger.reader import open_reader
from tuning.model import Record
from tuning.past import KINDS


def incident(number: int, at_s: float = 0.0) -> Record:
    body = {"tier": "act", "symptom": "latency", "opened_at_s": at_s}
    name = f"i{number}"
    return Record(id=name, kind="open_incidents", service="ranker", incident_id=name, at_s=at_s, body=body)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def ledger(request, tmp_path):
    made = SqlLedger.open(f"sqlite:///{tmp_path / 'l.sqlite'}" if request.param == "sqlite" else fresh_database())
    yield made
    made.close()


class Counting:
    """A reader that counts the records it hands out, and can be held up in the middle."""

    def __init__(self, ledger) -> None:
        self.ledger, self.read = ledger, 0
        self.going = threading.Event()
        self.going.set()

    def newest(self):
        return self.ledger.newest()

    def written(self, after, kinds, *, size=5_000):
        self.going.wait(30)
        for number, lines in self.ledger.written(after, kinds, size=size):
            self.read += len(lines)
            yield number, lines


def test_only_what_is_new_is_read_again(ledger):
    for number in range(OVERLAP + 500):
        ledger.put(incident(number))
    reader, memory = Counting(ledger), Memory()
    first = memory.past(reader, 0.0)
    assert len(first.incidents) == OVERLAP + 500 == reader.read
    assert memory.past(reader, 0.0) is first and reader.read == OVERLAP + 500
    ledger.put(incident(5_000))
    again = memory.past(reader, 0.0)
    assert len(again.incidents) == OVERLAP + 501 and reader.read == 2 * OVERLAP + 501
    assert len(first.incidents) == OVERLAP + 500, "what somebody is looking at does not change under him"


def test_a_record_that_was_committed_late_is_found(ledger):
    memory, numbers = Memory(), Counting(ledger)
    ledger.put(incident(1))
    memory.past(numbers, 0.0)
    hidden = numbers.newest()
    numbers.newest = lambda: hidden  # a transaction with a lower number became visible afterwards
    ledger.put(incident(2))
    assert "i2" not in memory.past(numbers, 1.0).incidents
    assert "i2" in memory.past(numbers, 1.0 + FRESH_S).incidents


def test_whoever_cannot_wait_is_answered_without_it_and_has_it_later(ledger):
    ledger.put(incident(1))
    reader, memory = Counting(ledger), Memory()
    reader.going.clear()
    assert memory.past_within(reader, 0.0, 0.01) is None
    reader.going.set()
    assert "i1" in memory.past_within(reader, 0.0, 30.0).incidents


def test_pages_of_the_history_are_in_the_order_of_writing_without_the_intents_of_levers(ledger):
    ledger.put(incident(1, at_s=50.0))
    ledger.put(Record(id="x", kind="adjust_batch_size", phase="intent", service="s", at_s=1.0, body={"a": "b"}))
    ledger.put(Record(id="u", kind="roll_back", phase="intent", service="s", at_s=1.0, body={}))
    ledger.put(Record(id="m", kind="email_report", service="s", at_s=1.0, body={}))
    ledger.put(incident(2, at_s=10.0))
    pages = [[line.id for line in lines] for _, lines in ledger.written(0, KINDS, size=2)]
    assert pages == [["i1", "u"], ["i2"]] and ledger.newest() == 5
    assert [line.id for _, lines in ledger.written(1, KINDS) for line in lines] == ["u", "i2"]


def test_the_plain_reader_says_the_same(tmp_path):
    url = f"sqlite:///{tmp_path / 'l.sqlite'}"
    made = SqlLedger.open(url)
    assert made.newest() == open_reader(url).newest() == 0
    for number in range(7):
        made.put(incident(number))
    plain = [[line.id for line in page] for _, page in open_reader(url).written(2, KINDS, size=3)]
    assert plain == [[r.id for r in page] for _, page in made.written(2, KINDS, size=3)]
    assert open_reader(url).newest() == 7


def test_looking_holds_up_no_writer_and_writing_holds_up_no_look(tmp_path):
    path = tmp_path / "l.sqlite"
    reader = SqlLedger.open(f"sqlite:///{path}", timeout_s=0.05)
    writer = SqlLedger(f"sqlite:///{path}", timeout_s=0.05)
    for number in range(10):
        writer.put(incident(number))
    pages = reader.written(0, KINDS, size=4)
    next(pages)
    assert writer.put(incident(99)), "in the middle of a long reading"
    busy = sqlite3.connect(path, isolation_level=None)
    busy.execute("BEGIN IMMEDIATE")
    try:
        assert len(Memory().past(reader, 0.0).incidents) == 11
        assert len([line for _, lines in pages for line in lines]) == 7
    finally:
        busy.execute("ROLLBACK")
        busy.close()
