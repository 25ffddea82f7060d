"""Many simulated services in real time, outside of everything that is killed: their metrics and their control over HTTP.

Each service is the fluid model of tests.fakes.world on the wall clock. Prometheus' range queries are answered from the
model (a query is recognised by its preset's template), `GET`/`POST /NAME/config` is the control endpoint, and every
value that really took effect is kept, with its time, for the comparison with the ledger.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from detection import presets
from detection.model import Span
from tests.fakes.world import START_S, World

CALM_QPS = 60.0


@dataclass(frozen=True)
class Story:
    """What happens to one service: from `surge_s` (epoch seconds) on `qps` and `errors`; what a larger batch does."""

    name: str
    qps: float
    batch_hurts: float = 1.0
    errors: float = 0.0
    mode: str = "act"


CURE = Story("cure", 180.0)
HARM = Story("harm", 130.0, batch_hurts=40.0)
ASKED = Story("asked", 180.0, mode="approve")
ERRORS = Story("errors", 60.0, errors=0.2)


@dataclass(frozen=True)
class Landing:
    """A value that took effect. seen_s: when the endpoint was told."""

    at_s: float
    old: int
    new: int


@dataclass
class FleetService:
    """One service; `told` counts what the control endpoint was asked to set, `landings` what that changed."""

    name: str
    story: Story
    surge_s: float = float("inf")
    told: list[tuple[float, int]] = field(default_factory=list)
    landings: list[Landing] = field(default_factory=list)
    began_s: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._world = World(
            qps=lambda t: self.story.qps if self._surging(t) else CALM_QPS,
            error_share=lambda t: self.story.errors if self._surging(t) else 0.0,
            batch_hurts=self.story.batch_hurts,
        )

    def _surging(self, t: float) -> bool:
        return t + self.began_s >= self.surge_s

    @property
    def batch_size(self) -> int:
        return int(self._world.batch_size)

    def set(self, value: int) -> None:
        with self._lock:
            now_s = time.time()
            self._advance(now_s)
            self.told.append((now_s, value))
            if value != self._world.batch_size:
                self.landings.append(Landing(now_s, int(self._world.batch_size), value))
            self._world.batch_size = value

    def values(self, signal: str, span: Span) -> np.ndarray:
        with self._lock:
            self._advance(time.time())
            shift_s = START_S - self.began_s
            return self._world.values(signal, Span(span.start_s + shift_s, span.end_s + shift_s, span.step_s))

    def _advance(self, now_s: float) -> None:
        self._world.wait_until(START_S + now_s - self.began_s)


class Fleet:
    """The HTTP server of all services. on_step: called with the JSON body of every POST /step, before its answer.

    on_config: called with (service name, "before landing" or "after landing") around every value that is set.
    """

    def __init__(
        self,
        services: Mapping[str, FleetService],
        on_step: Callable[[dict[str, Any]], None],
        on_config: Callable[[str, str], None],
    ) -> None:
        self.services = services
        self.on_step, self.on_config = on_step, on_config
        self._queries = templates()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, form: Mapping[str, str]) -> bytes:
        """A range query's matrix; empty for a signal that the model does not have, and for series by replica."""
        query = form["query"]
        span = Span(float(form["start"]), float(form["end"]), float(form["step"]))
        signal = next((name for name, pattern in self._queries if pattern.fullmatch(query)), None)
        result = []
        if signal is not None and "replica" not in query:
            asked = re.search(r'service=~?"([^"]*)"', query)
            wanted = asked.group(1).replace("\\\\", "").split("|") if asked else []
            times = [float(t) for t in span.times()]
            for name in wanted:
                values = self.services[name].values(signal, span)
                samples = [[t, repr(float(v))] for t, v in zip(times, values, strict=True) if np.isfinite(v)]
                if samples:
                    result.append({"metric": {"service": name}, "values": samples})
        body = {"status": "success", "data": {"resultType": "matrix", "result": result}}
        return json.dumps(body, separators=(",", ":")).encode()


def templates() -> list[tuple[str, re.Pattern[str]]]:
    """The queries of the demo server's preset as patterns: whatever services and labels they ask for."""
    preset = presets.get("slotune_demo")
    found = []
    for signal, template in preset.signals.items():
        query = preset.query(template, selector="SELECTOR", by="LABELS", window="WINDOW", names={})
        pattern = re.escape(query).replace("SELECTOR", "[^}]*").replace("LABELS", "[^)]*").replace("WINDOW", "[^]]*")
        found.append((signal, re.compile(pattern)))
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, fleet: Fleet, *args: Any) -> None:
        self.fleet = fleet
        super().__init__(*args)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # who asked is dead: that is what this campaign is about
            super().handle()

    def do_GET(self) -> None:
        service = self._service()
        if service is None:
            self._send(404, b'{"error":"no such service"}')
            return
        self._send_config(service)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == "/api/v1/query_range":
            self._send(200, self.fleet.answer({k: v[0] for k, v in parse_qs(body.decode()).items()}))
        elif self.path == "/step":
            self.fleet.on_step(json.loads(body))
            self._send(200, b"{}")
        elif (service := self._service()) is not None:
            self.fleet.on_config(service.name, "before landing")
            service.set(int(json.loads(body)["batch_size"]))
            self.fleet.on_config(service.name, "after landing")
            self._send_config(service)
        else:
            self._send(404, b'{"error":"no such service"}')

    def _service(self) -> FleetService | None:
        name, _, rest = self.path.strip("/").partition("/")
        return self.fleet.services.get(name) if rest == "config" else None

    def _send_config(self, service: FleetService) -> None:
        self._send(200, json.dumps({"batch_size": service.batch_size, "batch_timeout_ms": 0.0}).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
