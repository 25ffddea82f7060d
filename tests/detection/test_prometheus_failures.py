"""One service that cannot be read blinds no other; what is not whole is not read; what is read is counted once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

import numpy as np
import pytest

from detection.errors import QueryRefused, SourceGarbage, SourcePartial, SourceRefused, SourceUnreachable
from detection.http_access import Access
from detection.model import Reading, Service, Slo, Span
from detection.sources._answer import parse
from detection.sources._asking import MAX_DIVISIONS
from detection.sources.prometheus import PrometheusSource
from detection.windows import against, ceiling_ms, censored, last_shown
from tests.fakes.prometheus_http import FakePrometheus

SPAN = Span(1_000_000.0, 1_000_540.0, 60.0)
SLO = Slo(p95_ms=100)


def service(name: str, serving: str = "slotune_demo", labels: dict[str, str] | None = None, **selectors: str) -> Service:
    return Service(name=name, serving=serving, selectors=selectors or {"service": name}, slo=SLO, labels=labels or {})


@pytest.fixture
def fake() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    server.series = {"inference_requests_total": [({"service": f"s{i}"}, lambda t: "5") for i in range(40)]}
    yield server
    server.close()


def source(fake: FakePrometheus, **more: object) -> PrometheusSource:
    return PrometheusSource(fake.url, rate_window_s=60, timeout_s=5, retries=0, **more)  # type: ignore[arg-type]


def many(count: int) -> list[Service]:
    return [service(f"s{i}") for i in range(count)]


@pytest.mark.parametrize("status", [400, 413, 414, 422, 431])
def test_one_refused_service_among_many_is_found_and_named(fake: FakePrometheus, status: int):
    fake.refuse = lambda query: status if "s17" in query and "requests_total" in query else None
    found = source(fake).read(many(40), ["qps", "queue_depth"], SPAN)
    assert set(found) == {f"s{i}" for i in range(40)} - {"s17"}
    assert list(found.unreadable) == ["s17"]
    assert "qps" in found.unreadable["s17"] and f"HTTP {status}" in found.unreadable["s17"]


def test_two_culprits_cost_a_bounded_number_of_questions(fake: FakePrometheus):
    fake.refuse = lambda query: 422 if ("s3|" in query or '"s3"' in query or "s31" in query) and "rate(" in query else None
    found = source(fake).read(many(40), ["qps", "error_rate", "mean_ms", "queue_ms"], SPAN)
    assert set(found.unreadable) == {"s3", "s31"}
    assert len(found) == 38
    assert len(fake.queries) <= 8 + MAX_DIVISIONS


def test_a_store_that_lacks_one_services_series_blinds_no_other(fake: FakePrometheus):
    fake.lacks = lambda query: "s17" in query
    found = source(fake).read(many(40), ["qps", "error_rate"], SPAN)
    assert set(found) == {f"s{i}" for i in range(40)} - {"s17"}
    assert list(found.unreadable) == ["s17"] and "a part of the data" in found.unreadable["s17"]


def test_answers_that_are_all_partial_are_given_up_early(fake: FakePrometheus):
    fake.lacks = lambda query: True
    with pytest.raises(SourcePartial):
        source(fake).read(many(40), ["qps", "error_rate", "mean_ms"], SPAN)
    assert len(fake.queries) < 30


def test_more_culprits_than_may_be_refused_in_a_row_hide_nobody_in_the_next_signal(fake: FakePrometheus):
    wrong = {f"s{i}" for i in range(5, 40, 2)}
    fake.refuse = lambda query: 422 if wrong & set(re.findall(r"s\d+", query)) else None
    found = source(fake).read(many(40), ["qps", "error_rate", "mean_ms", "queue_ms", "queue_depth"], SPAN)
    assert set(found.unreadable) == wrong
    assert set(found) == {f"s{i}" for i in range(40)} - wrong
    assert all(not window.unread for window in found.values())


def test_a_question_that_is_wrong_for_everybody_is_given_up(fake: FakePrometheus):
    fake.refuse = lambda query: 422 if "queue_depth" in query else None
    found = source(fake).read(many(40), ["qps", "queue_depth"], SPAN)
    # not one of the figures that a service is judged by: the others are read, and the gap is named
    assert len(found) == 40 and not found.unreadable
    assert "HTTP 422" in found["s5"].unread["queue_depth"]
    assert len(fake.queries) < 30


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (service("w", serving="no_such"), "no preset"),
        (service("w", labels={"metric.latency": "x"}), "no metric 'latency'"),
        (service("w", serving="vllm", labels={"metric.duration": "a b"}), "not a Prometheus metric name"),
        (Service(name="w", serving="slotune_demo", slo=SLO), "no selectors"),
        (service("w", **{"": "x"}), "no label"),
        (service("w", __name__="x"), "no label"),
    ],
)
def test_a_service_that_cannot_be_asked_for_is_named(fake: FakePrometheus, wrong: Service, says: str):
    found = source(fake).read([*many(2), wrong], ["qps"], SPAN)
    assert set(found) == {"s0", "s1"}
    assert says in found.unreadable["w"] and "'w'" in found.unreadable["w"]
    assert source(fake).read_replicas([*many(2), wrong], ["qps"], SPAN).keys() == {"s0", "s1"}


def test_a_label_with_a_dot_stands_in_quotes_and_is_asked_for_apart(fake: FakePrometheus):
    fake.refuse = lambda query: 400 if '"service.name"' in query else None
    dotted = service("w", **{"service.name": 'x"} or vector(1)'})
    found = source(fake).read([*many(2), dotted], ["qps"], SPAN)
    assert set(found) == {"s0", "s1"} and "HTTP 400" in found.unreadable["w"]
    asked = [query for query in fake.queries if "service.name" in query and "rate" in query]
    assert '"service.name"="x\\"} or vector(1)"' in asked[0]
    assert 'by ("service.name",)' in asked[0]


def test_where_nothing_can_be_read_the_reason_is_raised(fake: FakePrometheus):
    fake.refuse = lambda query: 422
    with pytest.raises(QueryRefused, match="too many samples"):
        source(fake).read(many(3), ["qps"], SPAN)


def test_a_dead_server_is_not_asked_for_every_signal(fake: FakePrometheus):
    fake.behave = "500"
    signals = ["qps", "error_rate", "mean_ms", "queue_ms", "queue_depth", "batch_ms", "busy", "p95_ms", "p50_ms", "p99_ms"]
    with pytest.raises(SourceUnreachable):
        source(fake).read(many(3), signals, SPAN)
    assert len(fake.queries) <= 9


@pytest.mark.parametrize(
    "beside",
    [
        {"warnings": ["receive series from Addr: 10.2.0.7: connection refused"]},
        {"warnings": ["PromQL info: metric might not be a counter", "store b is down"]},
        {"warnings": "fetch timed out"},
        {"isPartial": True},
        {"partial": "true"},
        {"pageInfo": {"nextPageToken": "abc"}},
        {"nextToken": "abc"},
        {"error": "some replicas failed"},
    ],
)
def test_what_says_that_it_is_partial_is_not_read(fake: FakePrometheus, beside: dict[str, object]):
    fake.beside = beside
    with pytest.raises(SourcePartial, match="a part of the data"):
        source(fake).read(many(2), ["qps"], SPAN)


@pytest.mark.parametrize("header", [{"M3-Results-Limited": "max_fetch_series_limit_applied"}, {"X-Partial-Response": "true"}])
def test_a_header_can_say_so_too(fake: FakePrometheus, header: dict[str, str]):
    fake.sent = header
    with pytest.raises(SourcePartial):
        source(fake).read(many(2), ["qps"], SPAN)


@pytest.mark.parametrize(
    "beside",
    [
        {"infos": ["PromQL info: metric might not be a counter"]},
        {"warnings": []},
        {"warnings": ["PromQL info: metric might not be a counter", "PromQL warning: bucket label is missing"]},
        {"isPartial": False, "stats": {"seriesFetched": "3"}},
    ],
)
def test_remarks_on_the_query_are_no_gap(fake: FakePrometheus, beside: dict[str, object]):
    fake.beside = beside
    assert len(source(fake).read(many(2), ["qps"], SPAN)) == 2


@pytest.mark.parametrize("status", [403, 405, 501])
def test_get_is_used_where_post_is_refused(fake: FakePrometheus, status: int):
    fake.no_post = status
    access = Access.of({"headers": {"X-Scope-OrgID": "team-a"}, "token": "t"})
    found = source(fake, access=access).read(many(2), ["qps"], SPAN)
    assert len(found) == 2
    assert all(h["X-Scope-OrgID"] == "team-a" and h["Authorization"] == "Bearer t" for h in fake.headers)


def test_credentials_that_are_refused_are_called_so(fake: FakePrometheus):
    fake.no_post, fake.behave = 403, "403"
    with pytest.raises(SourceRefused, match="credentials"):
        source(fake).read(many(1), ["qps"], SPAN)


@pytest.mark.parametrize(("skew_s", "least", "most"), [(0.0, 0.0, 0.0), (300.0, 297.0, 301.0), (-300.0, -301.0, -297.0)])
def test_the_clocks_are_compared(fake: FakePrometheus, skew_s: float, least: float, most: float):
    fake.skew_s = skew_s
    metrics = source(fake)
    found = metrics.read(many(1), ["qps"], SPAN)
    assert isinstance(found, Reading) and found.clock_skew_s is not None
    assert least <= found.clock_skew_s <= most
    assert least <= metrics.clock_skew_s() <= most


def with_buckets(fake: FakePrometheus, bounds: list[str], p95: str, **signals: str) -> None:
    fake.series = {
        "sum by (service, le) (increase": [({"service": "s0", "le": le}, lambda t: "5") for le in bounds],
        "histogram_quantile(0.95": [({"service": "s0"}, lambda t: p95)],
        "_sum": [({"service": "s0"}, lambda t: signals["mean"])] if "mean" in signals else [],
    }


@pytest.mark.parametrize(("slo_ms", "mean", "seen"), [(500.0, "400", 1000.001), (5000.0, "30000", 30000.0), (5000.0, "400", math.nan), (1000.0, "400", 1000.001)])
def test_a_percentile_at_the_last_bucket_is_censored(fake: FakePrometheus, slo_ms: float, mean: str, seen: float):
    with_buckets(fake, ["0.1", "5e-1", "1.0", "+Inf"], "1000", mean=mean)
    window = source(fake).read(many(1), ["p95_ms", "mean_ms"], SPAN)["s0"]
    assert window.bounds_ms == (100.0, 500.0, 1000.0)
    assert ceiling_ms(window, "p95_ms") == 1000.0 and censored(window, "p95_ms").all()
    assert last_shown(window, "p95_ms") == "at least 1000 ms"
    np.testing.assert_allclose(against(window, "p95_ms", slo_ms), np.full(10, seen))
    assert window.between(SPAN.start_s, SPAN.start_s + 120).bounds_ms == window.bounds_ms


def test_below_the_last_bucket_nothing_is_censored(fake: FakePrometheus):
    with_buckets(fake, ["0.1", "1", "+Inf"], "200")
    window = source(fake).read(many(1), ["p95_ms"], SPAN)["s0"]
    assert not censored(window, "p95_ms").any()
    assert (against(window, "p95_ms", 5000.0) == 200).all()
    assert last_shown(window, "p95_ms") == "200.0 ms"


def test_bounds_are_numbers(fake: FakePrometheus):
    fake.series = {
        "increase(": [({"service": "s0", "le": le}, lambda t, v=value: v) for le, value in (("0.5", "10"), ("5e-1", "4"), ("0.50", "6"), ("1", "30"), ("+Inf", "30"), ("Inf", "10"), ("odd", "1"))]
    }
    buckets = source(fake).read_buckets(many(1), SPAN)["s0"]
    assert buckets.upper_ms.tolist() == [500.0, 1000.0, math.inf]
    assert buckets.counts[0].tolist() == [20.0, 10.0, 10.0]


def test_a_target_scraped_twice_is_counted_once_and_named(fake: FakePrometheus):
    doubled = [({"service": "s0", "instance": i, "job": j}, lambda t: "1") for i in ("a:1", "b:1") for j in ("pods", "services")]
    fake.series = {
        "count without": [({"service": "s0", "instance": "a:1"}, lambda t: "2")],
        "group by (service, instance": doubled,
        'job="pods"': [({"service": "s0", "job": "pods"}, lambda t: "50")],
        "inference_requests_total": [({"service": "s0"}, lambda t: "100"), ({"service": "s1"}, lambda t: "7")],
    }
    found = source(fake).read(many(2), ["qps"], SPAN)
    assert found["s0"].last("qps") == 50 and found["s1"].last("qps") == 7
    assert "scraped 2 times" in found.notes["s0"] and "pods, services" in found.notes["s0"]
    assert "s1" not in found.notes


def test_a_native_histogram_is_asked_for_where_there_is_no_classic_one(fake: FakePrometheus):
    fake.series = {
        "histogram_quantile(0.95, sum by (job,) (rate(lat{": [({"job": "a"}, lambda t: "120")],
        "histogram_count": [({"job": "a"}, lambda t: "9")],
    }
    own = service("a", "generic_histogram", {"metric.duration": "lat"}, job="a")
    window = source(fake).read([own], ["p95_ms", "qps"], SPAN)["a"]
    assert window.last("p95_ms") == 120 and window.last("qps") == 9
    assert window.bounds_ms == () and window.percentile_source == "histogram"


@pytest.mark.parametrize(("value", "kept"), [("-5", None), ("1e300", None), ("9.2e18", None), ("0", 0.0), ("12.5", 12.5)])
def test_impossible_values_are_gaps(fake: FakePrometheus, value: str, kept: float | None):
    fake.series = {"inference_requests_total": [({"service": "s0"}, lambda t: value)]}
    window = source(fake).read(many(1), ["qps"], SPAN)["s0"]
    assert window.last("qps") == kept


GRID = Span(1_700_000_000.0, 1_700_000_060.0, 15.0)
SAMPLES = [[1_700_000_000 + 15 * i, str(i)] for i in range(5)]


def body(samples: object = SAMPLES, labels: object = None) -> dict[str, object]:
    row = {"metric": labels or {"job": "a"}, "values": samples}
    return {"status": "success", "data": {"resultType": "matrix", "result": [row]}}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(body(), separators=(",", ":")),
        json.dumps(body()),
        json.dumps(body(), indent=2),
        json.dumps(body(), indent="\t").replace("\n", "\r\n"),
        json.dumps(body(), separators=(" , ", " : ")),
        json.dumps(body([[float(t), float(v)] for t, v in SAMPLES])),
        json.dumps(body([[t, int(v)] for t, v in SAMPLES])),
        json.dumps(body([[str(t), v] for t, v in SAMPLES])),
        json.dumps(body([[t, f"{v}.0e0"] for t, v in SAMPLES])),
        json.dumps(body()).replace("1700000015", "1.700000015e9"),
        json.dumps(body(labels={"job": '"values":[[1,"2"]]', "values": "x", "metric": "y"})),
        json.dumps({"data": {"result": [{"values": SAMPLES, "metric": {"job": "a"}}], "resultType": "matrix"}, "status": "success"}),
        json.dumps(body()).replace('"job"', '"\\u006aob"').replace('"values"', '"val\\u0075es"'),
    ],
)
def test_json_in_any_spelling(text: str):
    rows = parse(text.encode(), GRID, "h")
    assert rows[0].values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("spelt", ["NaN", "nan", "+Inf", "-Inf", "Inf", "1e309", None])
def test_what_is_no_number_is_a_gap(spelt: str | None):
    rows = parse(json.dumps(body([[1_700_000_000, spelt], [1_700_000_015, "3"]])).encode(), GRID, "h")
    assert np.isnan(rows[0].values[0]) and rows[0].values[1] == 3


def test_a_native_histograms_own_samples_are_passed_over():
    answer = body()
    answer["data"]["result"].append({"metric": {"job": "b"}, "histograms": [[1_700_000_000, {"count": "3"}]]})  # type: ignore[index]
    assert [row.labels["job"] for row in parse(json.dumps(answer).encode(), GRID, "h")] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(body([[1, 2, 3]])),
        json.dumps(body([["x", "1"]])),
        json.dumps(body([[1_700_000_000, "0x10"]])),
        json.dumps(body([[1_700_000_000, "abc"]])),
        json.dumps(body("text")),
        json.dumps(body(labels={"job": 5})),
        json.dumps(body(labels=["job"])),
        '{"status":"success","data":{"resultType":"matrix","result":[' + "[" * 100_000,
        "[" * 100_000,
        '{"status":"success","data":{"resultType":"matrix","result":[1]}}',
        "null",
        "5",
        '"text"',
        '{"status":"success","data":' + "9" * 5000 + "}",
    ],
)
def test_what_is_no_answer_is_a_sentence(text: str):
    with pytest.raises(SourceGarbage):
        parse(text.encode(), GRID, "h")


def test_the_same_series_twice_is_no_answer():
    answer = body()
    answer["data"]["result"] *= 2  # type: ignore[index]
    with pytest.raises(SourceGarbage, match="twice"):
        parse(json.dumps(answer).encode(), GRID, "h")
