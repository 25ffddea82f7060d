"""One HTTP exchange: the deadline holds for all of it, sizes are capped, and every failure has a kind."""

from __future__ import annotations

import contextlib
import gzip
import socket
import subprocess
import time
import zlib
from pathlib import Path

import pytest

from detection.errors import ConfigError
from detection.http_access import Access, Address, Tls, address
from detection.http_border import HttpFailure, Limits, exchange, retry_after_s
from tests.fakes.raw_http import Handler, raw_server, respond

BIG = 1 << 20


def get(port: int, *, total_s: float = 20.0, body_bytes: int = BIG, access: Access | None = None, scheme: str = "http"):
    at = Address(scheme, "127.0.0.1", port)
    return exchange("GET", at, "/x?y=1", access=access, limits=Limits(total_s, body_bytes))


def drip(head: bytes, piece: bytes) -> Handler:
    def handler(connection: socket.socket, _: bytes) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.05)

    return handler


def gzipped_zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


BOMB = gzipped_zeros(64)


def test_an_answer_is_whole_and_decompressed():
    seen = []

    def handler(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        respond(connection, gzip.compress(b"hello"), Content_Encoding="gzip", Date="x")

    with raw_server(handler) as port:
        answer = get(port, access=Access.of({"headers": {"X-Scope-OrgID": "a"}}, "me", "pw"))
    assert (answer.status, answer.body, answer.headers["date"]) == (200, b"hello", "x")
    assert b"GET /x?y=1 HTTP/1.1" in seen[0]
    assert b"X-Scope-OrgID: a" in seen[0] and b"Authorization: Basic bWU6cHc=" in seen[0]


@pytest.mark.parametrize(
    "handler",
    [
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n", b" "),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        drip(b"HTTP/1.1 200 OK\r\n", b"X-A: y\r\n"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        drip(b"HTTP/1.1 302 Found\r\nContent-Length: 200000\r\n\r\n", b" "),
        drip(b"H", b""),
    ],
    ids=["body", "chunks", "headers", "continues", "redirect's body", "status line"],
)
def test_a_server_that_drips_ends_at_the_deadline(handler: Handler):
    # a header flood may also end at the parser's own bound; either way within the deadline
    with raw_server(handler) as port, pytest.raises(HttpFailure) as caught:
        get(port, total_s=0.6)
    assert caught.value.kind in ("timeout", "cut")
    assert caught.value.sent


def test_a_tls_handshake_that_drips_ends_at_the_deadline():
    with raw_server(drip(b"", b"\x16")) as port, pytest.raises(HttpFailure) as caught:
        get(port, total_s=0.6, scheme="https")
    assert caught.value.kind in ("timeout", "tls")
    assert not caught.value.sent


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(BOMB, "gzip"), (b"x" * (BIG + 1), "identity")],
    ids=["after decompression", "before"],
)
def test_sizes_are_capped(body: bytes, encoding: str):
    with (
        raw_server(lambda c, _: respond(c, body, Content_Encoding=encoding)) as port,
        pytest.raises(HttpFailure) as caught,
    ):
        get(port)
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("status", ["302 Found", "404 Not Found", "500 Oh"])
def test_of_a_failure_only_the_beginning_is_read(status: str):
    def handler(connection: socket.socket, _: bytes) -> None:
        connection.sendall(
            f"HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 800000000\r\n\r\n".encode()
        )
        with contextlib.suppress(OSError):
            for _ in range(800):
                connection.sendall(b"x" * (1 << 20))

    with raw_server(handler) as port:
        answer = get(port)
    assert (answer.status, len(answer.body)) == (int(status[:3]), 1 << 16)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 99999999999999999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 12\r\n\r\n" + gzip.compress(b"hello", mtime=0)[:12],
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_what_is_no_whole_answer_fails_by_name(answer: bytes):
    with raw_server(lambda c, _: c.sendall(answer)) as port, pytest.raises(HttpFailure) as caught:
        get(port)
    assert caught.value.kind in ("cut", "encoding")
    assert caught.value.sent


def test_nothing_was_sent_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with pytest.raises(HttpFailure) as caught:
        get(port)
    assert (caught.value.kind, caught.value.sent) == ("refused", False)


def test_a_name_that_nobody_has():
    with pytest.raises(HttpFailure) as caught:
        exchange("GET", Address("http", "no-such-host.invalid", 80), "/", limits=Limits(5.0))
    assert caught.value.kind in ("unresolved", "timeout")
    assert not caught.value.sent


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True, cwd=folder)
    return folder


def test_certificates(certificate: Path):
    import ssl

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate / "cert", certificate / "key")
    with raw_server(lambda c, _: respond(c, b"ok"), context=server) as port:
        with pytest.raises(HttpFailure) as caught:
            get(port, scheme="https")
        assert (caught.value.kind, caught.value.sent) == ("tls", False)
        for extra in (
            {"verify": "false"},
            {"verify": False},
            {"ssl_context": "none"},
            {"ca": str(certificate / "cert")},
            {"verify": str(certificate / "cert")},
        ):
            assert get(port, scheme="https", access=Access.of(extra)).body == b"ok"


def test_a_client_certificate_is_shown(certificate: Path):
    import ssl

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate / "cert", certificate / "key")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificate / "cert")
    ca = str(certificate / "cert")
    with raw_server(lambda c, _: respond(c, b"ok"), context=server) as port:
        access = Access.of({"ca": ca, "cert": ca, "key": str(certificate / "key")})
        assert get(port, scheme="https", access=access).body == b"ok"
        with pytest.raises(HttpFailure):
            get(port, scheme="https", access=Access.of({"ca": ca}))


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"headers": "X: y"}, "must be a mapping"),
        ({"headers": {"X Y": "z"}}, "no HTTP header"),
        ({"headers": {"X": "a\r\nB: c"}}, "headers.X"),
        ({"token": "a\nb"}, "token"),
        ({"token": ["a"]}, "token"),
        ({"verify": 1.5}, "verify"),
        ({"verify": ["x"]}, "verify"),
        ({"ssl_context": "tls13"}, "ssl_context"),
        ({"key": "/k"}, "needs `cert`"),
        ({"ca": 5}, "`ca` must be the path"),
    ],
)
def test_an_extra_that_cannot_be_used_is_named(extra: dict[str, object], says: str):
    with pytest.raises(ConfigError, match=says):
        Access.of(extra)


def test_a_certificate_file_that_is_not_there_is_named():
    for tls in (Tls(ca="/nowhere/ca.pem"), Tls(cert="/nowhere/cert.pem")):
        with pytest.raises(ConfigError, match="/nowhere"):
            tls.context()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://prom:9090/", "http://prom:9090"),
        ("https://u:secret@mimir.example/prometheus/?token=secret#secret", "https://mimir.example/prometheus"),
        ("http://[::1]:9090", "http://[::1]:9090"),
        ("https://h:443", "https://h"),
        ("http://bücher.example", "http://xn--bcher-kva.example"),
    ],
)
def test_an_address_holds_no_secret(text: str, shown: str):
    assert str(address(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "secret://h",
        "http://",
        "http://h:99999",
        "http://h:0",
        "http://[::1",
        "http://a b/",
        "http://h:x",
        "http://" + "a" * 70 + "é.x",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(text: str):
    with pytest.raises(ConfigError) as caught:
        address(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("999999999999", 300.0),
        ("\u00b2", 5.0),
        ("-3", 5.0),
        ("nan", 5.0),
        (None, 5.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Mon, 99", 5.0),
    ],
)
def test_retry_after(value: str | None, seconds: float):
    assert retry_after_s(value, default_s=5.0, now_s=10.0) == seconds


@pytest.mark.parametrize(("status", "shown"), [("403 Forbidden", b"*** and ***"), ("200 OK", b"*** and tiny")])
def test_an_answer_that_repeats_the_requests_credentials_is_not_quoted_with_them(status: str, shown: bytes) -> None:
    access = Access.of({"token": "a-token-of-many-letters", "headers": {"X-Key": "tiny"}})
    said = b"Bearer a-token-of-many-letters and tiny"
    with raw_server(lambda connection, _: respond(connection, said, status)) as port:
        assert get(port, access=access).body == shown
