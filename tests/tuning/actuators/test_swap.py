"""All replicas or none: what a server shows counts, not what it says; what it took of its own is put back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakes.actuators import FakeTime
from tuning.actuators._http import Unanswered
from tuning.actuators._swap import Knobs, swap
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied, OutcomeUnknown

OLD, WANTED = {"batch_size": 4}, {"batch_size": 16}
NO = ControlRefused("said no")
LOST = Unanswered("connection lost after the request was sent")
DEAD = ControlUnreachable("nobody listens")


class Server:
    """takes: what a send makes of the wanted size. says: what it answers, send by send. silent: reads that fail."""

    def __init__(
        self, *says: Exception | None, takes: Callable[[int], int] = lambda size: size, silent: int = 0
    ) -> None:
        self.shown, self.size, self.takes, self.says, self.silent = "http://server", 4, takes, list(says), silent
        self.sent: list[int] = []

    def read(self) -> Knobs:
        if self.silent and self.sent:
            self.silent -= 1
            raise ControlUnreachable("no answer")
        return {"batch_size": self.size, "batch_timeout_ms": 2.0}

    def send(self, wanted: Knobs) -> None:
        says = self.says.pop(0) if self.says else None
        if isinstance(says, ControlUnreachable):
            raise says
        self.sent.append(int(wanted["batch_size"]))
        self.size = self.takes(int(wanted["batch_size"]))
        if says is not None:
            raise says


def keeps(_: int) -> int:
    return 4


def clamps(size: int) -> int:
    return min(size, 8)


def all_of(*servers: Server) -> dict[str, Knobs]:
    places = {f"r{i}": server for i, server in enumerate(servers)}
    return swap(places, {name: dict(OLD) for name in places}, dict(WANTED), sleep=FakeTime().sleep, looks=3)


def test_those_that_changed_are_told_with_what_they_show() -> None:
    first, second = Server(), Server()
    shown = {"batch_size": 16, "batch_timeout_ms": 2.0}
    assert all_of(first, second) == {"r0": shown, "r1": shown}


def test_another_value_than_asked_for_is_put_back_everywhere() -> None:
    first, second = Server(), Server(takes=clamps)
    with pytest.raises(
        NotApplied, match="accepted batch_size 16 but its read-back shows batch_size 8; batch_size 4 was put back"
    ) as caught:
        all_of(first, second)
    assert (first.size, second.size) == (4, 4)
    assert (caught.value.before, caught.value.after) == ({"batch_size": 4}, {"batch_size": 4})


def test_another_value_that_cannot_be_put_back_says_what_stood_and_what_stands() -> None:
    server = Server(takes=lambda _: 8)
    with pytest.raises(NotApplied, match="could not be put back") as caught:
        all_of(server)
    assert (caught.value.before, caught.value.after) == ({"batch_size": 4}, {"batch_size": 8})
    assert server.sent == [16, 4]


def test_a_yes_that_did_nothing_is_no_change() -> None:
    server = Server(takes=keeps)
    with pytest.raises(NotApplied, match="accepted batch_size 16 but its read-back shows batch_size 4") as caught:
        all_of(server)
    assert caught.value.before == caught.value.after == {"batch_size": 4}
    assert server.sent == [16]


def test_a_no_is_believed_when_the_old_value_stands() -> None:
    first = Server()
    with pytest.raises(ControlRefused, match="said no"):
        all_of(first, Server(NO, takes=keeps))
    assert first.size == 4


def test_a_no_that_did_it_all_the_same_is_a_change() -> None:
    assert all_of(Server(NO))["r0"]["batch_size"] == 16


def test_a_no_that_did_something_else_is_put_back() -> None:
    server = Server(NO, takes=clamps)
    with pytest.raises(NotApplied, match="said no but its read-back shows batch_size 8"):
        all_of(server)
    assert server.size == 4


@pytest.mark.parametrize("says", [NO, LOST, None])
def test_whatever_it_said_without_a_read_back_nobody_knows(says: Exception | None) -> None:
    with pytest.raises(OutcomeUnknown, match="the read-back got no answer"):
        all_of(Server(says, silent=9))


def test_a_lost_answer_is_settled_by_looking() -> None:
    assert all_of(Server(LOST))["r0"]["batch_size"] == 16
    assert all_of(Server(LOST, silent=2))["r0"]["batch_size"] == 16
    with pytest.raises(OutcomeUnknown, match="still shows batch_size 4"):
        all_of(Server(LOST, takes=keeps))


def test_nobody_there_changes_nobody() -> None:
    first = Server()
    with pytest.raises(ControlUnreachable, match="nobody listens"):
        all_of(first, Server(DEAD))
    assert first.sent == [16, 4]


def test_one_that_serves_nothing_any_more_gets_its_old_knobs_again() -> None:
    server = Server(NotApplied("NO version serves now"))
    with pytest.raises(NotApplied, match="NO version serves now; batch_size 4 was put back"):
        all_of(server)
    assert server.sent == [16, 4]


def test_one_that_cannot_be_put_back_says_which_one_stands_changed() -> None:
    first = Server(None, NO)
    first.takes = lambda _: 16
    with pytest.raises(NotApplied, match="r0, changed before, could not be put back") as caught:
        all_of(first, Server(NO, takes=keeps))
    assert (caught.value.before, caught.value.after) == ({"batch_size": 4}, {"batch_size": 16})
    with pytest.raises(OutcomeUnknown, match="r0, changed before, could not be put back"):
        all_of(Server(None, DEAD), Server(NO, takes=keeps))


def brought_back(*servers: Server) -> dict[str, Knobs]:
    """The way back: all of them stand at the new value, one or none at the old."""
    places = {f"r{i}": server for i, server in enumerate(servers)}
    stands = {name: {"batch_size": server.size} for name, server in places.items()}
    return swap(places, stands, dict(OLD), sleep=FakeTime().sleep, looks=3, undoes=True)


def changed(*says: Exception | None, takes: Callable[[int], int] = lambda size: size) -> Server:
    server = Server(*says, takes=takes)
    server.size = 16
    return server


@pytest.mark.parametrize("error", [NO, DEAD], ids=["it refuses", "it is gone"])
def test_on_the_way_back_one_that_cannot_be_brought_keeps_no_other_from_it(error: Exception) -> None:
    first, broken, last = changed(), changed(error), changed()
    broken.takes = lambda _size: 16
    with pytest.raises(type(error)):
        brought_back(first, broken, last)
    assert (first.size, broken.size, last.size) == (4, 16, 4), "what was undone is not made again"


def test_on_the_way_back_a_value_that_is_made_of_the_same_question_twice_is_told_and_stays() -> None:
    first, clamping = changed(), changed(takes=lambda size: max(size, 8))
    with pytest.raises(NotApplied) as caught:
        brought_back(first, clamping)
    assert (first.size, clamping.size, clamping.sent) == (4, 8, [4, 4])
    assert (caught.value.before, caught.value.after) == ({"batch_size": 16}, {"batch_size": 8})


def test_on_the_way_back_a_write_of_somebody_at_the_same_moment_comes_before() -> None:
    sizes = iter([9, 4])
    raced = changed(takes=lambda _size: next(sizes))
    assert brought_back(raced)["r0"]["batch_size"] == 4 and raced.size == 4
