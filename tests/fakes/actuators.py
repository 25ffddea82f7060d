"""Stand-ins for what actuators talk to: connections, time, and a control endpoint on a real loopback socket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from detection.model import Lever, Service, Slo
from tuning.errors import ConfigError
from tuning.ports import Connection


class FakeConnections:
    """Connections from a mapping of names to URLs or to whole connections."""

    def __init__(self, known: Mapping[str, str | Connection]) -> None:
        self.known = dict(known)
        self.asked: list[str] = []

    def get(self, name: str) -> Connection:
        self.asked.append(name)
        if name not in self.known:
            raise ConfigError(f"no connection {name}; set SLOTUNE_CONN_{name.upper()}")
        found = self.known[name]
        return found if isinstance(found, Connection) else Connection(name=name, url=found)


class FakeTime:
    """A clock that only moves when somebody sleeps, with things that happen at given times."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s
        self.slept: list[float] = []
        self.on_sleep: Callable[[float], None] | None = None

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        if self.on_sleep:
            self.on_sleep(self.now_s)


def service(
    lever: str, actuator: str, name: str = "ranker", *, minimum: float = 1, maximum: float = 64, **options: object
) -> Service:
    """A service with one lever."""
    return Service(
        name=name,
        serving="slotune_demo",
        slo=Slo(p95_ms=100),
        mode="act",
        levers={lever: Lever(name=lever, actuator=actuator, minimum=minimum, maximum=maximum, options=dict(options))},
    )


class ConfigEndpoint:
    """`GET`/`POST /config` on a real socket. `plan` holds what the next calls do instead of answering well.

    An entry is (method, what): an int answers that status, "drop" closes the connection after the body was read,
    "drop-applied" applies first, "hang" waits longer than any time-out, "ignore" answers 200 and changes nothing,
    bytes are sent as the body with status 200.
    """

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.config: dict[str, Any] = config or {"batch_size": 1, "batch_timeout_ms": 2.0, "model": "ranker"}
        self.plan: list[tuple[str, Any]] = []
        self.calls: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        self.calls.append((handler.command, body))
        self.headers.append(dict(handler.headers))
        what = self.plan.pop(0)[1] if self.plan and self.plan[0][0] == handler.command else None
        if what == "hang":
            time.sleep(0.6)
            return
        if what in ("drop", "drop-applied"):
            if what == "drop-applied" and body:
                self.config.update(body)
            return
        if isinstance(what, int):
            self._send(handler, what, json.dumps({"error": f"no: {what} because the fake says so"}).encode())
            return
        if isinstance(what, bytes):
            self._send(handler, 200, what)
            return
        if handler.command == "POST" and body and what != "ignore":
            self.config.update(body)
        self._send(handler, 200, json.dumps(self.config).encode())

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, data: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


@contextmanager
def config_endpoint(config: dict[str, Any] | None = None) -> Iterator[ConfigEndpoint]:
    """A ConfigEndpoint that listens on a free loopback port; its address is `.url`."""
    endpoint = ConfigEndpoint(config)
    with serving(endpoint._answer) as url:
        endpoint.url = url
        yield endpoint


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A loopback HTTP server whose every request goes to `answer`; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
