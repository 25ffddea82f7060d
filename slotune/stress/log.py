"""What was sent and what became of it, as it happens; `Seen` is a frozen view of a part of it."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter

import numpy as np

from slotune.stress.model import PENDING, Seen


class Log:
    """Appended to by one event loop. A request is its index."""

    def __init__(self) -> None:
        self._due, self._lag, self._latency, self._first = (array("d") for _ in range(4))
        self._status = array("b")
        self._gap, self._gap_of = array("d"), array("q")
        self.answers: Counter[str] = Counter()
        """What came instead of good answers, by status code or kind."""

    def begin(self, due_s: float) -> int:
        self._due.append(due_s)
        for of in (self._lag, self._latency, self._first):
            of.append(float("nan"))
        self._status.append(PENDING)
        return len(self._due) - 1

    def sent(self, index: int, lag_ms: float) -> None:
        self._lag[index] = lag_ms

    def first(self, index: int, first_ms: float) -> None:
        self._first[index] = first_ms

    def gap(self, index: int, gap_ms: float) -> None:
        self._gap.append(gap_ms)
        self._gap_of.append(index)

    def end(self, index: int, latency_ms: float, status: int) -> None:
        self._latency[index], self._status[index] = latency_ms, status

    def since(self, due_s: float) -> tuple[int, int]:
        """The range of requests that were due from a moment on; they are in that order."""
        return bisect_left(self._due, due_s), len(self._due)

    def seen(self, first: int, last: int, now_s: float) -> Seen:
        """Requests first <= index < last as they stand at `now_s` (monotonic)."""
        due = np.array(self._due[first:last])
        status = np.array(self._status[first:last], dtype=np.int8)
        latency = np.array(self._latency[first:last])
        owner = np.array(self._gap_of, dtype=np.int64)
        inside = (owner >= first) & (owner < last)
        return Seen(
            due_s=due,
            lag_ms=np.array(self._lag[first:last]),
            latency_ms=np.where(status == PENDING, (now_s - due) * 1000.0, latency),
            first_ms=np.array(self._first[first:last]),
            status=status,
            gap_ms=np.array(self._gap)[inside] if owner.size else np.empty(0),
            gap_of=owner[inside] - first,
        )
