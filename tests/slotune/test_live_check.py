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
