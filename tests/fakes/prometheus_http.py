"""A tiny HTTP server that answers like Prometheus, or badly in a chosen way. In-process, on a free loopback port."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Series = tuple[dict[str, str], Callable[[float], str | None]]


class FakePrometheus:
    """`series` by a piece of the query that must occur in it; the first match answers. `behave` makes it fail.

    behave: ok, slow, hang_body, half, garbage, html, error_body, empty, or an HTTP status as text. fail_first: how many
    requests fail with 503 before it behaves. refuse: the HTTP status that a query is answered with, None: none.
    lacks: whether the answer to a query says that a part of it is missing.
    beside: what stands beside the data in every answer. sent: further headers. no_post: the status that a POST gets.
    names: the metrics that every service has, for instant queries. skew_s: how far its clock (the header Date, and time()) is ahead of ours.
    """

    def __init__(self) -> None:
        self.series: dict[str, list[Series]] = {}
        self.behave = "ok"
        self.fail_first = 0
        self.queries: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.refuse: Callable[[str], int | None] = lambda query: None
        self.lacks: Callable[[str], bool] = lambda query: False
        self.beside: dict[str, object] = {}
        self.sent: dict[str, str] = {}
        self.names: list[str] = []
        self.no_post = 0
        self.skew_s = 0.0
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
                fake.queries.append(form["query"])
                fake.headers.append(dict(self.headers))
                if fake.no_post:
                    fake._send(self, fake.no_post, b"no POST here")
                    return
                fake._answer(self, form)

            def do_GET(self) -> None:
                form = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
                fake.queries.append(form["query"])
                fake.headers.append(dict(self.headers))
                fake._answer(self, form)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.time() + fake.skew_s, usegmt=True)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, form: dict[str, str]) -> None:
        if self.fail_first > 0:
            self.fail_first -= 1
            self._send(handler, 503, b'{"status":"error","error":"warming up"}')
            return
        status = self.refuse(form["query"])
        if status is not None:
            self._send(handler, status, b'{"status":"error","errorType":"execution","error":"too many samples"}')
            return
        if self.behave == "slow":
            time.sleep(0.6)
        if self.behave.isdigit():
            self._send(handler, int(self.behave), b'{"status":"error","errorType":"x","error":"no <b>luck</b>"}')
            return
        bodies = {
            "garbage": b"\x00\xffnot json",
            "html": b"<html><body>Sign in</body></html>",
            "error_body": b'{"status":"error","errorType":"execution","error":"boom"}',
            "empty": b'{"status":"success","data":{"resultType":"matrix","result":[]}}',
            "vector": b'{"status":"success","data":{"resultType":"vector","result":[]}}',
        }
        body = bodies.get(self.behave) or self._matrix(form)
        if self.behave == "half_json":
            body = body[: len(body) // 2]
        self._send(handler, 200, body, cut=self.behave == "half", hang=self.behave == "hang_body")

    def _matrix(self, form: dict[str, str]) -> bytes:
        if form["query"] == "time()":
            now = time.time() + self.skew_s
            return json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [now, str(now)]}}).encode()
        if "start" not in form:
            named = [{"metric": {"__name__": name}, "value": [0, "1"]} for name in self.names]
            return json.dumps({"status": "success", "data": {"resultType": "vector", "result": named}}).encode()
        start, end, step = (float(form[key]) for key in ("start", "end", "step"))
        found = next((rows for piece, rows in self.series.items() if piece in form["query"]), [])
        wanted = dict(re.findall(r'(\w+)=~?"([^"]*)"', form["query"]))
        result = []
        for labels, value in found:
            if not all(
                re.fullmatch(p.replace("\\\\", "\\"), labels.get(k, "")) for k, p in wanted.items() if k in labels
            ):
                continue
            times = [start + step * i for i in range(round((end - start) / step) + 1)]
            samples = [[t, value(t)] for t in times if value(t) is not None]
            if samples:
                result.append({"metric": labels, "values": samples})
        answer = {"status": "success", "data": {"resultType": "matrix", "result": result}} | self.beside
        if self.lacks(form["query"]):
            answer["warnings"] = ["a store did not answer: partial response"]
        return json.dumps(answer, separators=(",", ":")).encode()

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, *, cut: bool = False, hang: bool = False
    ) -> None:
        handler.send_response(status)
        for name, value in self.sent.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        if status == 429:
            handler.send_header("Retry-After", "7")
        handler.end_headers()
        if cut or hang:
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            if hang:
                time.sleep(0.8)
            handler.close_connection = True
            return
        handler.wfile.write(body)
