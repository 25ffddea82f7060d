"""What every metrics source must do, run over the recorded and the Prometheus source."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detection import sources
from detection.errors import ConfigError, SourceGarbage, SourceRefused, SourceUnreachable
from detection.model import MetricWindow, Service, Slo, Span
from detection.ports import MetricsSource
from detection.sources.prometheus import PrometheusSource
from detection.sources.recorded import RecordedSource
from tests.fakes.prometheus_http import FakePrometheus

SPAN = Span(1_000_000.0, 1_000_540.0, 60.0)
SLO = Slo(p95_ms=100)


def service(name: str, **selectors: str) -> Service:
    return Service(name=name, serving="slotune_demo", selectors=selectors or {"service": name}, slo=SLO)


SERVICES = [service("a"), service("b.x"), service("silent")]


def qps(t: float) -> str | None:
    return None if t > SPAN.end_s - 100 else ("NaN" if t == SPAN.start_s else str(10 + (t - SPAN.start_s) / 60))


def _prometheus(fake: FakePrometheus, timeout_s: float = 0.4) -> MetricsSource:
    fake.series = {
        "inference_requests_total": [
            ({"service": "a", "replica": "r0"}, qps),
            ({"service": "b.x"}, lambda t: "5"),
            ({"service": "bax"}, lambda t: "99"),
        ],
        "histogram_quantile(0.95": [({"service": "a", "replica": "r0"}, lambda t: "+Inf" if t == SPAN.end_s else "20")],
    }
    return PrometheusSource(fake.url, rate_window_s=60, timeout_s=timeout_s, retries=0)


def _recorded(_: FakePrometheus) -> MetricsSource:
    number = np.array([math.nan if qps(t) is None else float(qps(t) or 0) for t in SPAN.times()])
    p95 = np.where(SPAN.times() == SPAN.end_s, np.nan, 20.0)
    a = MetricWindow("a", SPAN, {"qps": number, "p95_ms": p95}, "histogram")
    b = MetricWindow("b.x", SPAN, {"qps": np.full(SPAN.points, 5.0)})
    return RecordedSource({"a": a, "b.x": b}, {"a": {"r0": a}})


@pytest.fixture
def fake() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    yield server
    server.close()


@pytest.fixture(params=[_recorded, _prometheus], ids=["recorded", "prometheus"])
def source(request: pytest.FixtureRequest, fake: FakePrometheus) -> MetricsSource:
    made: MetricsSource = request.param(fake)
    return made


def test_every_source_is_registered() -> None:
    assert sorted(sources.REGISTRY) == list(sources.REGISTRY)
    with pytest.raises(ConfigError, match="prometheus, recorded"):
        sources.get("graphite")


def test_missing_is_not_zero(source: MetricsSource) -> None:
    windows = source.read(SERVICES, ["qps", "p95_ms"], SPAN)
    assert set(windows) == {"a", "b.x"}  # a service without any series is absent
    assert "p95_ms" not in windows["b.x"].values  # so is a signal that the service does not have
    a = windows["a"].values["qps"]
    assert a.shape == (SPAN.points,)
    assert np.isnan(a[0])  # NaN stays a gap
    assert np.isnan(a[-1])  # and so does the end of a series that went stale
    np.testing.assert_allclose(a[1:8], 10 + np.arange(1, 8))
    assert windows["a"].stale_s["qps"] == pytest.approx(120.0)


def test_infinite_is_a_gap(source: MetricsSource) -> None:
    p95 = source.read(SERVICES, ["p95_ms"], SPAN)["a"].values["p95_ms"]
    assert np.isnan(p95[-1])
    assert (p95[:-1] == 20).all()


def test_a_name_is_no_pattern(source: MetricsSource) -> None:
    windows = source.read([service("b.x")], ["qps"], SPAN)
    assert (windows["b.x"].values["qps"] == 5).all()  # not the 99 of "bax"


def test_replicas(source: MetricsSource) -> None:
    found = source.read_replicas(SERVICES, ["qps"], SPAN)
    assert set(found["a"]) == {"r0"}
    assert found["b.x"] == {}


def test_nothing_asked_nothing_answered(source: MetricsSource) -> None:
    assert source.read([], ["qps"], SPAN) == {}
    assert source.read(SERVICES, [], SPAN) == {}


@pytest.mark.parametrize(
    ("behave", "error", "says"),
    [
        ("slow", SourceUnreachable, "did not answer within"),
        ("hang_body", SourceUnreachable, "within|reachable"),
        ("half", SourceUnreachable, "not reachable"),
        ("500", SourceUnreachable, "HTTP 500: no <b>luck</b>"),
        ("503", SourceUnreachable, "HTTP 503"),
        ("429", SourceUnreachable, "come back later"),
        ("400", SourceRefused, "refuses the query"),
        ("401", SourceRefused, "credentials"),
        ("403", SourceRefused, "credentials"),
        ("302", SourceRefused, "HTTP 302"),
        ("garbage", SourceGarbage, "not a Prometheus answer"),
        ("half_json", SourceGarbage, "not a Prometheus answer"),
        ("html", SourceGarbage, "<html>"),
        ("error_body", SourceGarbage, "boom"),
        ("vector", SourceGarbage, "matrix"),
    ],
)
def test_each_failure_is_its_own_error(fake: FakePrometheus, behave: str, error: type[Exception], says: str) -> None:
    source = _prometheus(fake)
    fake.behave = behave
    with pytest.raises(error, match=says) as caught:
        source.read(SERVICES, ["qps"], SPAN)
    if behave == "429":
        assert isinstance(caught.value, SourceUnreachable)
        assert caught.value.delay_s == 7


def test_down_and_no_address() -> None:
    with pytest.raises(SourceUnreachable, match="not reachable"):
        PrometheusSource("http://127.0.0.1:9", rate_window_s=60, timeout_s=0.3, retries=0).read(SERVICES, ["qps"], SPAN)
    with pytest.raises(SourceRefused, match="not an address"):
        PrometheusSource("nonsense://x", rate_window_s=60, retries=0).read(SERVICES, ["qps"], SPAN)


def test_an_empty_answer_is_no_error(fake: FakePrometheus) -> None:
    source = _prometheus(fake)
    fake.behave = "empty"
    assert source.read(SERVICES, ["qps"], SPAN) == {}


def test_retries_then_answers(fake: FakePrometheus) -> None:
    _prometheus(fake)
    fake.fail_first = 1
    source = PrometheusSource(fake.url, rate_window_s=60, timeout_s=1, retries=1)
    assert "a" in source.read(SERVICES, ["qps"], SPAN)


def test_one_query_per_signal_for_all_services(fake: FakePrometheus) -> None:
    source = PrometheusSource(fake.url, rate_window_s=60, headers={"Authorization": "Bearer t"}, retries=0)
    many = [service(f"s{i}") for i in range(300)]
    source.read(many, ["qps", "p95_ms"], SPAN)
    # two signals, the histogram's bounds, and whether a target is scraped twice
    assert len(fake.queries) == 4
    assert all(headers["Authorization"] == "Bearer t" for headers in fake.headers)


def test_long_spans_are_cut_into_pieces(fake: FakePrometheus) -> None:
    source = _prometheus(fake, timeout_s=30.0)
    long = Span(0.0, 60.0 * 24_999, 60.0)
    window = source.read([service("b.x")], ["qps"], long)["b.x"]
    assert len([query for query in fake.queries if "requests_total" in query]) == 3
    assert window.values["qps"].size == 25_000
    assert np.isfinite(window.values["qps"]).all()


def test_a_service_without_selectors_is_a_mistake(fake: FakePrometheus) -> None:
    bare = Service(name="bare", serving="slotune_demo", slo=SLO)
    with pytest.raises(ConfigError, match="bare"):
        _prometheus(fake).read([bare], ["qps"], SPAN)


@pytest.mark.server
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH")
def test_a_real_prometheus_understands_every_query(tmp_path: Path) -> None:
    from detection import presets

    port = _free_port()
    (tmp_path / "p.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: self\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{port}']\n    labels: {{service: prom}}\n"
    )
    command = ["prometheus", f"--config.file={tmp_path}/p.yml", f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--storage.tsdb.path={tmp_path}/data", "--log.level=error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        own = {
            "metric.duration": "prometheus_http_request_duration_seconds",
            "metric.requests": "prometheus_http_requests_total",
        }
        services = [
            Service(
                name=name, serving=name, selectors={"service": "prom"}, slo=SLO, labels=own if "gen" in name else {}
            )
            for name in presets.REGISTRY
        ]
        signals = sorted({signal for preset in presets.REGISTRY.values() for signal in preset.signals})
        source = PrometheusSource(f"http://127.0.0.1:{port}", rate_window_s=5, retries=2)
        window, until = None, time.monotonic() + 40
        while time.monotonic() < until:
            time.sleep(1)
            now = float(int(time.time()))
            try:
                found = source.read(services, signals, Span(now - 10, now, 1.0))
            except SourceUnreachable:
                continue
            window = found.get("generic_histogram")
            if window is not None and "p95_ms" in window.values and "error_rate" in window.values:
                break
        assert window is not None
        assert np.nanmax(window.values["p95_ms"]) > 0
        assert np.nanmax(window.values["error_rate"]) == 0  # no 5xx series exists: a share of 0, not absent
        buckets = source.read_buckets(services, window.span)["generic_histogram"]
        assert np.isinf(buckets.upper_ms[-1])
        assert np.nansum(buckets.counts) > 0
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port
