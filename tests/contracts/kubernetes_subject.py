"""The API server under contract: the demo's stand-in, or a real one when SLOTUNE_TEST_KUBECONFIG names a kubeconfig.

On a real server everything happens in namespaces that the suite makes and removes, as the kubeconfig's own user (who
must be an administrator); other users are impersonated. A bare kube-apiserver is enough: what needs a controller or a
kubelet, and what only the stand-in can do on demand (faults, a stopped etcd, metrics that the test sets), is skipped
with the reason. Where pods get ready, the suite waits for its own before a row begins.
"""

from __future__ import annotations

import copy
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from demo.kubernetes_api.server import KubernetesApi

KUBECONFIG = os.environ.get("SLOTUNE_TEST_KUBECONFIG")
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
ADMIN_TOKEN = "t-admin"
Rules = list[dict[str, Any]]


def stand_in_only(why: str) -> pytest.MarkDecorator:
    """A row that a real server cannot show on demand; `why` is what it lacks."""
    return pytest.mark.skipif(bool(KUBECONFIG), reason=f"only on the stand-in: {why}")


@dataclass
class Subject:
    """A server under contract with Deployment "web" and HPA "web" (2 to 10) in a namespace of its own."""

    api_client: Any
    namespace: str
    stand_in: KubernetesApi | None

    @property
    def hpas(self) -> Any:
        return client.AutoscalingV2Api(self.api_client)

    @property
    def apps(self) -> Any:
        return client.AppsV1Api(self.api_client)

    @property
    def core(self) -> Any:
        return client.CoreV1Api(self.api_client)

    @property
    def server(self) -> KubernetesApi:
        assert self.stand_in is not None
        return self.stand_in

    def read(self, name: str = "web") -> Any:
        return self.hpas.read_namespaced_horizontal_pod_autoscaler(name, self.namespace)

    def create(self, body: dict[str, Any], **kwargs: Any) -> Any:
        return self.hpas.create_namespaced_horizontal_pod_autoscaler(self.namespace, body, **kwargs)

    def patch(self, body: object, name: str = "web", **kwargs: Any) -> Any:
        return self.hpas.patch_namespaced_horizontal_pod_autoscaler(name, self.namespace, body, **kwargs)

    def apply(self, values: dict[str, Any], manager: str, **kwargs: Any) -> Any:
        body = {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": values,
        }
        return self.patch(body, _content_type=APPLY, field_manager=manager, **kwargs)

    def replicas(self, name: str = "web") -> int:
        return int(self.apps.read_namespaced_deployment(name, self.namespace).spec.replicas)

    def scale(self, replicas: int) -> Any:
        return self.apps.patch_namespaced_deployment_scale("web", self.namespace, {"spec": {"replicas": replicas}})

    def as_user(self, user: str, rules: Rules | None = None) -> Subject:
        """The same server as somebody else sees it, with a Role of these rules; skips where everybody may do all."""
        if self.stand_in is not None:
            token = f"t-{user}"
            self.stand_in.add_token(token, user)
            self.stand_in.add_role(user, self.namespace, rules or [])
            return self.with_token(token)
        if rules:
            _bind(self, user, rules)
        impersonating = client.ApiClient(self.api_client.configuration)
        impersonating.set_default_header("Impersonate-User", user)
        seen = Subject(impersonating, self.namespace, None)
        with suppress(ApiException):
            client.CoreV1Api(impersonating).list_node()
            pytest.skip("this server authorises everybody: no 403 to be had (start it with --authorization-mode=RBAC)")
        return seen

    def with_token(self, token: str | None) -> Subject:
        """The same server with a bearer token alone, or with nothing."""
        made = copy.deepcopy(self.api_client.configuration)
        made.cert_file = made.key_file = made.refresh_api_key_hook = None
        made.username = made.password = ""
        made.api_key = {"BearerToken": f"Bearer {token}", "authorization": f"Bearer {token}"} if token else {}
        made.retries = urllib3.Retry(total=0)
        return Subject(client.ApiClient(made), self.namespace, self.stand_in)

    def service_account_token(self, name: str, rules: Rules) -> str:
        """A token of a service account that a Role grants `rules`."""
        user = f"system:serviceaccount:{self.namespace}:{name}"
        if self.stand_in is not None:
            self.stand_in.add_token(f"t-{name}", user)
            self.stand_in.add_role(user, self.namespace, rules)
            return f"t-{name}"
        self.core.create_namespaced_service_account(self.namespace, {"metadata": {"name": name}})
        _bind(self, user, rules)
        request = {"spec": {"audiences": None, "expirationSeconds": 600}}
        made = self.core.create_namespaced_service_account_token(name, self.namespace, request)
        return str(made.status.token)

    def needs_hpa_controller(self) -> None:
        """Skips where nobody acts on HPAs."""
        if self.stand_in is None and not hpa_controller_runs():
            pytest.skip("no HPA controller acts on this server (kube-controller-manager is not running)")

    def needs_controllers(self) -> None:
        """Skips where nobody makes pods."""
        if self.stand_in is None and not controllers_run():
            pytest.skip("no controller acts on this server (kube-controller-manager is not running)")

    def needs_ready_pods(self) -> None:
        """Skips where pods are made and never get ready: a scale-up waits for the earlier ones. Where nobody makes
        pods at all there is nothing to wait for."""
        if self.stand_in is None and controllers_run() and not pods_get_ready():
            pytest.skip("pods do not get ready on this server (no kubelet runs them)")

    def set_pods_quota(self, name: str, pods: int) -> None:
        """A ResourceQuota on the number of pods, in force when this returns."""
        if self.stand_in is not None:
            self.stand_in.add_quota(self.namespace, name, pods)
            return
        body = {"metadata": {"name": name}, "spec": {"hard": {"pods": str(pods)}}}
        self.core.create_namespaced_resource_quota(self.namespace, body)

        def counted() -> bool:
            status = self.core.read_namespaced_resource_quota(name, self.namespace).status
            return bool(status and status.hard and status.used)

        self.until(counted)

    def set_pod_security(self, level: str) -> None:
        """PodSecurity's level for this namespace, in force when this returns."""
        label = {"pod-security.kubernetes.io/enforce": level}
        if self.stand_in is not None:
            self.stand_in.label_namespace(self.namespace, label)
        else:
            self.core.patch_namespace(self.namespace, {"metadata": {"labels": label}})
            time.sleep(2.0)  # admission reads namespaces from a watch

    def needs_service_account(self) -> None:
        """Waits for the namespace's default service account, without which no pod is admitted."""
        if self.stand_in is not None:
            return
        names = [a.metadata.name for a in self.core.list_namespaced_service_account(self.namespace).items]
        if "default" not in names and not controllers_run():
            self.core.create_namespaced_service_account(self.namespace, {"metadata": {"name": "default"}})
        self.until(lambda: "default" in [
            a.metadata.name for a in self.core.list_namespaced_service_account(self.namespace).items
        ])  # fmt: skip

    def until(self, true: Callable[[], Any], real_s: float = 60.0) -> Any:
        """Waits for the controllers."""
        end = time.monotonic() + (5.0 if self.stand_in is not None else real_s)
        while not (found := true()):
            assert time.monotonic() < end, "did not happen in time"
            time.sleep(0.02 if self.stand_in is not None else 0.5)
        return found


def _bind(subject: Subject, user: str, rules: Rules) -> None:
    name = f"role-{uuid.uuid4().hex[:8]}"
    rbac = client.RbacAuthorizationV1Api(subject.api_client)
    rbac.create_namespaced_role(subject.namespace, {"metadata": {"name": name}, "rules": rules})
    bound = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    rbac.create_namespaced_role_binding(subject.namespace, bound)
    if subject.stand_in is None:
        subject.until(lambda: _granted(subject, user, rules))  # the authoriser reads Roles from a watch


def _granted(subject: Subject, user: str, rules: Rules) -> bool:
    """Whether the authoriser knows the last of the rules by now."""
    rule = rules[-1]
    plural, _, sub = rule["resources"][0].partition("/")
    asked = client.V1ResourceAttributes(
        namespace=subject.namespace, verb=rule["verbs"][-1], group=rule["apiGroups"][0], resource=plural,
        subresource=sub or None, name=(rule.get("resourceNames") or [None])[0],
    )  # fmt: skip
    review = client.V1SubjectAccessReview(spec=client.V1SubjectAccessReviewSpec(user=user, resource_attributes=asked))
    return bool(client.AuthorizationV1Api(subject.api_client).create_subject_access_review(review).status.allowed)


def hpa_body(name: str, target: str = "web", low: int | None = 2, high: int = 10) -> dict[str, Any]:
    values: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "maxReplicas": high,
    }
    if low is not None:
        values["minReplicas"] = low
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": values,
    }


def deployment_body(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"containers": [{"name": "server", "image": "slotune-demo:1"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def pods_metric(name: str = "qps", value: str = "1000") -> list[dict[str, Any]]:
    target = {"type": "AverageValue", "averageValue": value}
    return [{"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}]


@contextmanager
def subject_of_this_run() -> Iterator[Subject]:
    """A fresh namespace on the server of this run, with its Deployment and its HPA; removed afterwards."""
    if KUBECONFIG:
        with real_namespace() as (api_client, namespace):
            yield _furnish(Subject(api_client, namespace, None))
        return
    with KubernetesApi(tick_s=0.01) as server:
        server.add_namespace("facts")
        server.add_token(ADMIN_TOKEN, "admin", admin=True)
        made = client.Configuration()
        made.host = server.url
        yield _furnish(Subject(client.ApiClient(made), "facts", server).with_token(ADMIN_TOKEN))


def _furnish(subject: Subject) -> Subject:
    subject.apps.create_namespaced_deployment(subject.namespace, deployment_body("web", 2))
    if subject.stand_in is not None or pods_get_ready():
        subject.until(lambda: ready_replicas(subject.apps, subject.namespace) == 2, real_s=120.0)
    subject.create(hpa_body("web"))
    return subject


def ready_replicas(apps: Any, namespace: str, name: str = "web") -> int:
    status = apps.read_namespaced_deployment(name, namespace).status
    return int((status and status.ready_replicas) or 0)


# -- a real server ----------------------------------------------------------------------------------------------------


@contextmanager
def real_namespace() -> Iterator[tuple[Any, str]]:
    api_client = config.new_client_from_config(KUBECONFIG)
    namespace = f"slotune-contract-{uuid.uuid4().hex[:8]}"
    client.CoreV1Api(api_client).create_namespace({"metadata": {"name": namespace}})
    try:
        yield api_client, namespace
    finally:
        remove_namespace(api_client, namespace)


def remove_namespace(api_client: Any, namespace: str) -> None:
    """Delete a namespace; without a namespace controller its objects are deleted one kind at a time, and it is freed
    from the finaliser for which that controller would have waited."""
    core = client.CoreV1Api(api_client)
    apps, rbac = client.AppsV1Api(api_client), client.RbacAuthorizationV1Api(api_client)
    managed = controllers_run()
    if not managed:
        for delete in (
            client.AutoscalingV2Api(api_client).delete_collection_namespaced_horizontal_pod_autoscaler,
            apps.delete_collection_namespaced_deployment,
            apps.delete_collection_namespaced_replica_set,
            core.delete_collection_namespaced_pod,
            core.delete_collection_namespaced_config_map,
            core.delete_collection_namespaced_service_account,
            core.delete_collection_namespaced_event,
            client.CoordinationV1Api(api_client).delete_collection_namespaced_lease,
            rbac.delete_collection_namespaced_role_binding,
            rbac.delete_collection_namespaced_role,
        ):
            with suppress(ApiException):
                delete(namespace)
    with suppress(ApiException):
        core.delete_namespace(namespace)
    if not managed:
        with suppress(ApiException):
            body = core.read_namespace(namespace)
            body.spec.finalizers = []
            core.replace_namespace_finalize(namespace, body)


@cache
def controllers_run() -> bool:
    """Whether kube-controller-manager looks after this server: a Deployment's generation is observed in time."""
    api_client = config.new_client_from_config(KUBECONFIG)
    apps, core = client.AppsV1Api(api_client), client.CoreV1Api(api_client)
    namespace = f"slotune-contract-probe-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": namespace}})
    apps.create_namespaced_deployment(namespace, deployment_body("probe", 0))
    end, seen = time.monotonic() + 10.0, False
    while not seen and time.monotonic() < end:
        status = apps.read_namespaced_deployment("probe", namespace).status
        seen = bool(status and status.observed_generation)
        time.sleep(0.2)
    apps.delete_namespaced_deployment("probe", namespace)
    core.delete_namespace(namespace)
    if not seen:
        body = core.read_namespace(namespace)
        body.spec.finalizers = []
        core.replace_namespace_finalize(namespace, body)
    return seen


@cache
def pods_get_ready() -> bool:
    """Whether somebody (a kubelet, or what stands in for one) makes pods ready on this server."""
    if not controllers_run():
        return False
    with real_namespace() as (api_client, namespace):
        apps = client.AppsV1Api(api_client)
        apps.create_namespaced_deployment(namespace, deployment_body("web", 1))
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            if ready_replicas(apps, namespace) == 1:
                return True
            time.sleep(0.5)
    return False


@cache
def hpa_controller_runs() -> bool:
    """Whether somebody acts on HPAs: a floor above the replicas is followed (one sync is 15 s by default)."""
    if not controllers_run():
        return False
    with real_namespace() as (api_client, namespace):
        probe = _furnish(Subject(api_client, namespace, None))
        probe.patch({"spec": {"minReplicas": 3}})
        end = time.monotonic() + 45.0
        while time.monotonic() < end:
            if probe.replicas() == 3:
                return True
            time.sleep(0.5)
    return False


# -- what is expected -------------------------------------------------------------------------------------------------


def refused(call: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    """(code, body) of a refusal, which is always JSON and never says when to come back."""
    with pytest.raises(ApiException) as error:
        call()
    body = json.loads(error.value.body)
    assert error.value.headers["Content-Type"] == "application/json"
    assert "Retry-After" not in error.value.headers
    return error.value.status, body


def expected(code: int, reason: str, message: str, details: dict[str, Any] | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return body if details is None else {**body, "details": details}
