"""Mail servers that drip, flood, lie, or show a certificate of their own: a sentence, in time, without a secret."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detection.errors import ConfigError, Permanent, SlotuneError, Temporary
from slotune.connections import parse_connection
from tests.fakes.actuators import FakeConnections
from tuning.mail import Mail
from tuning.notifiers._smtp_client import MAX_ANSWER_BYTES
from tuning.notifiers._smtp_probe import probe
from tuning.notifiers.settings import MailSettings
from tuning.notifiers.smtp import SmtpNotifier
from tuning.ports import Connection

MAIL = Mail(id="m", subject="s", html="<p>h</p>", text="t", at_s=0.0)
TO = MailSettings(to=("oncall@example.com",), sender="slotune@example.com")
EXAMPLES = int(os.environ.get("SLOTUNE_FUZZ", "60"))
pytestmark = [pytest.mark.server, pytest.mark.timeout(60 + EXAMPLES)]


@contextmanager
def listening(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A loopback server whose every connection goes to `talk`; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(peer: socket.socket) -> None:
        with peer, suppress(OSError, ValueError):
            talk(peer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def relay(peer: socket.socket, context: ssl.SSLContext | None = None, *, secure: bool = False, kept: list[bytes]) -> None:
    """A server that takes everything, with STARTTLS where it has a context."""
    if not secure:
        peer.sendall(b"220 relay\r\n")
    lines = peer.makefile("rb")
    for line in lines:
        word = line.split()[0].upper() if line.split() else b""
        if word == b"EHLO":
            offers = b"250-STARTTLS\r\n" if context is not None and not secure else b""
            peer.sendall(b"250-relay\r\n" + offers + b"250 SIZE 10000000\r\n")
        elif word == b"STARTTLS" and context is not None:
            peer.sendall(b"220 go\r\n")
            relay(context.wrap_socket(peer, server_side=True), context, secure=True, kept=kept)
            return
        elif word == b"DATA":
            peer.sendall(b"354 go on\r\n")
            while (got := lines.readline()) not in (b".\r\n", b""):
                kept.append(got)
            peer.sendall(b"250 taken\r\n")
        elif word == b"QUIT":
            peer.sendall(b"221 bye\r\n")
            return
        else:
            peer.sendall(b"250 ok\r\n")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A certificate of its own authority for 127.0.0.1: (the server's context, the file to trust)."""
    folder = tmp_path_factory.mktemp("ca")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


def connection(port: int, **extra: object) -> Connection:
    return Connection(name="relay", url=f"smtp://127.0.0.1:{port}", extra={"timeout": 5, **extra})


def send(to: Connection) -> None:
    SmtpNotifier(TO, FakeConnections({"smtp_default": to})).send(MAIL)


@pytest.mark.parametrize("start", [b"", b"220-", b"220 relay\r\n", b"220 relay\r\n250-"], ids=["nothing", "banner", "ehlo", "lines"])
def test_a_server_that_drips_ends_at_the_deadline(start: bytes) -> None:
    def drip(peer: socket.socket) -> None:
        peer.sendall(start)
        while True:
            peer.sendall(b"x")
            time.sleep(0.02)

    with listening(drip) as port, pytest.raises(Temporary, match="gives no answer"):
        send(connection(port, timeout=0.4))


def test_a_server_that_never_stops_talking_is_hung_up_on() -> None:
    said = 0

    def flood(peer: socket.socket) -> None:
        nonlocal said
        while True:
            said += peer.send(b"220-" + b"x" * 1000 + b"\r\n")

    with listening(flood) as port, pytest.raises(Temporary, match="gives no answer"):
        send(connection(port, timeout=50))
    assert said < 50 * MAX_ANSWER_BYTES


def test_a_handshake_that_never_ends(certificate: tuple[ssl.SSLContext, Path]) -> None:
    def silent(peer: socket.socket) -> None:
        while peer.recv(1000):
            pass

    with listening(silent) as port, pytest.raises(Temporary, match="gives no answer"):
        send(connection(port, disable_ssl=False, timeout=0.4))


def test_a_private_authority_has_to_be_named(certificate: tuple[ssl.SSLContext, Path]) -> None:
    context, cert = certificate
    kept: list[bytes] = []
    with listening(lambda peer: relay(peer, context, kept=kept)) as port:
        with pytest.raises(Permanent, match=r"certificate that is not trusted here .* extra `ca`"):
            send(connection(port))
        assert kept == []
        for extra in ({"ca": str(cert)}, {"ca_file": str(cert)}, {"verify": str(cert)}, {"verify": False}, {"ssl_context": "none"}):
            send(connection(port, **extra))
        assert sum(line.startswith(b"Subject: s") for line in kept) == 5


def test_tls_from_the_first_byte(certificate: tuple[ssl.SSLContext, Path]) -> None:
    context, cert = certificate
    kept: list[bytes] = []

    def talk(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as inner:
            inner.sendall(b"220 relay\r\n")
            relay(inner, context, secure=True, kept=kept)

    with listening(talk) as port:
        send(connection(port, disable_ssl=False, ca=str(cert)))
        send(Connection(name="relay", url=f"smtps://127.0.0.1:{port}", extra={"ca": str(cert)}))
        with pytest.raises(Permanent, match="not trusted"):
            send(connection(port, disable_ssl=False))
    assert sum(line.startswith(b"Subject: s") for line in kept) == 2


def test_a_mail_that_was_taken_stays_sent_when_the_goodbye_fails() -> None:
    kept: list[bytes] = []

    def talk(peer: socket.socket) -> None:
        peer.sendall(b"220 relay\r\n")
        for answer in (b"250 relay\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            peer.recv(65536)
            peer.sendall(answer)
        data = b""
        while b"\r\n.\r\n" not in data:
            data += peer.recv(65536)
        kept.append(data)
        peer.sendall(b"250 taken\r\n")

    with listening(talk) as port:
        send(connection(port))
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"timeout": "soon"}, "extra `timeout` must be a number of seconds up to 600"),
        ({"timeout": float("inf")}, "extra `timeout`"),
        ({"timeout": -1}, "extra `timeout`"),
        ({"disable_tls": "perhaps"}, "extra `disable_tls` must be true or false"),
        ({"ca": "/no/such/file.pem"}, "/no/such/file.pem cannot be used"),
    ],
)
def test_a_wrong_extra_is_named(extra: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        send(connection(9, **extra))


def test_no_password_reaches_a_message() -> None:
    def refuses(peer: socket.socket) -> None:
        peer.sendall(b"220 relay\r\n")
        peer.recv(1000)
        peer.sendall(b"250-relay\r\n250 AUTH PLAIN LOGIN\r\n")
        while True:
            peer.sendall(b"535 no, " + peer.recv(1000).strip() + b" is wrong\r\n")

    with listening(refuses) as port:
        for text in (f"smtp://u:s3cretPW@127.0.0.1:{port}?disable_tls=true", "smtp://u:s3cretPW@127.0.0.1:1", "smtp://u:s3cretPW@[bad"):
            with pytest.raises((SlotuneError, ValueError)) as caught:
                probe(parse_connection("relay", text, where="X"))
            assert "s3cretPW" not in str(caught.value)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([b"220 x\r\n", b"250 ok\r\n", b"250-a\r\n", b"354 go\r\n", b"999 x\r\n", b"\xff\r\n", b"5\r\n", b"\r\n"])), max_size=8))  # fmt: skip
def test_whatever_a_server_says_is_an_error_of_the_tree_or_a_mail(answers: list[bytes]) -> None:
    def talk(peer: socket.socket) -> None:
        for answer in answers:
            peer.sendall(answer)
            peer.settimeout(0.01)
            with suppress(TimeoutError):
                peer.recv(65536)

    with listening(talk) as port, suppress(SlotuneError):
        send(connection(port, timeout=2, disable_tls=True))
