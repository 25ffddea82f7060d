"""Catches what is posted to it, and answers as it is told: a chat's webhook, a pager, an API. Real HTTP on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Catcher:
    """posts: (path, headers, body as JSON, else text). status: what it answers. answers: bodies of GETs by path."""

    port: int = 0
    status: int = 200
    said: str = "ok"
    posts: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[Any]:
        return [body for _, _, body in self.posts]


@contextmanager
def catching() -> Iterator[Catcher]:
    kept = Catcher()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            try:
                body: Any = json.loads(data)
            except ValueError:
                body = data
            kept.posts.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self._answer(kept.said)

        def do_GET(self) -> None:
            self._answer(kept.answers.get(self.path, kept.said))

        def _answer(self, text: str) -> None:
            self.send_response(kept.status)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
