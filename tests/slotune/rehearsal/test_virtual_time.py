"""Time that jumps: who runs when, and that a stop reaches everybody."""

from __future__ import annotations

import pytest

from slotune.rehearsal.virtual_time import VirtualExecutor, VirtualTime


def test_everybody_runs_at_their_moment_and_one_at_a_time():
    seen: list[tuple[float, str]] = []
    reached: list[float] = []
    time = VirtualTime(100.0, 200.0, reached.append)
    executor = VirtualExecutor(time)

    def attempt(name: str, seconds: float) -> str:
        seen.append((time.now(), f"{name} begins"))
        assert not time.wait(seconds)
        seen.append((time.now(), f"{name} ends"))
        return name

    def sweeps() -> None:
        first = executor.submit(attempt, "a", 25.0)
        second = executor.submit(attempt, "b", 5.0)
        while not time.wait(10.0):
            seen.append((time.now(), "sweep"))
            if time.now() >= 140.0:
                break
        assert (first.result(), second.result()) == ("a", "b")

    time.run(sweeps)
    assert seen == [
        (100.0, "a begins"), (100.0, "b begins"), (105.0, "b ends"), (110.0, "sweep"), (120.0, "sweep"),
        (125.0, "a ends"), (130.0, "sweep"), (140.0, "sweep"),
    ]  # fmt: skip
    assert reached == [105.0, 110.0, 120.0, 125.0, 130.0, 140.0]


def test_at_the_end_whoever_waits_is_told_to_stop():
    time = VirtualTime(0.0, 50.0, lambda _at_s: None)
    stopped: list[float] = []

    def attempt() -> None:
        if time.wait(1000.0):
            stopped.append(time.now())

    def sweeps() -> None:
        VirtualExecutor(time).submit(attempt)
        while not time.wait(20.0):
            pass

    time.run(sweeps)
    assert stopped == [50.0]


def test_a_service_that_cannot_be_moved_ends_the_rehearsal_with_its_error():
    def moved(at_s: float) -> None:
        raise ZeroDivisionError(at_s)

    time = VirtualTime(0.0, 50.0, moved)
    with pytest.raises(ZeroDivisionError):
        time.run(lambda: [time.wait(10.0) for _ in range(3)])


def test_an_attempt_that_breaks_off_carries_its_error_in_its_future():
    time = VirtualTime(0.0, 50.0, lambda _at_s: None)
    found: list[BaseException | None] = []

    def broken() -> None:
        raise ValueError("no")

    def work() -> None:
        future = VirtualExecutor(time).submit(broken)
        time.wait(1.0)
        found.append(future.exception())

    time.run(work)
    assert isinstance(found[0], ValueError)
