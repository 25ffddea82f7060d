"""Catches what is posted to it, and answers as it is told: a chat's webhook, a pager, an API. Real HTTP on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


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
def catching(*, tls: bool = False) -> Iterator[Catcher]:
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
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*_certificate(Path(folder)))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    kept.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def behind_proxy() -> Iterator[Catcher]:
    """A catcher that stands for every host of the web: a proxy (`HTTPS_PROXY`) whose tunnels all end in it. It has a
    certificate of its own, so who asks must not verify."""
    with catching(tls=True) as kept:
        ours = kept.port

        class Tunnel(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                with socket.create_connection(("127.0.0.1", ours)) as inner:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=_pump, args=(inner, self.connection), daemon=True)
                    back.start()
                    _pump(self.connection, inner)
                    back.join(5)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        proxy = ThreadingHTTPServer(("127.0.0.1", 0), Tunnel)
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        kept.port = proxy.server_port
        try:
            yield kept
        finally:
            proxy.shutdown()
            proxy.server_close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _certificate(folder: Path) -> tuple[str, str]:
    """A self-signed certificate and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*plain))
    return str(folder / "cert.pem"), str(folder / "key.pem")
