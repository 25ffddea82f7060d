"""The restart lever: one process be gone. On any server over HTTP, and as an eviction on Kubernetes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demo.kubernetes_api.resources import BUDGET, DEPLOYMENT, POD
from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.actuators import FakeConnections, FakeTime, service
from tests.fakes.kubernetes import World, eventually
from tuning import actuators
from tuning.actuators.http_restart import HttpRestart
from tuning.actuators.kubernetes_restart import KubernetesRestart
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotApplied, NotOwner, OutcomeUnknown
from tuning.model import Change, Setting

pytestmark = pytest.mark.server


class Server:
    """A server that starts anew when it is told. starts: which process it is. how: what it does with POST /restart:
    "well", "ignores", "refuses", "dies" (nobody answers afterwards), "silent" (ends before it can answer)."""

    def __init__(self) -> None:
        self.starts, self.how, self.calls, self.dead, self.url = 1, "well", list[object](), False, ""

    def get(self, path: str) -> tuple[int, object]:
        if self.dead:
            return 503, {"error": "it is starting"}
        return (200, {"process": {"boot": f"b{self.starts}"}}) if path == "/about" else (404, {"error": "no such call"})

    def post(self, path: str, body: object) -> tuple[int, object]:
        self.calls.append(body)
        if self.how == "refuses" or path != "/restart":
            return 404, {"error": "there is no POST /restart"}
        if self.how == "dies":
            self.dead = True
        elif self.how != "ignores":
            self.starts += 1
        return (502, {}) if self.how == "silent" else (200, {"draining": True})


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, document: object) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer(*server.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            self.answer(*server.post(self.path, body))

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()


class Two:
    """Two servers and the lever on them."""

    def __init__(self, one: Server, other: Server, **options: object) -> None:
        self.one, self.other, self.time = one, other, FakeTime()
        read = {"path": "/about", "incarnation_at": "/process/boot"}
        write = {"path": "/restart", "body": {"if_boot": "{incarnation}"}}
        self.connections = FakeConnections({"a": one.url, "b": other.url})
        self.lever = HttpRestart(self.connections, self.time.clock, self.time.sleep)
        self.service = service(
            "restart", "http_restart", maximum=3, connection="a", endpoints=["b"], read=read, write=write,
            request_timeout_s=0.5, restart_timeout_s=10.0, **options,
        )  # fmt: skip


@pytest.fixture
def two() -> Iterator[Two]:
    with serving(Server()) as one, serving(Server()) as other:
        yield Two(one, other)


def gone(knob: str) -> Change:
    return Change(lever="restart", old={knob: "up"}, new={knob: "gone"})


def test_a_setting_names_every_process_and_says_that_all_others_are_gone(two: Two) -> None:
    setting = two.lever.read(two.service)
    assert setting.values == {"a@b1": "up", "b@b1": "up"}
    assert setting.at(["a@b0", "a@b1"]) == {"a@b0": "gone", "a@b1": "up", "b@b1": "up"}
    assert [one.place for one in setting.replicas] == [two.one.url[7:], two.other.url[7:]]
    assert Setting.model_validate_json(setting.model_dump_json()) == setting


def test_one_process_is_ended_and_the_next_one_read_back(two: Two) -> None:
    receipt = two.lever.apply(two.service, gone("b@b1"), key="plan:restart")
    assert (receipt.applied, receipt.changed, receipt.before, receipt.after) == (True, True, {"b@b1": "up"}, {"b@b1": "gone"})
    assert (two.one.starts, two.other.starts) == (1, 2) and two.other.calls == [{"if_boot": "b1"}]
    again = two.lever.apply(two.service, gone("b@b1"), key="plan:restart")
    assert (again.applied, again.changed, again.id) == (True, False, receipt.id) and two.other.starts == 2


def test_the_way_back_changes_nothing_and_says_so(two: Two) -> None:
    two.lever.apply(two.service, gone("b@b1"), key="plan:restart")
    back = two.lever.apply(two.service, gone("b@b1").inverse(), key="undo:restart")
    assert (back.applied, back.changed) == (True, False) and "nothing to undo" in back.reason
    assert two.other.starts == 2


def test_an_answer_that_is_lost_is_settled_by_reading_back(two: Two) -> None:
    two.other.how = "silent"
    assert two.lever.apply(two.service, gone("b@b1"), key="plan:restart").changed
    assert two.other.starts == 2


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("ignores", NotApplied, "after 10 s the same process answers"),
        ("refuses", ControlRefused, "there is no POST /restart"),
        ("dies", OutcomeUnknown, "was told to restart 10 s ago: .* it is starting"),
    ],
)
def test_what_does_not_restart_is_told(two: Two, how: str, error: type[Exception], words: str) -> None:
    two.other.how = how
    with pytest.raises(error, match=words):
        two.lever.apply(two.service, gone("b@b1"), key="plan:restart")
    assert two.one.calls == []


def test_bad_wishes_are_sentences_and_change_nothing(two: Two) -> None:
    for change, words in (
        (gone("c@b1"), "ranker has no replica c; it has a, b"),
        (gone("b"), "must be REPLICA@INCARNATION"),
        (Change(lever="restart", old={}, new={"a@b1": "gone", "b@b1": "gone"}), "exactly one process"),
        (Change(lever="restart", old={}, new={"a@b1": "up"}), "exactly one process"),
    ):
        with pytest.raises((ConfigError, ControlRefused), match=words):
            two.lever.apply(two.service, change, key="plan:restart")
    assert two.one.calls == two.other.calls == []


def test_the_minimum_of_others_is_kept(two: Two) -> None:
    lever = two.service.levers["restart"].model_copy(update={"minimum": 2})
    strict = two.service.model_copy(update={"levers": {"restart": lever}})
    with pytest.raises(ControlRefused, match="only 1 other replica is ready, and 2 must be"):
        two.lever.apply(strict, gone("b@b1"), key="plan:restart")
    assert two.other.calls == []


def test_where_one_cannot_be_asked_nothing_is_said_of_any(two: Two) -> None:
    two.connections.known["b"] = "http://127.0.0.1:9"
    with pytest.raises(ControlUnreachable):
        two.lever.read(two.service)
    with pytest.raises(ControlUnreachable):
        two.lever.apply(two.service, gone("a@b1"), key="plan:restart")
    assert two.one.calls == []


# Kubernetes ---------------------------------------------------------------------------------------------------------


class Web:
    """A Deployment of two ready pods and the lever on it."""

    def __init__(self, api: KubernetesApi, replicas: int = 2) -> None:
        self.world, self.api = World(api), api
        api.add_namespace("facts")
        api.add_deployment("facts", "web", replicas, spec={"containers": [{"name": "server", "image": "x:1"}]})
        self.world.steady()
        self.lever = KubernetesRestart(self.world.connect(), self.world.clock, self.world.sleep)
        self.service = service(
            "restart", "kubernetes_restart", maximum=3, connection="cluster", namespace="facts", target="web",
            request_timeout_s=0.5, budget_timeout_s=20.0, ready_timeout_s=30.0,
        )  # fmt: skip

    def pods(self) -> list[str]:
        return [pod["metadata"]["uid"] for pod in self.api.store.list(POD, "facts")]

    def knobs(self) -> list[str]:
        return sorted(self.lever.read(self.service).values)

    def budget(self, **spec: object) -> None:
        body = {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec}}
        self.api.store.create(BUDGET, "facts", body, "kubectl-create")


@pytest.fixture
def web() -> Iterator[Web]:
    with KubernetesApi(tick_s=0.01) as api:
        yield Web(api)


def test_a_pod_is_evicted_and_its_place_filled(web: Web) -> None:
    one, other = web.knobs()
    receipt = web.lever.apply(web.service, gone(one), key="plan:restart")
    assert (receipt.applied, receipt.changed) == (True, True) and "2 are ready" in receipt.reason
    left = web.knobs()
    assert one not in left and other in left and len(left) == 2
    again = web.lever.apply(web.service, gone(one), key="plan:restart")
    assert (again.changed, again.id) == (False, receipt.id) and web.knobs() == left


def test_a_budget_that_allows_none_is_waited_for_and_then_a_sentence(web: Web) -> None:
    web.budget(minAvailable=2)
    before = web.pods()
    with pytest.raises(ControlRefused, match="disruption budget web needs 2 healthy pods and has 2 currently; waited for 20 s"):
        web.lever.apply(web.service, gone(web.knobs()[0]), key="plan:restart")
    assert web.pods() == before


def test_a_budget_that_allows_it_meanwhile_is_no_obstacle(web: Web) -> None:
    web.budget(minAvailable="100%")

    def loosened(obj: dict[str, object]) -> dict[str, object]:
        obj["spec"]["minAvailable"] = 1  # type: ignore[index]
        return obj

    web.world.on_sleep = lambda: web.api.store.update(BUDGET, "facts", "web", loosened, "ops") and None
    assert web.lever.apply(web.service, gone(web.knobs()[0]), key="plan:restart").changed


def test_one_at_a_time_and_never_the_last(web: Web) -> None:
    web.api.store.update(DEPLOYMENT, "facts", "web", lambda o: o | {"spec": o["spec"] | {"replicas": 1}}, "ops")
    eventually(lambda: len(web.pods()) == 1)
    web.world.steady()
    with pytest.raises(ControlRefused, match="no other replica is ready, and 1 must be"):
        web.lever.apply(web.service, gone(web.knobs()[0]), key="plan:restart")
    assert len(web.pods()) == 1


def test_a_pod_that_is_not_ready_keeps_the_others_where_they_are(web: Web) -> None:
    web.api.cluster.start_s = 60.0
    web.api.store.update(DEPLOYMENT, "facts", "web", lambda o: o | {"spec": o["spec"] | {"replicas": 3}}, "ops")
    eventually(lambda: len(web.pods()) == 3)
    ready = [one.knob for one in web.lever.read(web.service).replicas if one.ready]
    before = web.pods()
    with pytest.raises(ControlRefused, match="is not ready, and one at a time is restarted"):
        web.lever.apply(web.service, gone(ready[0]), key="plan:restart")
    assert web.pods() == before


def test_a_pod_that_merely_carries_the_labels_is_left_alone(web: Web) -> None:
    body = {"metadata": {"name": "guest", "labels": {"app": "web"}}, "spec": {}, "status": {"phase": "Running", "conditions": []}}
    guest = web.api.store.create(POD, "facts", body, "somebody")
    assert not any(knob.startswith("guest@") for knob in web.knobs())
    with pytest.raises(NotOwner, match="which has not made it"):
        web.lever.apply(web.service, gone(f"guest@{guest['metadata']['uid']}"), key="plan:restart")
    assert guest["metadata"]["uid"] in web.pods()


def test_the_rights_are_those_that_it_uses(web: Web) -> None:
    rights = {(verb, ref.resource) for verb, ref in web.lever.rights(web.service)}
    assert rights == {("get", "deployments/scale"), ("list", "pods"), ("list", "replicasets"), ("create", "pods/eviction")}


@pytest.mark.parametrize("name", ["http_restart", "kubernetes_restart"])
def test_a_missing_connection_is_a_sentence(name: str) -> None:
    time = FakeTime()
    with ExitStack(), pytest.raises(ConfigError, match=r"levers.restart.connection: connection is missing"):
        bare = service("restart", name, namespace="n", target="t") if "kube" in name else service("restart", name)
        actuators.get(name)(FakeConnections({}), time.clock, time.sleep).read(bare)
