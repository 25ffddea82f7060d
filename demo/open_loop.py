"""Open-loop load at scheduled rates (`slotune.load.arrivals` says when requests are sent).

The control file (JSON, replaced as a whole, read again when it changes) holds {"endpoints": ["127.0.0.1:9000", ...],
"model": "ranker", "schedule": [[rate, seconds or null], ...], "schedule_id": 1}; a new schedule_id starts its schedule
from the beginning. The out file gets one JSON line per second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from slotune.load.arrivals import POLL_S, arrivals

LAST_S = 1.0
"""How long requests under way are waited for at the end."""


@dataclass(frozen=True)
class Control:
    """The content of the control file."""

    endpoints: tuple[str, ...]
    schedule: tuple[tuple[float, float | None], ...]
    schedule_id: int
    model: str = "ranker"

    @classmethod
    def read(cls, path: Path) -> Control:
        document = json.loads(path.read_text())
        return cls(
            tuple(document["endpoints"]),
            tuple((float(rate), None if s is None else float(s)) for rate, s in document["schedule"]),
            int(document["schedule_id"]),
            document.get("model", "ranker"),
        )

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({
            "endpoints": self.endpoints, "schedule": self.schedule,
            "schedule_id": self.schedule_id, "model": self.model}))  # fmt: skip
        partial.replace(path)


def rate_at(schedule: tuple[tuple[float, float | None], ...], elapsed_s: float) -> float:
    """Requests per second now; 0 after the schedule's end."""
    for rate, seconds in schedule:
        if seconds is None or elapsed_s < seconds:
            return rate
        elapsed_s -= seconds
    return 0.0


class Counts(Protocol):
    """What happened in one second."""

    sent: int

    def line(self, t: float, under_way: int, rate: float) -> str: ...


S = TypeVar("S", bound=Counts)


class OpenLoop(ABC, Generic[S]):
    """When requests are sent, and that they are counted; what a request is, is its subclass's. max_requests, max_s:
    when it ends by itself."""

    def __init__(
        self, control: Path, out: Path, seed: int, *, max_requests: float = math.inf, max_s: float = math.inf
    ) -> None:
        self._path, self._out, self._random = control, out, random.Random(seed)
        self._max_requests, self._max_s = max_requests, max_s
        self._control = Control.read(control)
        self._changed_ns = control.stat().st_mtime_ns
        self._schedule_started = time.monotonic()
        self._second = self._begin()
        self._under_way: set[asyncio.Task[None]] = set()
        self._sent = 0
        self.stop = asyncio.Event()

    @abstractmethod
    def _begin(self) -> S:
        """A second in which nothing has happened."""

    @abstractmethod
    async def _one(self, due: float) -> None:
        """Send a request and count what becomes of it. due: when it was meant to be sent (monotonic seconds)."""

    def _send(self, due: float) -> None:
        task = asyncio.create_task(self._one(due))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _controlled(self) -> None:
        """The control file has changed."""

    async def run(self) -> None:
        """Until it ends by itself or by SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop.set)
        work = [asyncio.create_task(one()) for one in (self._send_all, self._follow_control, self._write_seconds)]
        stopper = asyncio.create_task(self.stop.wait())
        await asyncio.wait([stopper, *work], return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await asyncio.gather(*self._under_way, return_exceptions=True)
        for task in (stopper, *work):
            task.cancel()
        for task in work:
            if task.done() and not task.cancelled() and task.exception():
                raise task.exception()  # type: ignore[misc]

    async def _send_all(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._max_s if math.isfinite(self._max_s) else None):
                async for due in arrivals(self._rate, self._random):
                    self._sent += 1
                    self._second.sent += 1
                    self._send(due)
                    if self._sent >= self._max_requests:
                        return

    def _rate(self, now: float) -> float:
        """Requests per second at a time (monotonic seconds)."""
        return rate_at(self._control.schedule, now - self._schedule_started) if self._control.endpoints else 0.0

    async def _follow_control(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns == self._changed_ns:
                continue
            old, self._control, self._changed_ns = self._control, Control.read(self._path), changed_ns
            if self._control.schedule_id != old.schedule_id:
                self._schedule_started = time.monotonic()
            self._controlled()

    async def _write_seconds(self) -> None:
        offset = time.time() - time.monotonic()
        with self._out.open("a") as out:
            while True:
                await asyncio.sleep(1.0)
                second, self._second = self._second, self._begin()
                now = time.monotonic()
                rate = rate_at(self._control.schedule, now - self._schedule_started)
                out.write(second.line(now + offset, len(self._under_way), rate) + "\n")
                out.flush()
