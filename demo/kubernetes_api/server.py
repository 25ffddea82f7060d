"""A Kubernetes-shaped API server on loopback, with the controllers that make its objects come alive.

It answers what slotune and the official `kubernetes` client ask of autoscaling/v2, apps/v1 (with /scale), core/v1 pods,
keda.sh/v1alpha1, coordination.k8s.io and SelfSubjectAccessReview, in the words of kube-apiserver 1.36. It is a stand-in
for tests and the demo: no TLS, no persistence, no scheduler beyond "so many pods fit".
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from demo.kubernetes_api import hpa as hpa_controller
from demo.kubernetes_api import keda, status, workloads
from demo.kubernetes_api.faults import Fault, Faults
from demo.kubernetes_api.handler import Answer, Api, Request
from demo.kubernetes_api.rbac import Rbac
from demo.kubernetes_api.resources import DEPLOYMENT, HPA, NAMESPACE, SCALED_OBJECT, STATEFUL_SET, Resource
from demo.kubernetes_api.status import ApiError
from demo.kubernetes_api.store import Object, Policy, Store
from demo.kubernetes_api.workloads import Cluster

CREATOR = "kubectl-create"


class KubernetesApi:
    """Starts and stops the server and its controllers; `add_*` puts objects in, as an administrator would."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        on_scale: Callable[[str, str, int], None] | None = None,
        ready: Callable[[str, str], int] | None = None,
        where: Callable[[str, str], list[tuple[str, int]]] | None = None,
        tick_s: float = 0.05,
    ) -> None:
        """on_scale(namespace, name, replicas) starts and stops what the pods stand for; ready(namespace, name) tells
        how many of them are ready; where(namespace, name) gives their (address, port). tick_s: how often the
        controllers look."""
        self.store = Store()
        self.rbac = Rbac()
        self.faults = Faults()
        self.cluster = Cluster(ready=ready, where=where)
        self.api = Api(self.store, self.rbac)
        self._on_scale = on_scale
        self._tick_s = tick_s
        self._told: dict[tuple[str, str], int] = {}
        self._hpas: dict[tuple[str, str], hpa_controller.HpaState] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server = _Server((host, port), _handler(self))

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def start(self) -> KubernetesApi:
        serve = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": self._tick_s}, daemon=True)
        control = threading.Thread(target=self._control, daemon=True)
        self._threads = [serve, control]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        if self._threads:
            self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(timeout=5)

    def __enter__(self) -> KubernetesApi:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        """labels: pod-security.kubernetes.io/enforce: restricted, for one, means what it says."""
        self.store.create(NAMESPACE, "", {"metadata": {"name": name, "labels": labels or {}}}, CREATOR)

    def label_namespace(self, name: str, labels: dict[str, str]) -> None:
        """What `kubectl label namespace` does."""

        def change(obj: Object) -> Object:
            obj["metadata"]["labels"] = {**obj["metadata"].get("labels", {}), **labels}
            return obj

        self.store.update(NAMESPACE, "", name, change, CREATOR)

    def add_deployment(
        self,
        namespace: str,
        name: str,
        replicas: int,
        labels: dict[str, str] | None = None,
        *,
        kind: Resource = DEPLOYMENT,
        spec: Object | None = None,
        annotations: dict[str, str] | None = None,
    ) -> None:
        """A Deployment (or another scalable kind) with the selector app=NAME. spec: its pod spec."""
        selector = {"app": name}
        pod = spec or {"containers": [{"name": "server", "image": "slotune-demo:1", "env": [], "args": []}]}
        body = {
            "metadata": {"name": name, "labels": {**selector, **(labels or {})}, "annotations": annotations or {}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": selector}, "spec": pod},
            },
        }
        self.store.create(kind, namespace, body, CREATOR)
        self._told[(namespace, name)] = replicas

    def add_stateful_set(self, namespace: str, name: str, replicas: int) -> None:
        self.add_deployment(namespace, name, replicas, kind=STATEFUL_SET)

    def add_scalable_kind(self, group: str, version: str, plural: str, kind: str) -> Resource:
        """Serve a custom resource with a /scale subresource; put objects in with add_deployment(kind=...)."""
        resource = Resource(group, version, plural, kind, scalable=True)
        self.api.served = (*self.api.served, resource)
        return resource

    def add_hpa(
        self,
        namespace: str,
        name: str,
        target: str,
        min_replicas: int,
        max_replicas: int,
        sync_s: float = 1.0,
        metric: hpa_controller.Metric | None = None,
        *,
        kind: Resource = DEPLOYMENT,
        behavior: Object | None = None,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
    ) -> None:
        """metric(current replicas) -> replicas that the metric wants, or None while it is missing."""
        spec: Object = {
            "scaleTargetRef": {"apiVersion": kind.api_version, "kind": kind.kind, "name": target},
            "minReplicas": min_replicas,
            "maxReplicas": max_replicas,
        }
        if behavior:
            spec["behavior"] = behavior
        body = {"metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}}, "spec": spec}
        self.store.create(HPA, namespace, body, CREATOR)
        self._hpas[(namespace, name)] = hpa_controller.HpaState(sync_s, metric)

    def add_scaled_object(
        self, namespace: str, name: str, target: str, min_replicas: int | None = None, max_replicas: int | None = None,
        sync_s: float = 1.0, metric: hpa_controller.Metric | None = None, annotations: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        spec: Object = {"scaleTargetRef": {"name": target}, "triggers": [{"type": "prometheus", "metadata": {}}]}
        if min_replicas is not None:
            spec["minReplicaCount"] = min_replicas
        if max_replicas is not None:
            spec["maxReplicaCount"] = max_replicas
        body = {"metadata": {"name": name, "annotations": annotations or {}}, "spec": spec}
        self.store.create(SCALED_OBJECT, namespace, body, CREATOR)
        self._hpas[(namespace, f"keda-hpa-{name}")] = hpa_controller.HpaState(sync_s, metric)

    def add_token(self, token: str, user: str, *, admin: bool = False) -> None:
        """From the first token on, requests without a known one are anonymous or refused."""
        self.rbac.tokens[token] = user
        if admin:
            self.rbac.admins.add(user)

    def remove_token(self, token: str) -> None:
        self.rbac.tokens.pop(token, None)

    def add_role(self, user: str, namespace: str, rules: Sequence[dict[str, Any]]) -> None:
        """Role rules as in a manifest: [{"apiGroups": [...], "resources": [...], "verbs": [...]}]."""
        self.rbac.add(user, namespace, rules)

    def add_policy(self, name: str, kind: Resource, rule: Policy) -> None:
        """A ValidatingAdmissionPolicy: rule(object) answers why it denies, or None."""
        self.store.policies[name] = (kind, rule)

    def limit_pods(self, namespace: str, room: int | None) -> None:
        """So many pods fit; the others stay Pending and Unschedulable."""
        self.cluster.room.pop(namespace, None)
        if room is not None:
            self.cluster.room[namespace] = room

    def add_quota(self, namespace: str, name: str, pods: int | None) -> None:
        """A ResourceQuota on the number of pods; None takes it away."""
        self.store.quotas.pop(namespace, None)
        if pods is not None:
            self.store.quotas[namespace] = (name, pods)

    def starting(self, times: int = 3, **which: Any) -> None:
        """The next `times` requests that match are answered as by an API server whose caches are not filled yet: 403
        to whoever a Role would allow it."""
        self.faults.add(Fault(times=times, code=403, **which))

    def fail_next(self, times: int = 1, **what: Any) -> None:
        """The next `times` requests that match go wrong; the arguments are those of `Fault`."""
        self.faults.add(Fault(times=times, **what))

    def write_kubeconfig(self, path: Path, token: str = "") -> Path:
        """A kubeconfig with which `kubectl` and the official clients reach this server."""
        user: dict[str, Any] = {"token": token} if token else {}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "slotune-demo",
            "clusters": [{"name": "slotune-demo", "cluster": {"server": self.url}}],
            "users": [{"name": "slotune-demo", "user": user}],
            "contexts": [{"name": "slotune-demo", "context": {"cluster": "slotune-demo", "user": "slotune-demo"}}],
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        path.chmod(0o600)
        return path

    def _control(self) -> None:
        """Looks when something changed, when an HPA is due, and now and then (pods get ready by time alone)."""
        seen, rest_until_s = -1, 0.0
        while not self._stop.wait(self._tick_s):
            now_s = time.monotonic()
            due_s = min((state.next_s for state in list(self._hpas.values())), default=now_s + 1)
            if self.store.version == seen and now_s < min(rest_until_s, due_s):
                continue
            seen, rest_until_s = self.store.version, now_s + 5 * self._tick_s
            try:
                self._tick(now_s)
            except ApiError:  # an object that went away between two looks
                continue
            except Exception:  # a callback of whoever started us: one failure must not end the controllers
                logging.getLogger(__name__).exception("the controllers stumbled and go on")

    def _tick(self, now_s: float) -> None:
        for scaled in self.store.list(SCALED_OBJECT):
            keda.sync(self.store, scaled["metadata"]["namespace"], scaled["metadata"]["name"], self.api.served)
        for hpa in self.store.list(HPA):
            key = (hpa["metadata"]["namespace"], hpa["metadata"]["name"])
            state = self._hpas.setdefault(key, hpa_controller.HpaState(1.0))
            if now_s >= state.next_s:
                state.next_s = now_s + state.sync_s
                hpa_controller.sync(self.store, state, *key, now_s, self.api.served)
        for resource in self.api.served:
            if resource.scalable and resource.plural != "replicasets":
                for workload in self.store.list(resource):
                    self._tend(resource, workload["metadata"]["namespace"], workload["metadata"]["name"], now_s)

    def _tend(self, resource: Resource, namespace: str, name: str, now_s: float) -> None:
        wanted = workloads.sync(self.store, self.cluster, resource, namespace, name, now_s)
        if self._told.get((namespace, name)) != wanted:
            self._told[(namespace, name)] = wanted
            if self._on_scale:
                self._on_scale(namespace, name, wanted)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


def _handler(owner: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65536

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else b""
            request = Request.of(self.command, self.path, dict(self.headers.items()), body)
            fault = owner.faults.next(self.command, request.path)
            if fault is None:
                self._send(owner.api.answer(request))
            else:
                self._misbehave(fault, request)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 (the names that http.server calls)

        def _misbehave(self, fault: Fault, request: Request) -> None:
            if fault.apply_after_s is not None:
                late = threading.Timer(fault.apply_after_s, owner.api.answer, [request])
                late.daemon = True
                late.start()
            if fault.delay_s:
                time.sleep(fault.delay_s)
            if fault.drop:
                self.close_connection = True
                return
            if fault.code is not None:
                if fault.code == 403:
                    self._send(owner.api.forbid(request))
                    return
                make = status.BY_CODE.get(fault.code)
                if fault.code == 504 and request.method == "GET":
                    make = status.read_timeout
                error = make() if make else ApiError(fault.code, "Unknown", f"injected {fault.code}", {})
                headers = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s is not None else {}
                self._send(Answer(error.code, error.body, headers))
            elif fault.apply_after_s is None:
                self._send(owner.api.answer(request))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.code)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            if answer.stream is None:
                text = answer.headers.get("Content-Type") == "text/plain"
                data = str(answer.body).encode() if text else json.dumps(answer.body).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            for event in answer.stream:
                self.wfile.write(json.dumps(event).encode() + b"\n")
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
