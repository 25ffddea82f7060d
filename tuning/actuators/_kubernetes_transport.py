"""One HTTP exchange with an API server, ended at a total deadline and bounded in size, whatever the server does.

A read time-out alone restarts with every byte: a body that dribbles would hold a sweep for hours. Here the sockets of
the exchange (TLS handshake, headers and body alike) are shut when its time is up.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from detection.http_access import unquoted

LIMIT_BYTES = 32 * 1024 * 1024
"""The largest answer that is read: a list of 3,000 pods has about 30 MiB."""
CHUNK_BYTES = 65536
CONNECT_S = 5.0
CONNECT_TRIES = 3
"""A connection that is refused or times out is tried so often in all, within the deadline."""


class TooSlow(HTTPError):
    """The exchange was not over at its deadline."""


class TooLarge(HTTPError):
    """The answer is larger than LIMIT_BYTES."""


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    data: bytes
    headers: Mapping[str, str]


class _Deadline:
    """Shuts the sockets it was shown when its time is up."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._over = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, sock: Any) -> None:
        """A duplicate is kept: wrapping a socket in TLS takes the original's descriptor away."""
        with self._lock:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                self._sockets.append(socket.socket(fileno=os.dup(sock.fileno())))
            if self.passed:
                self._shut()

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            for sock in self._sockets:
                sock.close()
            self._sockets.clear()

    def _cut(self) -> None:
        with self._lock:
            if not self._over:
                self.passed = True
                self._shut()

    def _shut(self) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


_now = threading.local()


def _watch(sock: Any) -> None:
    deadline = getattr(_now, "deadline", None)
    if deadline is not None and sock is not None:
        deadline.watch(sock)


class _Plain(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _watch(made)
        return made

    def request(self, *args: Any, **kwargs: Any) -> None:
        _watch(self.sock)
        super().request(*args, **kwargs)


class _Tls(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        _watch(made)
        return made

    def request(self, *args: Any, **kwargs: Any) -> None:
        _watch(self.sock)
        super().request(*args, **kwargs)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _Tls


def watched(pools: urllib3.PoolManager) -> urllib3.PoolManager:
    """The same pools, whose connections show their sockets to the deadline of the exchange."""
    pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
    return pools


def exchange(
    pools: urllib3.PoolManager,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout_s: float,
) -> Answer:
    """One request and its whole answer, within timeout_s. No redirect is followed.

    Raises urllib3's HTTPError (TooSlow, TooLarge among them) and OSError.
    """
    with _until(timeout_s) as deadline:
        try:
            response = pools.request(
                method,
                url,
                body=body,
                headers=dict(headers),
                preload_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=min(CONNECT_S, timeout_s / CONNECT_TRIES), read=timeout_s),
            )
            try:
                data = unquoted(_whole(response), headers, response.status)
                answer = Answer(response.status, data, dict(response.headers))
            except BaseException:
                response.close()
                raise
            response.release_conn()
        except (HTTPError, OSError) as error:
            if deadline.passed:
                raise TooSlow(f"no whole answer within {timeout_s:g} s") from error
            raise
        if deadline.passed:  # cut at the very end: what was read may be a part
            raise TooSlow(f"no whole answer within {timeout_s:g} s")
        return answer


def _whole(response: urllib3.BaseHTTPResponse) -> bytes:
    """The body as it was sent: compression was not asked for, so nothing is unpacked."""
    parts, size = [], 0
    while chunk := response.read(CHUNK_BYTES, decode_content=False):
        parts.append(chunk)
        size += len(chunk)
        if size > LIMIT_BYTES:
            raise TooLarge(f"the answer has more than {LIMIT_BYTES // 2**20} MiB")
    return b"".join(parts)


@contextlib.contextmanager
def _until(seconds: float) -> Iterator[_Deadline]:
    deadline = _Deadline(seconds)
    _now.deadline = deadline
    try:
        yield deadline
    finally:
        _now.deadline = None
        deadline.end()
