"""A connection with one deadline: resolving, connecting, a proxy's tunnel, TLS and every read and write together.

A time-out per socket read lets a server that sends one byte a second hold a caller for ever; here each operation gets
what is left until the deadline. `socket_to` also serves clients of other protocols (smtplib takes a socket as well).
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

Clock = Callable[[], float]


class Deadline:
    """A moment on a monotonic clock. `left_s()` raises TimeoutError once it has passed."""

    def __init__(self, total_s: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._until_s = clock() + total_s

    def left_s(self) -> float:
        left_s = self._until_s - self._clock()
        if left_s <= 0:
            raise TimeoutError
        return left_s


class DeadlineSocket:
    """A socket whose operations together end at a deadline; enough of one for http.client and smtplib."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(self._deadline.left_s())
        # sendall treats the time-out as one for the whole of it
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        self._sock.settimeout(self._deadline.left_s())
        return self._sock.recv(size)

    def makefile(self, mode: str = "rb", buffering: int | None = None, **_: Any) -> io.BufferedReader:
        raw = self._sock.makefile("rb", buffering=0)
        return io.BufferedReader(_DeadlineReads(raw, self._sock, self._deadline), io.DEFAULT_BUFFER_SIZE)

    def settimeout(self, _: float | None) -> None:
        """The deadline stands, whatever a client sets for one operation."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _DeadlineReads(io.RawIOBase):
    def __init__(self, raw: Any, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left_s())
        size: int | None = self._raw.readinto(buffer)
        return size

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def socket_to(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A connected TCP socket. Raises TimeoutError, socket.gaierror (no such name) or another OSError."""
    last: OSError = OSError("no address")
    for family, kind, protocol, _, place in _resolved(host, port, deadline):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left_s())
            sock.connect(place)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last


def over_tls(sock: socket.socket, context: ssl.SSLContext, host: str, deadline: Deadline) -> ssl.SSLSocket:
    """The same connection behind TLS. Raises TimeoutError or ssl.SSLError; the socket is closed then."""
    try:
        # the handshake treats the time-out as one for the whole of it
        sock.settimeout(deadline.left_s())
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _resolved(host: str, port: int, deadline: Deadline) -> list[Any]:
    """getaddrinfo, which has no time-out of its own, awaited no longer than the deadline allows."""
    found: list[Any] = []
    failed: list[BaseException] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            failed.append(error)

    worker = threading.Thread(target=resolve, daemon=True, name="resolve")
    worker.start()
    worker.join(deadline.left_s())
    if failed:
        error = failed[0]
        raise error if isinstance(error, OSError) else socket.gaierror(socket.EAI_NONAME, "not a host name")
    if not found:
        raise TimeoutError
    return found
