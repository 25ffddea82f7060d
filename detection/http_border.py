"""One HTTP exchange that cannot run away: one deadline for all of it, caps on every size, no redirect followed.

`exchange` is what every HTTP client of slotune stands on. It answers with what came (any status), or raises
HttpFailure with one of a few kinds; `sent` says whether the request may have reached the server, which decides what a
failure means for a change. Nothing else leaves it. Proxies of the environment (`HTTPS_PROXY`, `NO_PROXY`) are used.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from detection.errors import ConfigError
from detection.http_access import Access, Address, unquoted
from detection.http_socket import Clock, Deadline, DeadlineSocket, over_tls, socket_to

Kind = Literal["address", "unresolved", "refused", "tls", "timeout", "cut", "too_large", "encoding"]
_CHUNK_BYTES = 1 << 16
_ERROR_BYTES = 1 << 16


class HttpFailure(Exception):
    """No usable answer. kind: why. sent: whether the request can have reached the server."""

    def __init__(self, kind: Kind, *, sent: bool, detail: str = "") -> None:
        super().__init__(kind)
        self.kind: Kind = kind
        self.sent = sent
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Limits:
    """total_s: from the name's resolution to the body's last byte. body_bytes: before and after decompression."""

    total_s: float = 10.0
    body_bytes: int = 4 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. headers: lower-case names, one value each. body: decompressed; of 3xx, 4xx, 5xx the first 64 KiB.
    The request's own credentials stand there as ***: some servers repeat them, and errors are quoted."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def exchange(
    method: str,
    at: Address,
    path: str,
    *,
    access: Access | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    limits: Limits | None = None,
    clock: Clock = time.monotonic,
) -> Answer:
    """One request and its whole answer. path: below the address' own path, with its query. Raises HttpFailure."""
    access, limits = access or Access(), limits or Limits()
    deadline = Deadline(limits.total_s, clock)
    target = at.path + path
    sock, absolute, proxy_headers = _connected(at, access, deadline)
    connection = http.client.HTTPConnection(at.host, at.port)
    connection.sock = DeadlineSocket(sock, deadline)
    given = {"Host": at.origin, "Accept-Encoding": "gzip", "Connection": "close", "User-Agent": "slotune"}
    given |= dict(access.headers) | dict(headers or {}) | proxy_headers
    with contextlib.closing(sock), _named(sent=True):
        try:
            connection.request(method, f"http://{at.origin}{target}" if absolute else target or "/", body, given)
        except (ValueError, UnicodeError, http.client.InvalidURL) as error:
            raise HttpFailure("address", sent=False) from error
        with contextlib.closing(connection.getresponse()) as response:
            found = {name.lower(): value for name, value in response.getheaders()}
            data = _body(response, found, limits, deadline)
            return Answer(response.status, found, unquoted(data, given, response.status))
    raise AssertionError("unreachable")


def retry_after_s(value: str | None, *, default_s: float, now_s: float, most_s: float = 300.0) -> float:
    """Seconds of a Retry-After header (a number or a date), within 0..most_s; the default where it says neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), most_s))
    with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
        return min(max(email.utils.parsedate_to_datetime(text).timestamp() - now_s, 0.0), most_s)
    return default_s


def _connected(at: Address, access: Access, deadline: Deadline) -> tuple[socket.socket, bool, dict[str, str]]:
    """A socket to the server (or a proxy), whether the request needs the absolute address, and a proxy's headers."""
    try:
        context = access.tls.context() if at.scheme == "https" else None
    except ConfigError as error:
        raise HttpFailure("tls", sent=False, detail=str(error)) from error
    with _named(sent=False):
        name = access.tls.server_name or at.host
        proxy = _proxy(at, access.proxy)
        if proxy is None:
            sock = socket_to(at.host, at.port, deadline)
            return (sock if context is None else over_tls(sock, context, name, deadline)), False, {}
        place, credentials = proxy
        sock = socket_to(place.host, place.port, deadline)
        if context is None:
            return sock, True, credentials
        _tunnel(sock, at, credentials, deadline)
        return over_tls(sock, context, name, deadline), False, {}
    raise AssertionError("unreachable")


def _proxy(at: Address, named: str | None) -> tuple[Address, dict[str, str]] | None:
    text = named or getproxies().get(at.scheme) or getproxies().get("all")
    if not text or (named is None and proxy_bypass(at.host)):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http" or not parts.hostname:
        return None
    given = Access.of({}, parts.username, parts.password).headers
    return Address("http", parts.hostname, parts.port or 80), {f"Proxy-{name}": value for name, value in given}


def _tunnel(sock: socket.socket, at: Address, credentials: Mapping[str, str], deadline: Deadline) -> None:
    through = DeadlineSocket(sock, deadline)
    lines = [f"CONNECT {at.place} HTTP/1.1", f"Host: {at.place}", *(f"{k}: {v}" for k, v in credentials.items())]
    through.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head = b""
    while b"\r\n\r\n" not in head:
        got = through.recv(1)
        if not got or len(head) > _ERROR_BYTES:
            raise ConnectionError("the proxy hung up")
        head += got
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise ConnectionError("the proxy refuses")


def _body(
    response: http.client.HTTPResponse, headers: Mapping[str, str], limits: Limits, deadline: Deadline
) -> bytes:
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise HttpFailure("encoding", sent=True)
    failed = response.status >= 300
    most = min(_ERROR_BYTES, limits.body_bytes) if failed else limits.body_bytes
    unpack = zlib.decompressobj(47) if encoding in ("gzip", "x-gzip", "deflate") else None
    parts: list[bytes] = []
    size = wire = 0
    while chunk := response.read1(_CHUNK_BYTES):
        deadline.left_s()
        wire += len(chunk)
        while chunk:
            part = chunk if unpack is None else unpack.decompress(chunk, _CHUNK_BYTES)
            chunk = b"" if unpack is None else unpack.unconsumed_tail
            parts.append(part)
            size += len(part)
            if max(size, wire) > most:
                if failed:
                    return b"".join(parts)[:most]
                raise HttpFailure("too_large", sent=True)
    # read1 answers nothing both at the end and where the connection broke off before it
    if response.length or (unpack is not None and wire and not unpack.eof):
        raise HttpFailure("cut", sent=True)
    if unpack is not None and unpack.unused_data:
        raise HttpFailure("encoding", sent=True)
    return b"".join(parts)


@contextlib.contextmanager
def _named(*, sent: bool) -> Iterator[None]:
    """The errors of sockets, TLS, HTTP and zlib as HttpFailure."""
    try:
        yield
    except (HttpFailure, ConfigError):
        raise
    except TimeoutError as error:
        raise HttpFailure("timeout", sent=sent) from error
    except ssl.SSLError as error:
        kind: Kind = "cut" if sent else "tls"
        raise HttpFailure(kind, sent=sent, detail=getattr(error, "verify_message", "") or "") from error
    except socket.gaierror as error:
        raise HttpFailure("unresolved", sent=False) from error
    except (OSError, http.client.HTTPException, zlib.error, ValueError, OverflowError) as error:
        kind = "cut" if sent else "refused"
        raise HttpFailure(kind, sent=sent, detail=type(error).__name__) from error
