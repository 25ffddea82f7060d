"""Whatever answers instead of Prometheus, the source reads it or raises an error of its own tree.

SLOTUNE_FUZZ sets how many inputs are tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detection.errors import SlotuneError
from detection.http_border import Answer
from detection.model import Reading, Service, Slo, Span
from detection.sources._answer import names_of, parse, time_of
from detection.sources._client import RangeClient
from detection.sources.prometheus import PrometheusSource

EXAMPLES = int(os.environ.get("SLOTUNE_FUZZ", "150"))
SPAN = Span(1_700_000_000.0, 1_700_000_060.0, 15.0)
SERVICES = [
    Service(name="a", serving="vllm", selectors={"job": "a"}, slo=Slo(p95_ms=100)),
    Service(name="b", serving="vllm", selectors={"job": "b"}, slo=Slo(p95_ms=100)),
    Service(name="c", serving="triton", selectors={"model": "c"}, slo=Slo(p95_ms=100)),
]
pytestmark = pytest.mark.timeout(120 + EXAMPLES)
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=12),
    st.sampled_from(["NaN", "+Inf", "1e309", "0x10", "9" * 400, "1700000015", "0.5", "success", "matrix", "a", "b", "c"]),
)  # fmt: skip
_json: st.SearchStrategy[Any] = st.recursive(
    _scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)), max_leaves=12
)
_samples = st.one_of(st.lists(st.tuples(_scalars, _scalars).map(list), max_size=5), st.lists(st.tuples(st.integers(1_700_000_000, 1_700_000_100), st.floats().map(str)).map(list), max_size=5), _json)
_labels = st.one_of(
    st.dictionaries(st.sampled_from(["job", "model", "le", "instance", "percentile_source", "replica"]), st.one_of(st.sampled_from(["a", "b", "c", "0.5", "5e-1", "+Inf", "summary", "x:1"]), _scalars), max_size=4), _json
)
_rows = st.lists(st.fixed_dictionaries({"metric": _labels}, optional={"values": _samples, "histograms": _json}), max_size=4)
_answers = st.one_of(
    st.fixed_dictionaries(
        {"status": st.sampled_from(["success", "success", "error", 5]), "data": st.one_of(st.fixed_dictionaries({"resultType": st.sampled_from(["matrix", "matrix", "vector", None]), "result": st.one_of(_rows, _json)}), _json)},
        optional={"warnings": _json, "infos": _json, "error": _json, "isPartial": _json, "pageInfo": _json},
    ),
    _json,
)  # fmt: skip


def spelt(answer: Any, indent: int | None) -> bytes:
    return json.dumps(answer, indent=indent).encode("utf-8", "surrogatepass")


def checked(data: bytes, headers: dict[str, str], status: int) -> None:
    for read in (lambda: parse(data, SPAN, "h", headers, status), lambda: time_of(data, "h"), lambda: names_of(data, "h")):
        with contextlib.suppress(SlotuneError):
            found = read()
            if isinstance(found, list) and found and not isinstance(found[0], str):
                assert all(row.values.shape == (SPAN.points,) for row in found)


@fuzz
@given(_answers, st.sampled_from([None, 1]), st.dictionaries(st.sampled_from(["m3-results-limited", "x-partial", "date"]), st.text(max_size=8), max_size=2), st.sampled_from([200, 206]))
def test_any_json_is_an_answer_or_an_error_of_the_tree(answer: Any, indent: int | None, headers: dict[str, str], status: int):
    checked(spelt(answer, indent), headers, status)


@fuzz
@given(_answers, st.integers(0, 400), st.binary(max_size=6))
def test_any_damage_to_an_answer_is_an_error_of_the_tree(answer: Any, at: int, junk: bytes):
    data = spelt(answer, None)
    checked(data[:at] + junk + data[at + 1 :], {}, 200)


@fuzz
@given(st.lists(_answers, min_size=1, max_size=5))
def test_whatever_answers_the_source_reads_or_raises_its_own(answers: list[Any]):
    def query_range(query: str, span: Span) -> list[Any]:
        return parse(spelt(answers[zlib.crc32(query.encode()) % len(answers)], None), span, "h")

    source = PrometheusSource("http://127.0.0.1:9", rate_window_s=60, query_range=query_range)
    for read in (source.read, source.read_replicas):
        with contextlib.suppress(SlotuneError):
            found = read(SERVICES, ["p95_ms", "qps", "mean_ms", "error_rate"], SPAN)
            assert isinstance(found, Reading)
            assert not set(found) & set(found.unreadable)
    with contextlib.suppress(SlotuneError):
        for window in source.read_buckets(SERVICES, SPAN).values():
            assert (np.diff(window.upper_ms) > 0).all()


class Canned(RangeClient):
    """The real client over an answer that is there already."""

    answer = Answer(200)

    def _exchange(self, method: str, path: str, form: Any) -> Answer:
        self._compare_clocks(self.answer, self._wall())
        return self.answer


_header = st.one_of(st.text(max_size=20), st.sampled_from(["²", "-1", "9" * 30, "nan", "Mon, 30 Nov 2026 10:00:00 GMT", "Mon, 99 Nov 99999 10:00:00 GMT"]))


@fuzz
@given(st.integers(100, 999), st.binary(max_size=60), st.dictionaries(st.sampled_from(["date", "retry-after", "content-type"]), _header, max_size=3))
def test_any_status_and_header_is_an_error_of_the_tree(status: int, body: bytes, headers: dict[str, str]):
    client = Canned("http://127.0.0.1:9", retries=0, sleep=lambda _s: None)
    client.answer = Answer(status, headers, body)
    for call in (lambda: client.query_range("up", SPAN), client.server_clock_skew_s, lambda: client.names("", 0.0)):
        with contextlib.suppress(SlotuneError):
            call()
    assert client.clock_skew_s is None or abs(client.clock_skew_s) < 1e13
