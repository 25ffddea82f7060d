"""From waiting requests to batches: `batch_size` rows, or what is there `batch_timeout_ms` after the first came."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from demo.server.faults import Faults
from demo.server.metrics import Metrics
from demo.server.repository import Repository, Version
from demo.server.sample import Reservoir


class QueueFull(Exception):
    """max_queue requests wait already."""


@dataclass
class Limits:
    """What can be changed while serving. batch_timeout_ms 0: take what is there."""

    batch_size: int = 1
    batch_timeout_ms: float = 0.0


class Waiting:
    """One request in the queue; `answer` gets (output rows, version)."""

    __slots__ = ("answer", "arrived", "rows")

    def __init__(self, rows: np.ndarray, arrived: float, answer: asyncio.Future[tuple[np.ndarray, Version]]) -> None:
        self.rows, self.arrived, self.answer = rows, arrived, answer


class Batcher:
    """The queue and the one worker that empties it. Single-threaded: everything runs on the event loop."""

    def __init__(
        self,
        repository: Repository,
        metrics: Metrics,
        limits: Limits,
        *,
        max_queue: int,
        reservoir: Reservoir,
        faults: Faults,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._repository, self._metrics, self._clock = repository, metrics, clock
        self.limits, self.max_queue, self.reservoir, self.faults = limits, max_queue, reservoir, faults
        self._queue: deque[Waiting] = deque()
        self._rows_waiting = 0
        self._wake: asyncio.Future[None] | None = None
        self._wake_at_rows = 1
        self._last_arrival: float | None = None
        self._working = False

    def submit(self, rows: np.ndarray) -> asyncio.Future[tuple[np.ndarray, Version]]:
        """Queue the rows of one request. Raises QueueFull."""
        now = self._clock()
        self._note_arrival(now)
        if len(self._queue) >= self.max_queue:
            raise QueueFull
        answer: asyncio.Future[tuple[np.ndarray, Version]] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(rows, now, answer))
        self._rows_waiting += len(rows)
        if self._rows_waiting >= self._wake_at_rows:
            self.wake()
        return answer

    def wake(self) -> None:
        """Look at the queue again: rows came, or the limits changed."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def depth(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        return not self._queue and not self._working

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await self._until_batch_is_due()
            self._working = True
            try:
                if batch := self._take():
                    await self._serve(batch)
            finally:
                self._working = False

    async def _until_batch_is_due(self) -> None:
        while not self._queue:
            await self._sleep(rows=1, until=None)
        while self._rows_waiting < self.limits.batch_size:
            due = self._queue[0].arrived + self.limits.batch_timeout_ms / 1000
            if self._clock() >= due:
                return
            await self._sleep(rows=self.limits.batch_size, until=due)

    async def _sleep(self, rows: int, until: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._wake_at_rows, self._wake = rows, loop.create_future()
        timer = None if until is None else loop.call_later(max(0.0, until - self._clock()), self.wake)
        try:
            await self._wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _take(self) -> list[Waiting]:
        """At least one request, more while they fit; those whose caller hung up are left out (perhaps all of them)."""
        batch: list[Waiting] = []
        rows = 0
        while self._queue and (not batch or rows + len(self._queue[0].rows) <= self.limits.batch_size):
            waiting = self._queue.popleft()
            self._rows_waiting -= len(waiting.rows)
            if not waiting.answer.cancelled():
                batch.append(waiting)
                rows += len(waiting.rows)
        return batch

    async def _serve(self, batch: list[Waiting]) -> None:
        version = self._repository.active
        assert version is not None
        rows = batch[0].rows if len(batch) == 1 else np.concatenate([w.rows for w in batch])
        started = self._clock()
        for waiting in batch:
            self._metrics.queue_seconds.observe(started - waiting.arrived)
        try:
            out, seconds = await version.model.infer(rows)
            seconds += await self.faults.slow_down(seconds)
        except Exception as failure:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(RuntimeError(str(failure)))
            return
        series = self._metrics.of(version.name, version.precision)
        series.batch(len(rows), seconds)
        ended, at = self._clock(), 0
        for waiting in batch:
            n = len(waiting.rows)
            if not waiting.answer.done():
                waiting.answer.set_result((out[at : at + n], version))
            series.request_seconds.observe(ended - waiting.arrived)
            at += n
        self.reservoir.add(rows)
        await self.faults.shadow(self._repository, self._metrics, rows, out)

    def _note_arrival(self, now: float) -> None:
        if self._last_arrival is not None:
            gap = now - self._last_arrival
            self._metrics.interarrival_sum.inc(gap)
            self._metrics.interarrival_square.inc(gap * gap)
            self._metrics.interarrival_count.inc()
        self._last_arrival = now
