"""A real Prometheus that scrapes pages of metrics which a test writes, as an exporter writes them."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def scraped(
    folder: Path, pages: Mapping[str, Callable[[float], str]], twice: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of a Prometheus with one job a page, scraped every second.

    pages: by job, the text after so many seconds. twice: further jobs, by name, that scrape a page under two targets.
    """
    started = time.monotonic()

    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages[self.path.strip("/")](time.monotonic() - started).encode() + b"\n"
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    exporter = ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, other = f"'127.0.0.1:{exporter.server_port}'", f"'localhost:{exporter.server_port}'"
    jobs = [(name, name, one) for name in pages]
    jobs += [(name, page, f"{one}, {other}") for name, page in (twice or {}).items()]
    text = "".join(
        f"- job_name: {name}\n  metrics_path: /{page}\n  static_configs: [{{targets: [{targets}]}}]\n"
        for name, page, targets in jobs
    )
    (folder / "p.yml").write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n{text}")
    prometheus = subprocess.Popen(
        ["prometheus", f"--config.file={folder}/p.yml", f"--web.listen-address=127.0.0.1:{port}",
         f"--storage.tsdb.path={folder}/data", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        prometheus.terminate()
        prometheus.wait(10)
        exporter.shutdown()
