"""Time that jumps: threads that wait for moments, of which exactly one runs at once, in the order of the moments.

The loop without Airflow (slotune.runner) sweeps in one thread and waits in others while its attempts settle. Here a
wait is a place in a queue instead: whoever waits hands the baton to the thread whose moment comes first, so that a
month passes in minutes, and twice the same history gives twice the same decisions.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any


@dataclass(order=True)
class _Place:
    """Somebody's place in the queue: the moment, and who came first among equals."""

    at_s: float
    number: int
    turn: threading.Event = field(default_factory=threading.Event, compare=False)


class VirtualTime:
    """now: epoch seconds. moved: called with every moment that is reached, before anybody acts at it.

    At `end_s` everybody is told to stop: `wait` returns True from then on.
    """

    def __init__(self, start_s: float, end_s: float, moved: Callable[[float], None]) -> None:
        self._now_s, self._end_s, self._moved = start_s, end_s, moved
        self._queue: list[_Place] = []
        self._count = 0
        self._over = threading.Event()
        self._failed: BaseException | None = None

    def now(self) -> float:
        return self._now_s

    def wait(self, seconds: float) -> bool:
        """Returns after that many seconds of this time; True when it is over."""
        place = self._place(min(self._now_s + seconds, self._end_s))
        self._next()
        place.turn.wait()
        return self._now_s >= self._end_s

    def run(self, work: Callable[[], None]) -> None:
        """Carries out `work` in the calling thread, and then whoever still waits, to their ends."""
        work()
        self._end_s = self._now_s
        if self._queue:
            self._next()
            self._over.wait()
        if self._failed is not None:
            raise self._failed

    def begin(self, work: Callable[[], None]) -> None:
        """Carries out `work` in a thread of its own, as soon as the caller waits."""
        place = self._place(self._now_s)

        def turn() -> None:
            place.turn.wait()
            try:
                work()
            finally:
                self._next()

        threading.Thread(target=turn, daemon=True, name="rehearsed").start()

    def _place(self, at_s: float) -> _Place:
        self._count += 1
        place = _Place(at_s, self._count)
        heapq.heappush(self._queue, place)
        return place

    def _next(self) -> None:
        """Hands the baton to the first in the queue."""
        if not self._queue:
            self._over.set()
            return
        place = heapq.heappop(self._queue)
        at_s = min(place.at_s, self._end_s)
        if at_s > self._now_s:
            self._now_s = at_s
            try:
                self._moved(at_s)
            except BaseException as error:  # told by `run`: whoever waits here has nothing to do with it
                self._failed, self._end_s = error, at_s
        place.turn.set()


class VirtualExecutor(Executor):
    """What is submitted runs in virtual time."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # a future carries whatever ended its work
                future.set_exception(error)
            else:
                future.set_result(result)

        self._time.begin(work)
        return future
