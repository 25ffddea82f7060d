"""One HTTP call to a control endpoint, and what each way of failing means for a change.

Before the request can have left (no route, refused, TLS) nothing changed: ControlUnreachable. After it may have left
(time-out, connection lost, 5xx, a redirect) a POST may have landed: `Unanswered`, which the caller must settle by
reading back. The transport (one deadline for the whole call, caps on every size, no redirects followed) is
detection.http_border.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

from detection.http_access import Access, Address, address
from detection.http_border import Answer, HttpFailure, Limits, exchange, retry_after_s
from detection.model import Service
from tuning.actuators._answers import Unusable, parse
from tuning.actuators._options import bounded
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, Temporary
from tuning.ports import Connection, Connections

LIMIT_BYTES = 4 * 1024 * 1024
MAX_WAIT_S = 600.0
CONTROL_TIMEOUT_S = 30.0
"""Of a lever to which nobody has told safety.control_timeout."""


class Unanswered(Temporary):
    """A request was sent and no usable answer came. Never leaves the actuators: it becomes OutcomeUnknown.

    status: the 3xx or 5xx that was answered, None when nothing was.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Budget:
    """The time that all calls of one change may take together, whatever the servers do. What a server does while one
    waits (loading a model) has a limit of its own and does not count."""

    def __init__(self, total_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total_s, self._clock = total_s, clock
        self._until_s = clock() + total_s

    def left_s(self) -> float:
        return self._until_s - self._clock()

    def renew(self) -> None:
        """The whole time again: for the way back, and after a build."""
        self._until_s = self._clock() + self.total_s

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        begun_s = self._clock()
        try:
            yield
        finally:
            self._until_s += self._clock() - begun_s


def budget_of(service: Service, lever: str) -> Budget:
    """The time that one change of a lever has for its calls: safety.control_timeout, where the loop has told it."""
    total_s = service.levers[lever].options.get("control_timeout_s") if lever in service.levers else None
    return Budget(float(total_s) if isinstance(total_s, int | float) else CONTROL_TIMEOUT_S)


class Http:
    """Calls below one base URL with the credentials of a connection. No redirects, no retries, no shared sockets.

    ConfigError: the connection's address or one of its extras cannot be used.
    """

    def __init__(self, connection: Connection, *, timeout_s: float = 5.0, budget: Budget | None = None) -> None:
        self.timeout_s = timeout_s
        self._budget = budget
        self._connection = connection
        try:
            self.address: Address = address(connection.url)
            self._access = Access.of(connection.extra, connection.login, connection.password)
        except ConfigError as error:
            raise ConfigError(f"the connection {bounded(connection.name, 80)}: {error}") from error

    @property
    def extra(self) -> Mapping[str, object]:
        """The connection's own extra settings."""
        return self._connection.extra

    @property
    def shown(self) -> str:
        """The address without user, password or query: fit for messages."""
        return str(self.address)

    @property
    def place(self) -> str:
        """host:port, as Prometheus' label `instance` has it."""
        return self.address.place

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_s: float | None = None,
        reading: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded JSON answer, None for an empty one. reading: a POST that changes nothing, like a GET.

        headers: beside the connection's own, which nobody can replace.
        timeout_s: for the whole call, where it is no ordinary one (loading a model takes long). What a change's "yes"
        says beside it is not looked at: reading back is.
        Raises ControlUnreachable (nothing can have been sent, or a read that got no answer), Unanswered (a POST
        whose fate is unknown), ControlRefused (4xx with the body's words, or an answer that cannot be used).
        """
        at = f"{method} {self.shown}{path}"
        reading = reading or method == "GET"
        if timeout_s is None:
            answer = self._exchange(
                method, path, body, at, reading, self._allowed_s(at, reading), LIMIT_BYTES, headers
            )
        else:
            with self._budget.uncounted() if self._budget is not None else nullcontext():
                answer = self._exchange(method, path, body, at, reading, timeout_s, LIMIT_BYTES, headers)
        _check_status(answer, at, reading)
        try:
            return parse(answer.body)
        except Unusable as error:
            if not reading:
                return None
            raise ControlRefused(f"{at} answered {error}{_said(answer.body[:120])}") from error

    def _allowed_s(self, at: str, reading: bool) -> float:
        """How long the next call may take; ControlUnreachable where the time of the whole change is over. A change is
        not sent where the time does not suffice to wait for its answer and to read it back."""
        if self._budget is None:
            return self.timeout_s
        left_s, needed_s = self._budget.left_s(), min(2 * self.timeout_s, self._budget.total_s / 2)
        if left_s <= (0.0 if reading else needed_s):
            raise ControlUnreachable(
                f"{at}: not asked any more: the calls of this change took {self._budget.total_s:g} s in all "
                "(safety.control_timeout)"
            )
        return min(self.timeout_s, left_s)

    def fetch(self, path: str, *, timeout_s: float, limit_bytes: int) -> bytes | None:
        """The bytes of a GET that answered 200, None for everything else (larger ones too)."""
        at = f"GET {self.shown}{path}"
        try:
            answer = self._exchange("GET", path, None, at, True, timeout_s, limit_bytes)
        except (ControlUnreachable, ControlRefused):
            return None
        return answer.body if answer.status == 200 else None

    def headers(self) -> dict[str, str]:
        """The connection's own headers, and its token or login as `Authorization`."""
        return dict(self._access.headers)

    def _exchange(
        self,
        method: str,
        path: str,
        body: object,
        at: str,
        reading: bool,
        timeout_s: float,
        limit_bytes: int,
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        try:
            data = None if body is None else json.dumps(body, allow_nan=False).encode()
        except ValueError as error:
            raise ControlRefused(f"{at}: what would be sent holds a number that JSON cannot carry") from error
        headers = {"Accept": "application/json"} | ({} if data is None else {"Content-Type": "application/json"})
        taken = {name.lower() for name, _ in self._access.headers}
        for name, value in (more or {}).items():
            if name.lower() not in taken:
                headers = {n: v for n, v in headers.items() if n.lower() != name.lower()} | {name: value}
        limits = Limits(timeout_s, limit_bytes)
        try:
            return exchange(method, self.address, path, access=self._access, headers=headers, body=data, limits=limits)
        except HttpFailure as failure:
            raise _failed(failure, at, reading, limits) from failure


def segment(name: str) -> str:
    """A name from outside as one part of a path: it cannot lead anywhere else."""
    return quote(name.encode("utf-8", "replace"), safe="")


def elsewhere(connection: Connection, name: str, url: str) -> Connection:
    """The same credentials at another address. An extra `grpc` that names a host belongs to the first server alone:
    of it the port stays, or nothing where both servers are on one host."""
    extra, grpc = dict(connection.extra), str(connection.extra.get("grpc") or "")
    host, _, port = grpc.rpartition(":")
    if host:
        del extra["grpc"]
        if _host(connection.url) != _host(url):
            extra["grpc"] = port
    return replace(connection, name=name, url=url, extra=extra)


def beside(connection: Connection, url: str) -> Connection:
    """A further replica that is written as a plain address: the connection's own credentials at another address.

    ConfigError where the connection has credentials, and neither its address nor its extra `hosts` (a list of names or
    patterns such as "*.ranker.svc") covers the host: who may write services.yaml may not send them anywhere.
    """
    host = _host(url)
    listed = connection.extra.get("hosts") or ()
    patterns = listed.split(",") if isinstance(listed, str) else listed if isinstance(listed, list | tuple) else ()
    covered = host == _host(connection.url) or any(fnmatchcase(host, str(p).strip().lower()) for p in patterns)
    if not covered and _secret(connection):
        raise ConfigError(
            f"the endpoint on {bounded(host, 80) or '?'} is on another host than the connection {connection.name}, "
            "whose credentials are not sent there: give it a connection of its own, or name the host in the "
            'connection\'s extra `hosts` (["*.ranker.svc"])'
        )
    return elsewhere(connection, url, url)


def connections_of(known: Connections, first: str, endpoints: Sequence[str]) -> dict[str, Connection]:
    """The connections of a lever by name: the first, and the further ones, which may be plain addresses."""
    found = {first: known.get(first)}
    for name in endpoints:
        plain = name.startswith(("http://", "https://"))
        found[name] = beside(found[first], name) if plain else known.get(name)
    return found


def _secret(connection: Connection) -> bool:
    extra = connection.extra
    return bool(connection.login or connection.password or any(extra.get(k) for k in ("token", "headers", "cert")))


def _host(url: str) -> str:
    try:
        return address(url).host.lower()
    except ConfigError:
        return ""


def _check_status(answer: Answer, at: str, reading: bool) -> None:
    status = answer.status
    if status == 429:
        delay_s = retry_after_s(answer.headers.get("retry-after"), default_s=30.0, now_s=time.time(), most_s=MAX_WAIT_S)
        raise ControlUnreachable(f"{at} answered 429 (too many requests)", delay_s=delay_s)
    if status >= 500 or status < 200 or (300 <= status < 400 and not reading):
        words = f"{at} answered {status}{_said(answer.body)}"
        raise ControlUnreachable(words) if reading else Unanswered(words, status=status)
    if status >= 300:
        raise ControlRefused(f"{at} answered {status}{_said(answer.body)}{_hint(status)}")


def _failed(failure: HttpFailure, at: str, reading: bool, limits: Limits) -> Temporary | ControlRefused:
    """What the failure of an exchange means."""
    detail = f" ({bounded(failure.detail, 160)})" if failure.detail else ""
    if failure.kind == "tls" and not failure.sent:
        return ControlRefused(f"{at}: the TLS connection was refused{detail}")
    if failure.kind == "address":
        return ControlRefused(f"{at}: this is not an address that can be called")
    if not failure.sent:
        words = {
            "unresolved": "no host has this name",
            "timeout": f"nobody answered within {limits.total_s:g} s; is it running?",
        }.get(failure.kind, "nobody listens there; is it running?")
        return ControlUnreachable(f"{at}: {words}")
    if reading and failure.kind in ("too_large", "encoding"):
        what = f"more than {limits.body_bytes >> 20} MiB" if failure.kind == "too_large" else "an unknown encoding"
        return ControlRefused(f"{at} answered {what}: this is no control endpoint")
    why = {"timeout": f"no answer within {limits.total_s:g} s", "cut": "connection lost"}.get(
        failure.kind, "no usable answer"
    )
    return ControlUnreachable(f"{at}: {why}") if reading else Unanswered(f"{at}: {why} after the request was sent")


def _said(data: bytes) -> str:
    """The words of an error body: the "error"/"message" member of a JSON object, else its text; bounded."""
    words = data[:4096].decode("utf-8", "replace")
    try:
        body = parse(data)
    except Unusable:
        body = None
    if isinstance(body, dict):
        words = str(body.get("error") or body.get("message") or words)
    words = bounded(words)
    return f": {words}" if words else ""


def _hint(status: int) -> str:
    if status in (401, 403):
        return " (check the connection's credentials)"
    return " (redirects are not followed: give the connection the final address)" if status < 400 else ""
