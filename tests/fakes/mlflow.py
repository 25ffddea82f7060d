"""A registry that speaks MLflow's REST API, as far as the release lever asks: aliases, versions, runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse


@dataclass
class Registry:
    url: str = ""
    aliases: dict[str, str] = field(default_factory=lambda: {"champion": "7"})
    versions: dict[str, dict[str, object]] = field(
        default_factory=lambda: {v: {"version": v, "status": "READY", "run_id": f"run{v}"} for v in ("5", "6", "7", "8")}
    )
    runs: dict[str, dict[str, object]] = field(default_factory=dict)

    def answer(self, what: str, query: dict[str, str]) -> tuple[int, object]:
        if query.get("name", "ranker") != "ranker":
            return self.unknown(f"Registered Model with name={query['name']} not found")
        if what == "registered-models/alias":
            version = self.aliases.get(query["alias"])
            found = {"model_version": self.versions.get(version or "", {"version": version})}
            return (200, found) if version else self.unknown(f"Registered model alias {query['alias']} not found.", 400)
        if what == "model-versions/get" and query["version"] in self.versions:
            return 200, {"model_version": self.versions[query["version"]]}
        if what == "runs/get" and query["run_id"] in self.runs:
            return 200, {"run": self.runs[query["run_id"]]}
        return self.unknown(f"{what} not found")

    @staticmethod
    def unknown(words: str, status: int = 404) -> tuple[int, object]:
        return status, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": words}


@contextmanager
def mlflow() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlparse(self.path)
            query = {key: values[0] for key, values in parse_qs(place.query).items()}
            self._send(*registry.answer(place.path.removeprefix("/api/2.0/mlflow/"), query))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            registry.aliases[body["alias"]] = body["version"]
            self._send(200, {})

        def _send(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    registry.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
