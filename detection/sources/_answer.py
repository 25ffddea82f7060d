"""The body of a Prometheus answer: series on a grid, or the reason why it must not be believed.

Valid JSON is read in any spelling. The usual one, sample lists of quoted numbers, is cut out and read by numpy, because
samples are most of a sweep's cost; whatever that cannot read goes through the JSON parser as a whole.

An answer that is not whole says so in one of these ways: `warnings` of a query layer about its stores (Thanos, promxy,
remote read), `isPartial` (VictoriaMetrics), the header `M3-Results-Limited` (M3), the status 206, a token of a next
page, an error beside the data. The annotations of PromQL itself ("PromQL info: ...", "PromQL warning: ...", and
everything in `infos`) speak of the query and not of missing data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detection.errors import AnswerTooLarge, SourceGarbage, SourcePartial
from detection.model import FloatArray, Span
from detection.outside_text import printable

MAX_SERIES = 200_000
MAX_SLOW_BYTES = 64 << 20
"""What is not spelt as usual costs many times its size in memory."""

_VALUES = re.compile(rb'"values"\s*:\s*\[\s*\[(.*?)"\s*\]\s*\]', re.DOTALL)
_FLAGS = ("isPartial", "partial", "partialResponse", "partial_response", "truncated", "incomplete")
_PAGES = ("nextPageToken", "nextToken", "next_page_token")
_ANNOTATION = re.compile(r"^\s*PromQL (info|warning)\b")
_FAILURES = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Row:
    """One series of an answer. values: on the span's grid, shape (span.points,), NaN where there is no sample."""

    labels: Mapping[str, str]
    values: FloatArray


def parse(data: bytes, span: Span, host: str, headers: Mapping[str, str] | None = None, status: int = 200) -> list[Row]:
    """A range answer as rows on the span's grid.

    Raises SourceGarbage where it is no Prometheus answer, SourcePartial where it says that it is not whole,
    AnswerTooLarge where it holds more series than anyone can have asked for.
    """
    if data.count(b'"metric"') > MAX_SERIES:
        raise AnswerTooLarge(f"Prometheus at {host} sent more than {MAX_SERIES:,} series for one query; narrow it")
    segments: list[bytes] = []

    def cut(match: re.Match[bytes]) -> bytes:
        segments.append(match.group(1))
        return b'"values":%d' % (len(segments) - 1)

    try:
        answer = _loaded(_VALUES.sub(cut, data))
        rows = _rows(answer, segments, span, host, headers or {}, status)
    except _FAILURES:
        rows = _slowly(data, span, host, headers or {}, status)
    labels = {tuple(sorted(row.labels.items())) for row in rows}
    if len(labels) != len(rows):
        raise SourceGarbage(f"Prometheus at {host} answered with the same series twice")
    return rows


def time_of(data: bytes, host: str) -> float:
    """The number of a scalar answer, as that of `time()`. SourceGarbage where it is none."""
    try:
        answer = _loaded(data)
        return float(answer["data"]["result"][1])
    except _FAILURES as error:
        raise _no_answer(data, host) from error


def names_of(data: bytes, host: str) -> list[str]:
    """The metric names of an instant answer. SourceGarbage where it is none."""
    try:
        return sorted({str(item["metric"].get("__name__", "")) for item in _loaded(data)["data"]["result"]} - {""})
    except _FAILURES as error:
        raise _no_answer(data, host) from error


def error_text(data: bytes) -> str:
    """What a failing server says, fit for a message: ": ..." or nothing."""
    try:
        text = _loaded(data)
        said = text.get("error") or text.get("message")
    except _FAILURES:
        return ""
    return f": {printable(said, 200)}" if isinstance(said, str) and said else ""


def _loaded(data: bytes) -> Any:
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise TypeError("not an object")
    return answer


def _slowly(data: bytes, span: Span, host: str, headers: Mapping[str, str], status: int) -> list[Row]:
    if len(data) > MAX_SLOW_BYTES:
        raise AnswerTooLarge(
            f"Prometheus at {host} sent {len(data) >> 20} MB in an unusual spelling of JSON, which costs too much "
            "memory to read; narrow the selectors or lengthen the step"
        )
    try:
        return _rows(_loaded(data), [], span, host, headers, status)
    except _FAILURES as error:
        raise _no_answer(data, host) from error


def _no_answer(data: bytes, host: str) -> SourceGarbage:
    start = printable(data[:60].decode("utf-8", "replace"), 80)
    return SourceGarbage(f"what answers at {host} is not a Prometheus answer (it starts {start!r})")


def _rows(
    answer: Mapping[str, Any], segments: Sequence[bytes], span: Span, host: str, headers: Mapping[str, str], status: int
) -> list[Row]:
    if answer["status"] != "success" or answer["data"]["resultType"] != "matrix":
        said = answer.get("error")
        words = f": {printable(said, 200)}" if isinstance(said, str) else ""
        raise SourceGarbage(f"Prometheus at {host} did not answer with a matrix{words}")
    lacks = incomplete(answer, headers, status)
    if lacks is not None:
        raise SourcePartial(f"Prometheus at {host} answered with a part of the data ({lacks})")
    rows = []
    for item in answer["data"]["result"]:
        labels = {_text(name): _text(value) for name, value in item["metric"].items()}
        if "values" not in item and "histograms" in item:
            continue  # a native histogram and not a number: the query did not take a quantile of it
        held = item["values"]
        at, values = _fast(segments[held]) if isinstance(held, int) else _plain(held)
        rows.append(Row(labels, on_grid(at, values, span)))
    return rows


def incomplete(answer: Mapping[str, Any], headers: Mapping[str, str], status: int = 200) -> str | None:
    """Why an answer is not whole, in the server's own words; None where it does not say so."""
    said = answer.get("warnings") or []
    warnings = [said] if isinstance(said, str) else said if isinstance(said, list) else [json.dumps(said)]
    stores = [str(warning) for warning in warnings if not _ANNOTATION.match(str(warning))]
    if stores:
        return printable(stores[0], 160)
    for part in (answer, answer.get("data"), answer.get("pageInfo")):
        if isinstance(part, Mapping):
            named = [name for name in (*_FLAGS, *_PAGES) if part.get(name) not in (None, False, "", "false", 0)]
            if named:
                return f"it says {named[0]}"
    if answer.get("error"):
        return printable(answer["error"], 160)
    if status == 206:
        return "HTTP 206"
    for name, value in headers.items():
        if (name == "m3-results-limited" or "partial" in name) and value.strip().lower() not in ("", "false", "0"):
            return printable(f"the header {name}: {value}", 160)
    return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a label must be a text")
    return value


def _fast(segment: bytes) -> tuple[FloatArray, FloatArray]:
    flat = np.array(segment.translate(None, b'[]" \t\r\n').split(b","), dtype=np.float64)
    if flat.size % 2:
        raise ValueError("odd number of values")
    return flat[0::2], flat[1::2]


def _plain(samples: Sequence[Any]) -> tuple[FloatArray, FloatArray]:
    pairs = [(float(at), np.nan if value is None else float(value)) for at, value in samples]
    flat = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return flat[:, 0], flat[:, 1]


def on_grid(at: FloatArray, values: FloatArray, span: Span) -> FloatArray:
    """Samples at their grid points; what lies elsewhere is dropped, what is infinite is a gap."""
    grid = np.full(span.points, np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        place = np.rint((at - span.start_s) / span.step_s)
        # an infinite quantile or ratio is "beyond what was measured", not a number to compute with
        inside = (place >= 0) & (place < span.points) & np.isfinite(values)
    grid[place[inside].astype(np.int64)] = values[inside]
    return grid
