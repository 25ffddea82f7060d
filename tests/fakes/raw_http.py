"""A loopback server whose every byte a test decides: handler(connection, request) writes what it likes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

Handler = Callable[[socket.socket, bytes], None]


@contextlib.contextmanager
def raw_server(handler: Handler, *, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server that calls `handler` for each request, each on its own thread; closed at the end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            handler(connection, request_of(connection))
        with contextlib.suppress(OSError):
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def request_of(connection: socket.socket) -> bytes:
    """A whole request: head and body."""
    connection.settimeout(20)
    data = b""
    while b"\r\n\r\n" not in data:
        got = connection.recv(65536)
        if not got:
            return data
        data += got
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def respond(connection: socket.socket, body: bytes = b"", status: str = "200 OK", **headers: str) -> None:
    """A whole answer; a header's underscores are dashes."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode("latin-1") + body)
