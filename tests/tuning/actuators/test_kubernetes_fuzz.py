"""Whatever answers at the API server's address, the levers end in a result or in an error of the tree.

Valid answers of a small cluster are mutated (a part replaced, dropped, repeated) or replaced by statuses and bytes.
SLOTUNE_FUZZ sets how many inputs are tried (a long run: 10000).
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.actuators import FakeConnections, FakeTime, service
from tests.fakes.kubernetes import bounds
from tuning.actuators._kubernetes_endpoints import pod_connections
from tuning.actuators.kubernetes import KubernetesReplicas
from tuning.actuators.pod_spec import PodSpec
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, SlotuneError
from tuning.model import Change
from tuning.ports import Connection

EXAMPLES = int(os.environ.get("SLOTUNE_FUZZ", "120"))
pytestmark = [pytest.mark.server, pytest.mark.timeout(120 + EXAMPLES)]
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000)
Answers = dict[str, tuple[int, bytes]]

META = {"name": "web", "namespace": "facts", "uid": "u-web", "resourceVersion": "7", "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"}, "annotations": {"slotune/last-set": "{}"},
        "ownerReferences": [{"kind": "X", "name": "x", "uid": "u", "controller": False}],
        "managedFields": [{"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z",
                           "fieldsV1": {"f:spec": {"f:maxReplicas": {}}}}]}  # fmt: skip
POD_SPEC = {"containers": [{"name": "c", "args": ["--n=8"], "env": [{"name": "N", "value": "8"}]}]}
CONDITION = {"type": "ScalingActive", "status": "True", "reason": "R", "message": "m"}
HPA = {"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": META,
       "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 2,
                "maxReplicas": 10},
       "status": {"conditions": [CONDITION]}}  # fmt: skip
SCALE = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": META, "spec": {"replicas": 2},
         "status": {"replicas": 2, "selector": "app=web"}}  # fmt: skip
DEPLOYMENT = {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": META,
              "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": POD_SPEC}},
              "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2,
                         "conditions": [CONDITION]}}  # fmt: skip
RS_META = {"name": "web-1", "uid": "u-rs",
           "ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "u-web", "controller": True}]}  # fmt: skip


def pod(name: str) -> dict[str, Any]:
    made = [{"kind": "ReplicaSet", "name": "web-1", "uid": "u-rs", "controller": True}]
    status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}],
              "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "x"}}}]}  # fmt: skip
    return {"metadata": {"name": name, "ownerReferences": made}, "spec": POD_SPEC, "status": status}


VALID: dict[str, Any] = {
    "GET horizontalpodautoscalers": {"metadata": {}, "items": [HPA]},
    "GET horizontalpodautoscalers/web": HPA,
    "GET deployments/web/scale": SCALE,
    "GET deployments/web": DEPLOYMENT,
    "GET pods": {"metadata": {}, "items": [pod("web-1-a"), pod("web-1-b")]},
    "GET replicasets": {"metadata": {}, "items": [{"metadata": RS_META}]},
    "GET scaledobjects": {"metadata": {}, "items": []},
    "PATCH": {"metadata": META},
}
SMALL = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ODD = st.sampled_from([10**400, -(10**30), -1, 0, 2**31, 2**63, 5.5, "\ud800", "²", "1e999", "..", "a/b", "", [], {}, [[]],
                       [None], "9999-12-31T23:59:59+00:00", "\x1b[2Jx", "[" * 3000, True, {"": None}])  # fmt: skip
STATUS = {"kind": "Status", "message": "m", "reason": "Conflict", "details": {"causes": [{"reason": "x"}]}}


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """The value with one to three parts replaced, dropped or repeated."""
    whole = {"": copy.deepcopy(valid)}
    for _ in range(draw(st.integers(1, 3))):
        node: Any = whole
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = node[key]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 4)):
                node = inner
                continue
            what = draw(st.sampled_from(["odd", "small", "drop", "null", "repeat"]))
            if what == "drop" and node is not whole:
                node.pop(key)
            elif what == "repeat" and isinstance(node, list):
                node.append(copy.deepcopy(inner))
            else:
                node[key] = None if what == "null" else copy.deepcopy(draw(ODD if what == "odd" else SMALL))
            break
    return whole[""]


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    """What the server says to each request: mostly the truth, some of it spoilt."""
    said: Answers = {key: (200, json.dumps(value).encode()) for key, value in VALID.items()}
    for key in draw(st.lists(st.sampled_from(sorted(VALID)), min_size=1, max_size=3, unique=True)):
        how = draw(st.sampled_from(["mutated", "mutated", "mutated", "status", "bytes", "nested"]))
        if how == "mutated":
            said[key] = (200, json.dumps(draw(mutated(VALID[key]))).encode())
        elif how == "status":
            code = draw(st.sampled_from([204, 302, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 504]))
            said[key] = (code, json.dumps(draw(mutated(STATUS))).encode())
        elif how == "nested":
            said[key] = (200, b'{"metadata": ' + b"[" * 50_000)
        else:
            said[key] = (draw(st.sampled_from([200, 403, 500])), draw(st.binary(max_size=40)))
    return said


class Server:
    """Answers as it is told. wrote: whether a patch was answered in a way that leaves open whether it landed."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.wrote = False
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        place = handler.path.partition("?")[0].partition("/namespaces/facts/")[2]
        key = "PATCH" if handler.command == "PATCH" else f"{handler.command} {place}"
        code, data = self.answers.get(key, (404, b"404 page not found"))
        self.wrote |= key == "PATCH" and (code < 300 or code >= 500)
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


@contextmanager
def running() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65536

        def do_GET(self) -> None:
            told.answer(self)

        do_PATCH = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ends_well(server: Server, call: Callable[[], object]) -> None:
    """In a result or an error of the tree with a bounded sentence; once something may have landed, in no refusal."""
    server.wrote = False
    try:
        call()
    except SlotuneError as error:
        said = str(error)
        assert said.isprintable() and len(said) < 2500
        if server.wrote:
            assert not isinstance(error, ControlRefused | ControlUnreachable | ConfigError), said


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as made:
        yield made


def connections(server: Server) -> FakeConnections:
    return FakeConnections({"cluster": Connection(name="cluster", url=server.url)})


@FUZZ
@given(said=answers(), named=st.booleans())
def test_the_replica_lever(server: Server, said: Answers, named: bool) -> None:
    time = FakeTime(1_767_226_000.0)
    lever = KubernetesReplicas(connections(server), time.clock, time.sleep)
    options: dict[str, object] = {"connection": "cluster", "namespace": "facts", "target": "web", "unschedulable_after_s": 5}
    web = service("replicas", "kubernetes", maximum=10, **options, **({"hpa": "web"} if named else {}))
    server.answers = said
    ends_well(server, lambda: lever.read(web))
    ends_well(server, lambda: lever.pods(web))
    ends_well(server, lambda: lever.rights(web))
    ends_well(server, lambda: lever.apply(web, bounds((2, 10), (3, 10)), key="k"))
    ends_well(server, lambda: lever.apply(web, bounds((2, 10), (2, 9)), key="k"))


@FUZZ
@given(said=answers(), env=st.booleans())
def test_the_pod_template_lever(server: Server, said: Answers, env: bool) -> None:
    time = FakeTime(1_767_226_000.0)
    lever = PodSpec(connections(server), time.clock, time.sleep)
    place = {"env": "N"} if env else {"arg": "--n"}
    web = service("batch_size", "pod_spec", connection="cluster", namespace="facts", target="web",
                  rollout_timeout_s=5, **place)  # fmt: skip
    server.answers = said
    ends_well(server, lambda: lever.read(web))
    change = Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16})
    ends_well(server, lambda: lever.apply(web, change, key="k"))
    ends_well(server, lambda: lever.apply(web, change.inverse(), key="k"))


@FUZZ
@given(said=answers())
def test_the_pods_that_are_called(server: Server, said: Answers) -> None:
    extra: dict[str, object] = {"port": 8000, "cluster": "cluster"}
    web = Connection(name="web", url="pods://facts/web", extra=extra)
    server.answers = said
    ends_well(server, lambda: [made.url for made in pod_connections(connections(server), web)])
