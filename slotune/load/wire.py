"""HTTP/1.1 as load is sent: keep-alive connections, whole requests as prepared bytes, no library.

A client library costs 200 to 400 us per request, which at 400 requests per second would be a visible part of a core
that the service may share; this costs about 30 us. Bodies come with a length, in chunks, or until the connection's end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

Feed = Callable[[bytes], None]
_LONGEST_HEAD = 1 << 16


class ConnectionLost(Exception):
    """The server closed the connection before the answer was complete."""


class NotHttp(ConnectionLost):
    """What came is no HTTP/1.1 answer."""


class Wire(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._feed: Feed | None = None
        self._body = _Body()
        self._buffer = b""
        self._headed = False
        self._status = 0
        self.head = b""
        self.heard = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def send(self, request: bytes, feed: Feed | None = None) -> asyncio.Future[int]:
        """Write the request; the future gets the status code when the whole answer is there. feed: gets the body, piece
        by piece as it comes."""
        if self._transport is None:
            raise RuntimeError("a request was sent before the connection was made")
        self._answer = asyncio.get_running_loop().create_future()
        self._buffer, self._headed, self.heard, self._feed = b"", False, False, feed
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if not self._headed:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _LONGEST_HEAD or not self._buffer.startswith(b"HTTP/"[: len(self._buffer)]):
                    self._fail(NotHttp())
                return
            self.head, data = self._buffer[:end], self._buffer[end + 4 :]
            if not self.head.startswith(b"HTTP/1.") or not self.head[9:12].isdigit():
                self._fail(NotHttp())
                return
            self._status, self._headed = int(self.head[9:12]), True
            self._body = _Body.of(self.head, self._status)
        try:
            self._body.take(data, self._feed)
        except ValueError:
            self._fail(NotHttp())
            return
        if self._body.done:
            self._finish()

    def eof_received(self) -> None:
        if self._headed and self._body.until_end:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._headed and self._body.until_end and exc is None:
            self._finish()
        self._fail(ConnectionLost())

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        if self._body.until_end or b"\r\nconnection: close" in self.head.lower():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._status)

    def _fail(self, error: Exception) -> None:
        if not self.closed:
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class _Body:
    """Where an answer's body ends. until_end: at the connection's end."""

    def __init__(self, missing: int = 0, *, chunked: bool = False, until_end: bool = False) -> None:
        self._missing, self._chunked, self.until_end = missing, chunked, until_end
        self._line = b""
        self._last = False
        self.done = missing == 0 and not chunked and not until_end

    @classmethod
    def of(cls, head: bytes, status: int) -> _Body:
        if status in (204, 304):
            return cls()
        lower = head.lower()
        if b"chunked" in _field(lower, b"transfer-encoding"):
            return cls(chunked=True)
        length = _field(lower, b"content-length")
        if not length and b" 200" not in head[:13]:
            return cls()  # an error without a body
        return cls(int(length)) if length else cls(until_end=True)

    def take(self, data: bytes, feed: Feed | None) -> None:
        """ValueError where the chunks are none."""
        while data and not self.done:
            if self._missing or self.until_end:
                piece, data = (data, b"") if self.until_end else (data[: self._missing], data[self._missing :])
                self._missing = 0 if self.until_end else self._missing - len(piece)
                if feed is not None:
                    feed(piece)
                self.done = not self._missing and not self.until_end and not self._chunked
            else:
                data = self._chunk_line(data)

    def _chunk_line(self, data: bytes) -> bytes:
        """Reads the line before a chunk, or of the trailer after the last one."""
        at = data.find(b"\n")
        self._line += data if at < 0 else data[:at]
        if at < 0:
            return b""
        line, self._line = self._line.strip(), b""
        if self._last:
            self.done = not line
        elif line:
            self._missing = int(line.split(b";")[0], 16)
            self._last = self._missing == 0
        return data[at + 1 :]


def _field(lower: bytes, name: bytes) -> bytes:
    start = lower.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    stop = lower.find(b"\r\n", start + 2)
    return lower[start + len(name) + 3 : stop if stop > 0 else None].strip()


class Pool:
    """Keep-alive connections to one server. Fewest requests under way first is the caller's choice (`under_way`)."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.host, self.port, self._tls = host, port, tls
        self.under_way = 0
        self._idle: list[Wire] = []

    async def request(self, prepared: bytes, timeout_s: float, feed: Feed | None = None) -> int:
        """Status code of the answer. Raises OSError, ConnectionLost or TimeoutError.

        A kept connection that the server has closed meanwhile, before it could answer anything, is no answer of the
        server: the request goes out once more on a fresh one.
        """
        return (await self.exchange(prepared, timeout_s, feed))[0]

    async def exchange(self, prepared: bytes, timeout_s: float, feed: Feed | None = None) -> tuple[int, bytes]:
        """The same, with the head of the answer."""
        self.under_way += 1
        wire: Wire | None = None
        try:
            async with asyncio.timeout(timeout_s):
                wire = self._take()
                if wire is not None:
                    try:
                        return await self._sent(wire, prepared, feed)
                    except ConnectionLost:
                        if wire.heard:
                            raise
                wire = await self._connect()
                return await self._sent(wire, prepared, feed)
        except BaseException:
            if wire is not None:
                wire.close()
            raise
        finally:
            self.under_way -= 1

    async def _sent(self, wire: Wire, prepared: bytes, feed: Feed | None) -> tuple[int, bytes]:
        status = await wire.send(prepared, feed)
        if not wire.closed:
            self._idle.append(wire)
        return status, wire.head

    def _take(self) -> Wire | None:
        while self._idle:
            wire = self._idle.pop()
            if not wire.closed:
                return wire
        return None

    async def _connect(self) -> Wire:
        loop = asyncio.get_running_loop()
        if self._tls is None:
            _, wire = await loop.create_connection(Wire, self.host, self.port)
        else:
            _, wire = await loop.create_connection(Wire, self.host, self.port, ssl=self._tls, server_hostname=self.host)
        return wire

    def close(self) -> None:
        """Close what is idle; requests under way finish."""
        while self._idle:
            self._idle.pop().close()
