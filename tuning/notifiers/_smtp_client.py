"""A connection to a mail server that ends in time: one deadline from the name's resolution to the last answer.

The connection's extra follows Airflow's SMTP connection, and the TLS settings that all connections share (see
detection.http_access):

| extra | meaning |
|---|---|
| `disable_ssl` | true: no TLS from the first byte. Default: false for port 465 and smtps://, else true |
| `disable_tls` | true: no STARTTLS. Default false: it is used when the server offers it, and demanded for a password |
| `ca` (or `ca_file`), `verify`, `ssl_context`, `cert`, `key` | whose certificate is trusted, and the own one |
| `timeout` | seconds for the whole conversation; default 30 |
"""

from __future__ import annotations

import contextlib
import io
import smtplib
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from detection.errors import ConfigError, Permanent, SlotuneError, Temporary
from detection.http_access import Access, Tls
from detection.http_socket import Deadline, DeadlineSocket, over_tls, socket_to
from detection.outside_text import printable
from tuning.ports import Connection

TIMEOUT_S = 30.0
MAX_TIMEOUT_S = 600.0
MAX_ANSWER_BYTES = 1 << 20
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@contextlib.contextmanager
def conversation(connection: Connection) -> Iterator[smtplib.SMTP]:
    """A server that was greeted, with TLS and login as the connection says. Everything that fails in it, in the block
    as well, leaves as ConfigError, Temporary ("later", nobody there) or Permanent (a person has to act)."""
    where = f"the mail server of connection {connection.name!r}"
    client: _Client | None = None
    try:
        client = _opened(connection)
        yield client
        with contextlib.suppress(OSError, smtplib.SMTPException):  # what was accepted stays accepted
            client.quit()
    except SlotuneError:
        raise
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise _named(where, error) from error
    finally:
        if client is not None:
            client.close()


def _named(where: str, error: Exception) -> SlotuneError:
    """What a failure of a conversation means. The server's own words stay out: they may repeat what was sent."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        if any(400 <= code < 500 for code, _ in error.recipients.values()):
            return Temporary(f"{where} asks to try the recipients later", delay_s=300)
        return Permanent(f"{where} refuses all recipients; check mail.to")
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return Permanent(f"{where} refuses the login; check the connection's login and password")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return Permanent(f"{where} lacks what the connection asks for: {printable(error, 200)}")
    if isinstance(error, smtplib.SMTPResponseException):
        text = f"{where} answered {error.smtp_code}"
        # 4xx is "later"; what is no reply code at all (smtplib says -1) is a broken server, not a refusal.
        return Permanent(text) if 500 <= error.smtp_code < 600 else Temporary(text, delay_s=300)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Permanent(
            f"{where} has a certificate that is not trusted here ({printable(error.verify_message, 120)}): give the "
            "connection's extra `ca` the file of its certificate authority"
        )
    if isinstance(error, ssl.SSLError):
        why = printable(error.reason or "no reason given", 80)
        return Permanent(f"{where} and slotune cannot agree on TLS ({why})")
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return Permanent(f"{where} cannot be given this mail ({type(error).__name__})")
    return Temporary(f"{where} gives no answer ({type(error).__name__})", delay_s=60)


def _opened(connection: Connection) -> _Client:
    host, port, smtps = _place(connection)
    deadline = Deadline(_timeout_s(connection))
    implicit_tls = not _flag(connection, "disable_ssl", default=not (smtps or port == 465))
    starttls = not implicit_tls and not _flag(connection, "disable_tls", default=False)
    client = _Client(deadline, _tls(connection), implicit=implicit_tls)
    try:
        _greet(client, host, port)
        if starttls:
            _secure(client, host, needed=bool(connection.password))
        if connection.login and connection.password:
            client.login(connection.login, connection.password)
    except BaseException:
        client.close()
        raise
    return client


def _greet(client: _Client, host: str, port: int) -> None:
    code, _ = client.connect(host, port)
    if code != 220:
        raise smtplib.SMTPConnectError(code, b"")
    client.ehlo_or_helo_if_needed()


def _secure(client: _Client, host: str, *, needed: bool) -> None:
    if client.has_extn("starttls"):
        client.upgrade(host)
        client.ehlo_or_helo_if_needed()
    elif needed:
        raise smtplib.SMTPNotSupportedError(
            "no STARTTLS, and a password is never sent in the clear unless extra.disable_tls is true"
        )


class _Client(smtplib.SMTP):
    """smtplib's SMTP on a socket with one deadline and a cap on what a server may say."""

    def __init__(self, deadline: Deadline, tls: Tls, *, implicit: bool) -> None:
        # given, because smtplib would ask the resolver for it, without any time-out
        name = socket.gethostname()
        super().__init__(local_hostname=name if "." in name and name.isascii() else "[127.0.0.1]")
        self._deadline, self._tls, self._implicit = deadline, tls, implicit
        self._plain: socket.socket

    def _get_socket(self, host: str, port: int, timeout: float | None) -> Any:
        sock = socket_to(host, port, self._deadline)
        if self._implicit:
            sock = over_tls(sock, self._tls.context(), host, self._deadline)
        self._plain = sock
        return _Wire(sock, self._deadline)

    def upgrade(self, host: str) -> None:
        """STARTTLS; what the server said before it is forgotten."""
        code, _ = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, b"")
        self._plain = over_tls(self._plain, self._tls.context(), host, self._deadline)
        wire: Any = _Wire(self._plain, self._deadline)
        self.sock, self.file = wire, None
        self.helo_resp = self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False


class _Wire(DeadlineSocket):
    def makefile(self, mode: str = "rb", buffering: int | None = None, **more: Any) -> Any:
        return _Lines(super().makefile(mode, buffering, **more))


class _Lines:
    """What smtplib reads answers from, up to MAX_ANSWER_BYTES in all."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._read = 0

    def readline(self, size: int = -1) -> bytes:
        line = self._file.readline(size)
        self._read += len(line)
        if self._read > MAX_ANSWER_BYTES:
            raise smtplib.SMTPServerDisconnected("the server says more than a mail server has to say")
        return line

    def close(self) -> None:
        self._file.close()


def _place(connection: Connection) -> tuple[str, int, bool]:
    """(host, port, whether the address says smtps)."""
    try:
        parts = urlsplit(connection.url)
        host, port, smtps = parts.hostname or "localhost", parts.port, parts.scheme in ("smtps", "smtp+ssl")
    except ValueError as error:
        raise ConfigError(
            f"the connection {connection.name} has no address of a mail server: write smtp://host:port"
        ) from error
    return host, port or (465 if smtps else 25), smtps


def _tls(connection: Connection) -> Tls:
    extra = dict(connection.extra)
    extra.setdefault("ca", extra.get("ca_file"))
    try:
        tls = Access.of({name: extra.get(name) for name in ("ca", "cert", "key", "ssl_context", "verify")}).tls
        tls.context()
    except ConfigError as error:
        raise ConfigError(f"the connection {connection.name}: {error}") from error
    return tls


def _timeout_s(connection: Connection) -> float:
    given = connection.extra.get("timeout", TIMEOUT_S)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else 0.0
        if 0 < seconds <= MAX_TIMEOUT_S:
            return seconds
    raise ConfigError(
        f"the connection {connection.name}: the extra `timeout` must be a number of seconds up to {MAX_TIMEOUT_S:g}"
    )


def _flag(connection: Connection, name: str, *, default: bool) -> bool:
    value = connection.extra.get(name)
    if value is None or value == "":
        return default
    word = str(value).strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise ConfigError(f"the connection {connection.name}: the extra `{name}` must be true or false")
    return word in _TRUE
