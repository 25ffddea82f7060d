"""Queries to a Prometheus: the request, its outcomes, the server's clock. Built on prometheus-api-client's connection.

What the library lacks and this adds: the query in a POST body (a matcher over a thousand services does not fit into a
URL) with GET where a gateway refuses POST, fractional seconds, one deadline and caps for the whole exchange
(detection.http_border), and each failure as its own error.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode

from prometheus_api_client import PrometheusConnect

from detection.errors import AnswerTooLarge, ConfigError, QueryRefused, SourcePartial, SourceRefused, SourceUnreachable
from detection.http_access import Access, Address, Tls, address
from detection.http_border import Answer, HttpFailure, Limits, exchange, retry_after_s
from detection.model import Span
from detection.outside_text import printable
from detection.sources._answer import Row, error_text, names_of, parse, time_of

__all__ = ["MAX_ANSWER_BYTES", "RangeClient", "Row", "parse"]

MAX_ANSWER_BYTES = 256 << 20
_LONGEST_WAIT_S = 5.0
_LOCAL = (400, 413, 414, 422, 431)
"""What a server answers to one query that it will not run; the next one may be fine."""
_NO_POST = (403, 405, 501)
_ANSWERED = (200, 206)
_NOT_SAID_S = 30.0
_WHY = {"unresolved": "no such host", "refused": "nobody listens there", "encoding": "an encoding nobody asked for"}
_T = TypeVar("_T")


class RangeClient(PrometheusConnect):  # type: ignore[misc]  # the library ships no types
    """PrometheusConnect with queries that answer arrays and fail in named ways.

    access: headers and TLS; headers, auth and verify are the same in requests' spelling. method: "GET" where the
    server is known to refuse POST; otherwise that is found out. wall: our own clock, the server's is held against it.
    """

    def __init__(
        self,
        url: str,
        *,
        access: Access | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        verify: bool | str = True,
        method: str = "POST",
        timeout_s: float = 10.0,
        retries: int = 2,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(url.rstrip("/"))
        self._at: Address | None = None
        try:
            self._at = address(url)
        except ConfigError:
            self.prometheus_host = ""  # what is no address may be a secret that was pasted there
        if access is None:
            tls = Tls(ca=verify) if isinstance(verify, str) else Tls(verify=verify)
            login, password = auth or (None, None)
            given = Access.of({}, login, password).headers
            access = Access((*given, *(headers or {}).items()), tls)
        self._access = access
        self._method = method
        self._limit_s = timeout_s
        self._retries = retries
        self._sleep, self._clock, self._wall = sleep, clock, wall
        self.clock_skew_s: float | None = None
        """The server's clock minus ours, as far as the `Date` of its answers tells (whole seconds); None: no `Date`."""

    def query_range(self, query: str, span: Span) -> list[Row]:
        """The series of a query on the span's grid; [] for an empty answer.

        Raises SourceUnreachable after the retries (down, slow, 5xx, 429, answer cut short or partial), QueryRefused
        (this query alone), SourceRefused (all of them), SourceGarbage (no Prometheus answer), AnswerTooLarge.
        """
        form = {"query": query, "start": repr(span.start_s), "end": repr(span.end_s), "step": repr(span.step_s)}

        def once() -> list[Row]:
            answer = self._answer("query_range", form)
            return parse(answer.body, span, self._host, answer.headers, answer.status)

        return self._patiently(once)

    def server_clock_skew_s(self) -> float:
        """The clock that the server evaluates queries by minus ours; 0.0 where the difference is within the call."""

        def once() -> float:
            sent_s = self._wall()
            at_s = time_of(self._answer("query", {"query": "time()"}).body, self._host)
            return _apart(at_s, at_s, sent_s, self._wall())

        return self._patiently(once)

    def names(self, selector: str, at_s: float) -> list[str]:
        """The metric names that have a series with these labels at that time. selector: matchers without braces."""

        def once() -> list[str]:
            form = {"query": f"group by (__name__) ({{{selector}}})", "time": repr(at_s)}
            return names_of(self._answer("query", form).body, self._host)

        return self._patiently(once)

    def _patiently(self, once: Callable[[], _T]) -> _T:
        for attempt in range(self._retries + 1):
            try:
                return once()
            except SourceUnreachable as error:
                # a store that lacks is back after minutes, not within a second: asked again once
                if attempt == self._retries or (attempt >= 1 and isinstance(error, SourcePartial)):
                    raise
                delay_s = 0.25 * 2**attempt if error.delay_s == _NOT_SAID_S else error.delay_s
                self._sleep(min(delay_s, _LONGEST_WAIT_S))
        raise AssertionError("unreachable")

    def _answer(self, path: str, form: Mapping[str, str]) -> Answer:
        """The answer to a query with the status 200 or 206. A POST that is refused as such is asked with GET."""
        method = self._method
        answer = self._exchange(method, path, form)
        if method == "POST" and answer.status in _NO_POST:
            again = self._exchange("GET", path, form)
            if again.status not in _NO_POST:
                answer = again
                self._method = "GET" if again.status in _ANSWERED else method
        self._check(answer)
        return answer

    def _exchange(self, method: str, path: str, form: Mapping[str, str]) -> Answer:
        if self._at is None:
            raise SourceRefused("this is not an address of a Prometheus server: write http://host:port")
        query = urlencode({**form, "timeout": f"{max(1, math.ceil(self._limit_s))}s"})
        posted = method == "POST"
        sent_s = self._wall()
        try:
            answer = exchange(
                method,
                self._at,
                f"/api/v1/{path}" if posted else f"/api/v1/{path}?{query}",
                access=self._access,
                headers={"Content-Type": "application/x-www-form-urlencoded"} if posted else None,
                body=query.encode("ascii") if posted else None,
                limits=Limits(self._limit_s, MAX_ANSWER_BYTES),
                clock=self._clock,
            )
        except HttpFailure as failure:
            raise self._error(failure) from failure
        self._compare_clocks(answer, sent_s)
        return answer

    def _compare_clocks(self, answer: Answer, sent_s: float) -> None:
        try:
            date_s = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError, IndexError):
            return
        self.clock_skew_s = _apart(date_s, date_s + 1.0, sent_s, self._wall())

    def _error(self, failure: HttpFailure) -> SourceUnreachable | SourceRefused | AnswerTooLarge:
        at, limit = f"Prometheus at {self._host}", f"within {self._limit_s:g} s"
        if failure.kind == "timeout":
            return SourceUnreachable(f"{at} did not answer {limit}")
        if failure.kind == "too_large":
            megabytes = MAX_ANSWER_BYTES >> 20
            return AnswerTooLarge(f"{at} sent more than {megabytes} MB for one query; narrow the selectors")
        if failure.kind == "tls":
            words = f" ({printable(failure.detail, 160)})" if failure.detail else ""
            return SourceRefused(f"{at} has a certificate that is not trusted here{words}; name its CA (extra `ca`)")
        if failure.kind == "address":
            return SourceRefused(f"{at}: this is not an address that can be asked")
        return SourceUnreachable(f"{at} is not reachable ({_WHY.get(failure.kind, 'the connection was lost')})")

    def _check(self, answer: Answer) -> None:
        """Nothing for 200 and 206, else the error that says what to do."""
        status, at = answer.status, f"Prometheus at {self._host}"
        if status in (200, 206):
            return
        said = error_text(answer.body)
        if status == 429:
            delay_s = retry_after_s(answer.headers.get("retry-after"), default_s=5.0, now_s=self._wall())
            raise SourceUnreachable(f"{at} asks to come back later (HTTP 429)", delay_s=delay_s)
        if status >= 500:
            # 503 with errorType "timeout" is a query that Prometheus itself gave up on
            raise SourceUnreachable(f"{at} failed with HTTP {status}{said}")
        if status in (401, 403):
            words = said or f": {printable(answer.body.decode('utf-8', 'replace'), 120)}" if answer.body else ""
            raise SourceRefused(f"{at} refuses these credentials (HTTP {status}){words}")
        if status in _LOCAL:
            raise QueryRefused(f"{at} refuses the query with HTTP {status}{said}")
        raise SourceRefused(f"{at} refuses the query with HTTP {status}{said}; is this the address of a Prometheus?")

    @property
    def _host(self) -> str:
        return self._at.place if self._at is not None else "?"


def _apart(earliest_s: float, latest_s: float, sent_s: float, received_s: float) -> float:
    """How far a clock that showed earliest_s..latest_s is off one that showed sent_s..received_s, as far as certain."""
    low, high = earliest_s - received_s, latest_s - sent_s
    return low if low > 0 else high if high < 0 else 0.0
