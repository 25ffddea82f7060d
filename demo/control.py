"""One /config for a fleet of replicas: a change reaches every replica, also those that start later."""

from __future__ import annotations

import json
import threading
import urllib.error
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from demo import web
from demo.processes import LOOPBACK

KNOBS = ("batch_size", "batch_timeout_ms", "max_queue")


class FleetControl:
    """GET /config answers what the replicas agree on (409 when they differ); POST sets them all."""

    def __init__(self, addresses: Callable[[], Sequence[str]]) -> None:
        self._addresses = addresses
        control = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*control.get() if self.path == "/config" else (404, {"error": "only /config is here"}))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer(*control.set(body))

            def _answer(self, code: int, document: dict[str, Any]) -> None:
                text = json.dumps(document).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        self.wanted: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._server.serve_forever, name="fleet-control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self) -> tuple[int, dict[str, Any]]:
        try:
            answers = [web.call(f"http://{a}/config") for a in self._addresses()]
        except OSError as failure:
            return 503, {"error": f"a replica does not answer: {failure}"}
        if not answers:
            return 503, {"error": "no replica is ready"}
        if len({tuple(a[k] for k in KNOBS) for a in answers}) > 1:
            return 409, {"error": "the replicas differ", "replicas": [{k: a[k] for k in KNOBS} for a in answers]}
        return 200, {**answers[0], "replicas": len(answers)}

    def set(self, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            wish = json.loads(body)
            for address in self._addresses():
                web.call(f"http://{address}/config", wish)
        except ValueError:
            return 400, {"error": "the body is not JSON"}
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.loads(refusal.read() or b'{"error": "refused"}')
        except OSError as failure:
            return 503, {"error": f"a replica does not answer: {failure}"}
        self.wanted.update({k: wish[k] for k in KNOBS if k in wish})
        return self.get()

    def teach(self, address: str) -> None:
        """Tell a replica that just started what the others were told."""
        if self.wanted:
            web.call(f"http://{address}/config", self.wanted)
