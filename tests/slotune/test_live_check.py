"""`slotune check --live`: every part is tried, nothing is changed, each result is a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message

from demo.kubernetes_api.server import KubernetesApi
from demo.processes import free_port
from slotune.commands.live_check import Result, live_check
from tests.fakes.actuators import ConfigEndpoint, FakeConnections, config_endpoint
from tests.fakes.kubernetes import World
from tests.fakes.prometheus_http import FakePrometheus
from tuning.services_yaml import load
from tuning.settings import Settings

pytestmark = pytest.mark.server
NOW_S = 1_800_000_000.0
YAML = """
mail: {to: [oncall@slotune.example]}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 100ms}
    levers:
      batch_size: {connection: slotune_ranker}
      replicas: {connection: slotune_cluster, namespace: facts, target: web, hpa: web, max: 4}
"""


class Inbox(Message):
    """Counts mails, of which there must be none."""

    def __init__(self) -> None:
        super().__init__()
        self.mails = 0

    def handle_message(self, message: Any) -> None:
        self.mails += 1


class Stack:
    """Everything that the file names, on loopback."""

    def __init__(
        self, endpoint: ConfigEndpoint, prometheus: FakePrometheus, api: KubernetesApi, mail: Controller
    ) -> None:
        self.endpoint, self.prometheus, self.api = endpoint, prometheus, api
        self.connections = FakeConnections(
            {
                "slotune_prometheus": prometheus.url,
                "slotune_ranker": endpoint.url,
                "slotune_cluster": api.url,
                "smtp_default": f"smtp://127.0.0.1:{mail.port}",
            }
        )

    def check(self, settings: Settings) -> list[Result]:
        return live_check(settings, self.connections, clock=lambda: NOW_S)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "services.yaml").write_text(YAML)
    return load(tmp_path / "services.yaml")


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def stack(inbox: Inbox) -> Iterator[Stack]:
    mail = Controller(inbox, hostname="127.0.0.1", port=free_port())
    mail.start()
    prometheus = FakePrometheus()
    prometheus.series["inference_request"] = [({"service": "ranker"}, lambda _: "42")]
    with config_endpoint() as endpoint, KubernetesApi(tick_s=0.01) as api:
        api.add_namespace("facts")
        api.add_deployment("facts", "web", 2)
        api.add_hpa("facts", "web", "web", 2, 4, sync_s=0.05)
        World(api).steady()
        yield Stack(endpoint, prometheus, api, mail)
    prometheus.close()
    mail.stop()


def failed(results: list[Result]) -> list[str]:
    return [r.text for r in results if not r.ok]


def test_all_is_well_and_nothing_was_changed(stack: Stack, settings: Settings, inbox: Inbox) -> None:
    before = stack.api.store.version
    results = stack.check(settings)
    assert failed(results) == []
    said = "\n".join(r.text for r in results)
    assert "has series for ranker: P95 42.0 ms" in said
    assert "Mail: the server of smtp_default answers (nothing was sent)" in said
    assert "ranker, batch_size: reads batch_size 1, batch_timeout_ms 2.0" in said
    assert "ranker, replicas: may patch horizontalpodautoscalers facts/web" in said
    assert "ranker, replicas: reads min_replicas 2, max_replicas 4, replicas 2" in said
    assert {method for method, _ in stack.endpoint.calls} == {"GET"}
    assert stack.api.store.version == before
    assert inbox.mails == 0


def test_each_part_fails_alone(stack: Stack, settings: Settings) -> None:
    for name, words in [
        ("slotune_prometheus", "Prometheus (slotune_prometheus): "),
        ("smtp_default", "Mail: the mail server of connection 'smtp_default' gives no answer"),
        ("slotune_ranker", "ranker, batch_size: GET http://127.0.0.1:9/config: nobody listens there"),
        ("slotune_cluster", "ranker, replicas: "),
    ]:
        good = stack.connections.known[name]
        stack.connections.known[name] = "smtp://127.0.0.1:9" if name == "smtp_default" else "http://127.0.0.1:9"
        problems = failed(stack.check(settings))
        assert len(problems) == 1, (name, problems)
        assert problems[0].startswith(words)
        stack.connections.known[name] = good


def test_an_undefined_connection_is_named(stack: Stack, settings: Settings) -> None:
    del stack.connections.known["slotune_ranker"]
    assert failed(stack.check(settings)) == [
        "ranker, batch_size: no connection slotune_ranker; set SLOTUNE_CONN_SLOTUNE_RANKER"
    ]


def test_no_series_is_not_no_prometheus(stack: Stack, settings: Settings) -> None:
    stack.prometheus.series.clear()
    assert failed(stack.check(settings)) == [
        "Prometheus (slotune_prometheus) answers, but has no series for ranker (service=ranker)"
    ]


def test_a_missing_right_comes_with_its_rule(stack: Stack, settings: Settings) -> None:
    rules = [
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]
    stack.api.add_token("t", "slotune")
    stack.api.add_role("slotune", "facts", rules)
    stack.connections.known["slotune_cluster"] = World(stack.api).connect("t").known["cluster"]
    assert failed(stack.check(settings)) == [
        'ranker, replicas: may not patch horizontalpodautoscalers facts/web; the Role needs {apiGroups: ["autoscaling"], '
        'resources: ["horizontalpodautoscalers"], resourceNames: ["web"], verbs: ["patch"]}'
    ]


def test_a_stand_down_shows(stack: Stack, settings: Settings) -> None:
    from demo.kubernetes_api.resources import HPA

    body = {"metadata": {"name": "web"}, "spec": {"minReplicas": 2}}
    stack.api.store.apply(HPA, "facts", "web", body, "flux")
    assert "slotune stands down: flux applies" in failed(stack.check(settings))[0]


def test_without_recipients_no_mail_server_is_needed(stack: Stack, settings: Settings) -> None:
    nobody = settings.model_copy(update={"mail": settings.mail.model_copy(update={"to": ()})})
    del stack.connections.known["smtp_default"]
    assert failed(stack.check(nobody)) == []


def said(stack: Stack, settings: Settings) -> str:
    return "\n".join(f"{r.mark} {r.text}" for r in stack.check(settings))


@pytest.mark.parametrize(
    ("bounds", "p95", "mark", "words"),
    [
        (["0.01", "0.05", "+Inf"], "50", "FAIL", "its histogram ends at 50 ms, below the SLO of 100 ms"),
        (["0.5", "1", "+Inf"], "475", "FAIL", "the first bucket of its histogram ends at 500 ms, above the SLO of 100 ms"),
        (["0.05", "0.1", "0.5", "+Inf"], "230", "warn", "P95 is 230.0 ms now, above the SLO of 100 ms"),
    ],
)
def test_the_slo_is_held_against_the_histogram(stack: Stack, settings: Settings, bounds: list[str], p95: str, mark: str, words: str) -> None:
    stack.prometheus.series = {
        "sum by (service, le)": [({"service": "ranker", "le": le}, lambda _: "9") for le in bounds],
        "histogram_quantile(0.95": [({"service": "ranker"}, lambda _: p95)],
        "inference_request": [({"service": "ranker"}, lambda _: "42")],
    }
    stack.prometheus.series = {
        "histogram_quantile": stack.prometheus.series.pop("histogram_quantile(0.95"),
        **stack.prometheus.series,
    }
    lines = [line for line in said(stack, settings).splitlines() if words in line]
    assert len(lines) == 1 and lines[0].startswith(mark)


def test_a_missing_signal_is_named_with_what_is_off_and_what_it_may_be_called(stack: Stack, settings: Settings) -> None:
    stack.prometheus.series = {"histogram_quantile": [({"service": "ranker"}, lambda _: "42")]}
    stack.prometheus.names = ["my_inference_queue_depth", "up"]
    text = said(stack, settings)
    assert "warn ranker: error_rate is missing: failed requests open no incident and stop no change" in text
    assert "queue_depth is missing; there is my_inference_queue_depth instead of inference_queue_depth" in text


def test_what_is_read_for_another_signal_is_no_new_name(stack: Stack, settings: Settings) -> None:
    """Followed, the hint would count the whole latency as waiting."""
    labels = {"service": "ranker"}
    wish = {"serving": "generic_histogram", "selectors": labels}
    service = settings.services[0].model_copy(update=wish)
    stack.prometheus.series = {"histogram_quantile(0.95": [(labels, lambda _: "42")]}
    stack.prometheus.names = ["http_request_duration_seconds_bucket", "http_request_duration_seconds_count", "up"]
    text = said(stack, settings.model_copy(update={"services": (service,)}))
    assert "queue_ms is missing" in text and "there is http_request_duration_seconds" not in text


def test_a_promise_of_which_nothing_is_seen_is_told_with_what_that_may_mean(stack: Stack, settings: Settings) -> None:
    slo = settings.services[0].slo.model_copy(update={"p95_ms": None, "ttft_p95_ms": 500.0, "itl_p95_ms": 50.0})
    wish = {"serving": "vllm", "selectors": {"service": "ranker"}, "slo": slo}
    service = settings.services[0].model_copy(update=wish)
    stack.prometheus.series = {"num_requests_running": [({"service": "ranker"}, lambda _: "0")]}
    text = said(stack, settings.model_copy(update={"services": (service,)}))
    assert "but no TTFT P95 in the last" in text and "no request has come" in text and "(not streamed)" in text
    assert "kv_usage is missing" in text and "no change of the limit is proposed" in text


@pytest.mark.parametrize(
    ("promise", "words"),
    [
        ({"itl_p95_ms": 4.0}, "the first bucket of its histogram of ITL P95 ends at 10 ms, above the SLO of 4 ms"),
        ({"e2e_p95_ms": 200.0}, "the first bucket of its histogram of end-to-end P95 ends at 300 ms, above the SLO of 200 ms"),
        ({"itl_p95_ms": 9e4}, "its histogram of ITL P95 ends at 80000 ms, below the SLO of 90000 ms"),
        ({"itl_p95_ms": 25.0, "ttft_p95_ms": 500.0}, ""),
    ],
)
def test_a_promise_outside_the_buckets_of_its_own_histogram_is_told(
    stack: Stack, settings: Settings, promise: dict[str, float], words: str
) -> None:
    slo = settings.services[0].slo.model_copy(update={"p95_ms": None, **promise})
    wish = {"serving": "vllm", "selectors": {"service": "ranker"}, "slo": slo}
    service = settings.services[0].model_copy(update=wish)
    stack.prometheus.series = {"histogram_quantile(0.95": [({"service": "ranker"}, lambda _: "20")]}
    text = said(stack, settings.model_copy(update={"services": (service,)}))
    assert words in text and ("made up" in text or "cannot be seen" in text) is bool(words)


def test_a_promise_that_a_server_cannot_show_is_told(stack: Stack, settings: Settings) -> None:
    slo = settings.services[0].slo.model_copy(update={"p95_ms": None, "ttft_p95_ms": 500.0})
    service = settings.services[0].model_copy(update={"serving": "tgi", "selectors": {"service": "ranker"}, "slo": slo})
    stack.prometheus.series = {"tgi_queue_size": [({"service": "ranker"}, lambda _: "0")]}
    assert "the preset tgi knows no ttft_p95_ms" in said(stack, settings.model_copy(update={"services": (service,)}))


def test_a_renamed_prefix_is_told_as_the_label_to_set(stack: Stack, settings: Settings) -> None:
    service = settings.services[0].model_copy(update={"serving": "vllm", "selectors": {"job": "x"}})
    stack.prometheus.series.clear()
    stack.prometheus.names = ["kserve_vllm:num_requests_running", "kserve_vllm:e2e_request_latency_seconds_bucket"]
    told = failed(stack.check(settings.model_copy(update={"services": (service,)})))[0]
    assert "has no series for ranker" in told and "labels: {metric.prefix: kserve_vllm}" in told


def test_a_clock_that_is_off_is_said(stack: Stack, settings: Settings) -> None:
    stack.prometheus.skew_s = -300.0
    assert "its clock is 300 s behind this machine's" in "\n".join(failed(stack.check(settings)))


def test_an_extra_that_nothing_reads_is_named(stack: Stack, settings: Settings) -> None:
    import dataclasses

    known = stack.connections.get("slotune_ranker")
    stack.connections.known["slotune_ranker"] = dataclasses.replace(known, extra={"tokn": "planted"})
    text = said(stack, settings)
    assert "'tokn' (did you mean 'token'?), which nothing reads" in text and "planted" not in text
