"""Sends at a rate and writes down what becomes of every request. One process, one event loop.

Its own limits show as such: how late each request was sent, what could not be sent at all, how much of a core it took.
"""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Callable, Sequence

from slotune.load.arrivals import arrivals
from slotune.load.wire import ConnectionLost, Pool
from slotune.stress.log import Log
from slotune.stress.model import BROKEN, LOCAL, LOST, OK, REFUSED, TIMED_OUT
from slotune.stress.protocols import Reader

_OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)


class Generator:
    """rate_per_s may be set at any time. reader: makes one for each request whose answer is streamed."""

    def __init__(
        self,
        pool: Pool,
        requests: Sequence[bytes],
        reader: Callable[[], Reader] | None,
        *,
        timeout_s: float,
        seed: int,
        most_under_way: int,
    ) -> None:
        self._pool, self._requests, self._reader = pool, requests, reader
        self._timeout_s, self._most = timeout_s, most_under_way
        self._random = random.Random(seed)
        self._under_way: set[asyncio.Task[None]] = set()
        self._sending: asyncio.Task[None] | None = None
        self.rate_per_s = 0.0
        self.log = Log()

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send_all())

    async def stop(self, last_s: float) -> None:
        """Send nothing more, wait at most `last_s` for what is under way, hang up on the rest."""
        if self._sending is not None:
            self._sending.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=last_s)
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._pool.close()

    def check(self) -> None:
        """Raises what ended the sending, if anything did."""
        if self._sending is not None and self._sending.done() and not self._sending.cancelled():
            self._sending.result()

    async def _send_all(self) -> None:
        async for due in arrivals(lambda _now: self.rate_per_s, self._random):
            index = self.log.begin(due)
            if len(self._under_way) >= self._most:
                self._ended(index, due, LOCAL, "not sent")
                continue
            task = asyncio.create_task(self._one(index, due))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _one(self, index: int, due: float) -> None:
        request = self._requests[self._random.randrange(len(self._requests))]
        reader = self._reader() if self._reader is not None else None
        self.log.sent(index, (time.monotonic() - due) * 1000.0)
        status, kind = OK, ""
        try:
            code = await self._pool.request(request, self._timeout_s, reader.feed if reader is not None else None)
            if not 200 <= code < 300:
                status, kind = REFUSED, str(code)
            elif reader is not None and not reader.whole:
                status, kind = BROKEN, "broken off"
        except TimeoutError:
            status, kind = TIMED_OUT, "timed out"
        except ConnectionLost:
            status, kind = LOST, "connection lost"
        except OSError as error:
            status, kind = (LOCAL, "not sent") if error.errno in _OURS else (LOST, "connection refused")
        self._ended(index, due, status, kind)
        if reader is not None and reader.times:
            self.log.first(index, (reader.times[0] - due) * 1000.0)
            for before, after in zip(reader.times, reader.times[1:], strict=False):
                self.log.gap(index, (after - before) * 1000.0)

    def _ended(self, index: int, due: float, status: int, kind: str) -> None:
        self.log.end(index, (time.monotonic() - due) * 1000.0, status)
        if kind:
            self.log.answers[kind] += 1
