"""One range query to Prometheus: the request, the outcomes, the body. Built on prometheus-api-client's connection.

What its `custom_query_range` lacks and this adds: the query in a POST body (a matcher over a thousand services does not
fit into a URL), fractional seconds, a deadline for the whole answer (not per read), a cap on its size, and each
failure as its own error. Samples are parsed straight into numpy: the answer is the most expensive part of a sweep.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
from prometheus_api_client import PrometheusConnect
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry

from detection.errors import SourceGarbage, SourceRefused, SourceUnreachable
from detection.model import FloatArray, Span

_VALUES = re.compile(rb'"values":\[\[(.*?)"\]\]', re.DOTALL)
_CHUNK_BYTES = 1 << 18
_BAD_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
MAX_ANSWER_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One series of an answer. values: on the span's grid, shape (span.points,), NaN where there is no sample."""

    labels: Mapping[str, str]
    values: FloatArray


class RangeClient(PrometheusConnect):  # type: ignore[misc]  # the library ships no types
    """PrometheusConnect with a range query that answers arrays and fails in named ways."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        verify: bool | str = True,
        timeout_s: float = 10.0,
        retries: int = 2,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        session = requests.Session()
        session.verify = verify
        super().__init__(
            url.rstrip("/"),
            headers=dict(headers or {}),
            auth=auth,
            session=session,
            timeout=max(1, round(timeout_s)),
            retry=Retry(total=0, raise_on_status=False),
            method="POST",
        )
        self._limit_s = timeout_s
        self._retries = retries
        self._sleep = sleep
        self._clock = clock

    def query_range(self, query: str, span: Span) -> list[Row]:
        """The series of a query on the span's grid; [] for an empty answer.

        Raises SourceUnreachable after the retries (down, slow, 5xx, 429, answer cut short), SourceRefused (4xx),
        SourceGarbage (not a Prometheus answer, or larger than MAX_ANSWER_BYTES).
        """
        for attempt in range(self._retries + 1):
            try:
                return parse(self._fetch(query, span), span, self.prometheus_host)
            except SourceUnreachable as error:
                if attempt == self._retries:
                    raise
                self._sleep(min(0.25 * 2**attempt if error.delay_s == 30.0 else error.delay_s, 5.0))
        raise AssertionError("unreachable")

    def _fetch(self, query: str, span: Span) -> bytes:
        body = {"query": query, "start": repr(span.start_s), "end": repr(span.end_s), "step": repr(span.step_s)}
        body["timeout"] = f"{max(1, math.ceil(self._limit_s))}s"
        host, deadline_s = self.prometheus_host, self._clock() + self._limit_s
        try:
            with self._session.post(
                f"{self.url}/api/v1/query_range",
                data=body,
                headers=self.headers,
                auth=self.auth,
                timeout=self._limit_s,
                stream=True,
                allow_redirects=False,
            ) as response:
                data = self._body(response, deadline_s)
        except requests.exceptions.SSLError as error:
            raise SourceRefused(f"Prometheus at {host} has a certificate that is not trusted here") from error
        except requests.Timeout as error:
            raise SourceUnreachable(f"Prometheus at {host} did not answer within {self._limit_s:g} s") from error
        except (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
        ) as error:
            raise SourceRefused(f"{host or self.url!r} is not an address of a Prometheus server") from error
        except (requests.RequestException, HTTPError, OSError) as error:
            raise SourceUnreachable(f"Prometheus at {host} is not reachable ({type(error).__name__})") from error
        check_status(response.status_code, data, response.headers, host)
        return data

    def _body(self, response: requests.Response, deadline_s: float) -> bytes:
        parts, size = [], 0
        for part in response.iter_content(_CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise SourceGarbage(
                    f"Prometheus at {self.prometheus_host} sent more than {MAX_ANSWER_BYTES >> 20} MB for one query; "
                    "narrow the selectors or lengthen the step"
                )
            if self._clock() > deadline_s:
                raise SourceUnreachable(
                    f"Prometheus at {self.prometheus_host} did not finish its answer within {self._limit_s:g} s"
                )
        return b"".join(parts)


def check_status(status: int, data: bytes, headers: Mapping[str, str], host: str) -> None:
    """Nothing for 200, else the error that says what to do."""
    if status == 200:
        return
    if status == 429:
        try:
            delay_s = float(headers.get("Retry-After", "5"))
        except ValueError:
            delay_s = 5.0
        raise SourceUnreachable(f"Prometheus at {host} asks to come back later (HTTP 429)", delay_s=delay_s)
    said = _error_text(data)
    if status >= 500:
        # 503 with errorType "timeout" is a query that Prometheus itself gave up on
        raise SourceUnreachable(f"Prometheus at {host} failed with HTTP {status}{said}")
    if status in (401, 403):
        raise SourceRefused(f"Prometheus at {host} refuses these credentials (HTTP {status})")
    raise SourceRefused(f"Prometheus at {host} refuses the query with HTTP {status}{said}")


def _error_text(data: bytes) -> str:
    try:
        text = json.loads(data)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {str(text)[:200]}"


def parse(data: bytes, span: Span, host: str) -> list[Row]:
    """A range answer as rows on the span's grid. SourceGarbage where it is not one.

    The sample lists are cut out and read by numpy; only the small rest goes through the JSON parser. Inside a JSON
    string the marker cannot occur: its quotes would be escaped.
    """
    segments: list[bytes] = []

    def cut(match: re.Match[bytes]) -> bytes:
        segments.append(match.group(1))
        return b'"values":%d' % (len(segments) - 1)

    skeleton = _VALUES.sub(cut, data)
    try:
        answer: Any = json.loads(skeleton)
        if answer["status"] != "success" or answer["data"]["resultType"] != "matrix":
            raise SourceGarbage(f"Prometheus at {host} did not answer with a matrix{_error_text(data)}")
        return [
            Row(dict(item["metric"]), _on_grid(segments[item["values"]], span)) for item in answer["data"]["result"]
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, DeprecationWarning) as error:
        start = data[:60].decode("utf-8", "replace")
        raise SourceGarbage(f"what answers at {host} is not a Prometheus answer (it starts {start!r})") from error


def _on_grid(segment: bytes, span: Span) -> FloatArray:
    text = segment.translate(None, b'[]" ')
    flat = np.array(text.split(b","), dtype=np.float64)
    if flat.size % 2:
        raise ValueError("odd number of values")
    at, values = flat[0::2], flat[1::2]
    grid = np.full(span.points, np.nan)
    index = np.rint((at - span.start_s) / span.step_s).astype(np.int64)
    inside = (index >= 0) & (index < span.points)
    # an infinite quantile or ratio is "beyond what was measured", not a number to compute with
    values = np.where(np.isfinite(values), values, np.nan)
    grid[index[inside]] = values[inside]
    return grid
