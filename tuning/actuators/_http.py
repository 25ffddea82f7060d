"""One HTTP call to a control endpoint, and what each way of failing means for a change.

Before the request can have left (no route, refused, TLS) nothing changed: ControlUnreachable. After it may have left
(time-out, connection lost, 5xx) a POST may have landed: `Unanswered`, which the caller must settle by reading back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from tuning.actuators._options import bounded
from tuning.errors import ControlRefused, ControlUnreachable, Temporary
from tuning.ports import Connection

LIMIT_BYTES = 4 * 1024 * 1024


class Unanswered(Temporary):
    """A request was sent and no usable answer came. Never leaves the actuators: it becomes OutcomeUnknown.

    status: the 5xx that was answered, None when nothing was.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Http:
    """Calls below one base URL with the credentials of a connection. No redirects, no retries, no shared sockets."""

    def __init__(self, connection: Connection, *, timeout_s: float = 5.0) -> None:
        self.base = connection.url.rstrip("/")
        self.timeout_s = timeout_s
        self._connection = connection

    @property
    def extra(self) -> Mapping[str, object]:
        """The connection's own extra settings."""
        return self._connection.extra

    @property
    def shown(self) -> str:
        """The address without user, password or query: fit for messages."""
        parts = urlsplit(self.base)
        return f"{parts.scheme}://{parts.hostname or '?'}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @property
    def place(self) -> str:
        """host:port, as Prometheus' label `instance` has it."""
        parts = urlsplit(self.base)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    def call(
        self, method: str, path: str, body: object = None, *, timeout_s: float | None = None, reading: bool = False
    ) -> Any:
        """The decoded JSON answer, None for an empty one. reading: a POST that changes nothing, like a GET.

        Raises ControlUnreachable (nothing can have been sent, or a GET that got no answer), Unanswered (a POST
        whose fate is unknown), ControlRefused (4xx with the body's words, or an answer that is not JSON).
        """
        at = f"{method} {self.shown}{path}"
        reading = reading or method == "GET"
        try:
            with requests.request(
                method,
                self.base + path,
                json=body,
                timeout=(min(5.0, self.timeout_s), timeout_s or self.timeout_s),
                headers=self.headers(),
                auth=self.auth(),
                allow_redirects=False,
                stream=True,
            ) as response:
                data = response.raw.read(LIMIT_BYTES + 1, decode_content=True)
                return _decode(response, data, at, reading)
        except requests.RequestException as error:
            raise _failure(error, at, reading) from error
        except OSError as error:  # the body stopped half way; urllib3's own errors below requests
            raise _lost(at, reading, type(error).__name__) from error
        except Exception as error:
            if type(error).__module__.startswith("urllib3"):
                raise _lost(at, reading, type(error).__name__) from error
            raise

    def headers(self) -> dict[str, str]:
        """The connection's own headers, and its token as a bearer's."""
        given, token = self._connection.extra.get("headers"), self._connection.extra.get("token")
        own = {str(k): str(v) for k, v in given.items()} if isinstance(given, Mapping) else {}
        return own | ({"Authorization": f"Bearer {token}"} if isinstance(token, str) and token else {})

    def auth(self) -> tuple[str, str] | None:
        login = self._connection.login
        return (login, self._connection.password or "") if login else None


def elsewhere(connection: Connection, name: str, url: str) -> Connection:
    """The same credentials at another address. An extra `grpc` that names a host belongs to the first server alone:
    of it the port stays, or nothing where both servers are on one host."""
    extra, grpc = dict(connection.extra), str(connection.extra.get("grpc") or "")
    host, _, port = grpc.rpartition(":")
    if host:
        del extra["grpc"]
        if urlsplit(connection.url).hostname != urlsplit(url).hostname:
            extra["grpc"] = port
    return replace(connection, name=name, url=url, extra=extra)


def _decode(response: requests.Response, data: bytes, at: str, reading: bool) -> Any:
    status = response.status_code
    if status == 429:
        raise ControlUnreachable(f"{at} answered 429 (too many requests)", delay_s=_retry_after_s(response))
    if status >= 500:
        words = f"{at} answered {status}{_said(data)}"
        raise ControlUnreachable(words) if reading else Unanswered(words, status=status)
    if status >= 300:
        raise ControlRefused(f"{at} answered {status}{_said(data)}{_hint(status)}")
    if len(data) > LIMIT_BYTES:
        raise ControlRefused(f"{at} answered more than {LIMIT_BYTES // 2**20} MiB: this is no control endpoint")
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise ControlRefused(f"{at} answered something that is not JSON{_said(data[:120])}") from error


def _failure(error: requests.RequestException, at: str, reading: bool) -> Temporary | ControlRefused:
    if isinstance(error, requests.exceptions.SSLError):
        return ControlRefused(f"{at}: the TLS connection was refused ({bounded(str(error), 160)})")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return ControlRefused(f"{at}: this is not an address that can be called")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return ControlUnreachable(f"{at}: nobody answered; is it running?")
    inner = error.args[0] if error.args else None
    reason = inner.reason if isinstance(inner, MaxRetryError) else inner
    if isinstance(reason, NewConnectionError):
        return ControlUnreachable(f"{at}: nobody listens there; is it running?")
    return _lost(at, reading, "no answer in time" if isinstance(error, requests.Timeout) else "connection lost")


def _lost(at: str, reading: bool, why: str) -> Temporary:
    return ControlUnreachable(f"{at}: {why}") if reading else Unanswered(f"{at}: {why} after the request was sent")


def _said(data: bytes) -> str:
    """The words of an error body: the "error"/"message" member of a JSON object, else its text; bounded."""
    words = data[:4096].decode("utf-8", "replace")
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if isinstance(body, dict):
        words = str(body.get("error") or body.get("message") or words)
    words = bounded(words)
    return f": {words}" if words else ""


def _hint(status: int) -> str:
    return " (check the connection's credentials)" if status in (401, 403) else ""


def _retry_after_s(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(600.0, float(value)) if value.isdigit() else 30.0
