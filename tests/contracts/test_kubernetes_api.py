"""What a Kubernetes API server answers, row by row: run over the demo's stand-in, or over a real server when
SLOTUNE_TEST_KUBECONFIG names a kubeconfig (`make test-kubernetes KUBECONFIG=...`)."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from demo.kubernetes_api.resources import HPA
from demo.kubernetes_api.server import KubernetesApi

pytestmark = pytest.mark.server
KUBECONFIG = os.environ.get("SLOTUNE_TEST_KUBECONFIG")
stand_in_only = pytest.mark.skipif(bool(KUBECONFIG), reason="needs tokens or faults that only the stand-in hands out")
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


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

    def read(self) -> Any:
        return self.hpas.read_namespaced_horizontal_pod_autoscaler("web", self.namespace)

    def patch(self, body: object, name: str = "web", **kwargs: Any) -> Any:
        return self.hpas.patch_namespaced_horizontal_pod_autoscaler(name, self.namespace, body, **kwargs)

    def apply(self, spec: dict[str, Any], manager: str, **kwargs: Any) -> Any:
        body = {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": spec,
        }
        return self.patch(body, _content_type=APPLY, field_manager=manager, **kwargs)

    def as_user(self, token: str | None) -> Subject:
        made = client.Configuration()
        made.host = self.api_client.configuration.host
        made.retries = urllib3.Retry(total=0)
        if token:
            made.api_key = {"BearerToken": f"Bearer {token}", "authorization": f"Bearer {token}"}
        return Subject(client.ApiClient(made), self.namespace, self.stand_in)

    @property
    def server(self) -> KubernetesApi:
        assert self.stand_in is not None
        return self.stand_in


def hpa_body(name: str, target: str = "web", low: int | None = 2, high: int = 10) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "maxReplicas": high,
    }
    if low is not None:
        spec["minReplicas"] = low
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": spec,
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


@pytest.fixture
def subject() -> Iterator[Subject]:
    if KUBECONFIG:
        api_client = config.new_client_from_config(KUBECONFIG)
        namespace = f"slotune-contract-{uuid.uuid4().hex[:8]}"
        client.CoreV1Api(api_client).create_namespace({"metadata": {"name": namespace}})
        try:
            yield _furnish(Subject(api_client, namespace, None))
        finally:
            client.CoreV1Api(api_client).delete_namespace(namespace)
        return
    with KubernetesApi(tick_s=0.01) as server:
        server.add_namespace("facts")
        made = client.Configuration()
        made.host = server.url
        yield _furnish(Subject(client.ApiClient(made), "facts", server))


def _furnish(subject: Subject) -> Subject:
    subject.apps.create_namespaced_deployment(subject.namespace, deployment_body("web", 2))
    subject.hpas.create_namespaced_horizontal_pod_autoscaler(subject.namespace, hpa_body("web"))
    return subject


def refused(call: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    with pytest.raises(ApiException) as error:
        call()
    body = json.loads(error.value.body)
    assert error.value.headers["Content-Type"] == "application/json"
    return error.value.status, body


def spec(**values: Any) -> dict[str, Any]:
    return {"spec": values}


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


GROUP = {"group": "autoscaling", "kind": "horizontalpodautoscalers"}
KIND = {"group": "autoscaling", "kind": "HorizontalPodAutoscaler"}
MODIFIED = (
    'Operation cannot be fulfilled on horizontalpodautoscalers.autoscaling "web": the object has been modified; '
    "please apply your changes to the latest version and try again"
)
STALE = {"metadata": {"resourceVersion": "1"}, "spec": {"minReplicas": 3}}


def invalid(field: str, value: object, words: str) -> dict[str, Any]:
    message = f"Invalid value: {value}: {words}"
    causes = [{"reason": "FieldValueInvalid", "message": message, "field": field}]
    return expected(
        422,
        "Invalid",
        f'HorizontalPodAutoscaler.autoscaling "web" is invalid: {field}: {message}',
        {"name": "web", **KIND, "causes": causes},
    )


ABOVE_MAX = invalid("spec.maxReplicas", 10, "must be greater than or equal to `minReplicas`")


@pytest.mark.parametrize("content", ["strategic", MERGE, "json-patch"])
def test_409_stale_resource_version(subject: Subject, content: str) -> None:
    body: object = STALE
    kwargs: dict[str, Any] = {"_content_type": MERGE} if content == MERGE else {}
    if content == "json-patch":
        body = [{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"},
                {"op": "replace", "path": "/spec/minReplicas", "value": 3}]  # fmt: skip
    code, answer = refused(lambda: subject.patch(body, **kwargs))
    assert (code, answer) == (409, expected(409, "Conflict", MODIFIED, {"name": "web", **GROUP}))


def test_409_stale_put(subject: Subject) -> None:
    stale = subject.read()
    subject.patch(spec(minReplicas=3))
    stale.spec.min_replicas = 4
    code, answer = refused(
        lambda: subject.hpas.replace_namespaced_horizontal_pod_autoscaler("web", subject.namespace, stale)
    )
    assert (code, answer["message"]) == (409, MODIFIED)


def test_409_already_exists(subject: Subject) -> None:
    code, answer = refused(
        lambda: subject.hpas.create_namespaced_horizontal_pod_autoscaler(subject.namespace, hpa_body("web"))
    )
    message = 'horizontalpodautoscalers.autoscaling "web" already exists'
    assert (code, answer) == (409, expected(409, "AlreadyExists", message, {"name": "web", **GROUP}))


def test_409_apply_conflict_and_force(subject: Subject) -> None:
    subject.patch(spec(minReplicas=4), field_manager="scaler")
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    code, answer = refused(lambda: subject.apply({"scaleTargetRef": ref, "minReplicas": 2}, "gitops"))
    message = 'Apply failed with 1 conflict: conflict with "scaler" using autoscaling/v2: .spec.minReplicas'
    cause = {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "scaler" using autoscaling/v2',
        "field": ".spec.minReplicas",
    }
    assert (code, answer) == (409, expected(409, "Conflict", message, {"causes": [cause]}))
    forced = subject.apply({"scaleTargetRef": ref, "minReplicas": 2}, "gitops", force=True)
    assert forced.spec.min_replicas == 2
    holders = [m.manager for m in forced.metadata.managed_fields if "f:minReplicas" in m.fields_v1.get("f:spec", {})]
    assert holders == ["gitops"]


@pytest.mark.parametrize("dry_run", [None, "All"])
def test_422_minimum_above_maximum(subject: Subject, dry_run: str | None) -> None:
    kwargs = {"dry_run": dry_run} if dry_run else {}
    assert refused(lambda: subject.patch(spec(minReplicas=11), **kwargs)) == (422, ABOVE_MAX)


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ({"minReplicas": -1}, invalid("spec.minReplicas", -1, "must be greater than or equal to 1")),
        (
            {"minReplicas": 4, "maxReplicas": 3},
            invalid("spec.maxReplicas", 3, "must be greater than or equal to `minReplicas`"),
        ),
    ],
    ids=["negative minimum", "maximum below minimum"],
)
def test_422_values(subject: Subject, values: dict[str, int], answer: dict[str, Any]) -> None:
    assert refused(lambda: subject.patch(spec(**values))) == (422, answer)


def test_422_minimum_zero_names_two_causes(subject: Subject) -> None:
    code, answer = refused(lambda: subject.patch(spec(minReplicas=0)))
    assert code == 422
    assert [(c["reason"], c["field"]) for c in answer["details"]["causes"]] == [
        ("FieldValueInvalid", "spec.minReplicas"),
        ("FieldValueForbidden", "spec.metrics"),
    ]
    assert (
        "must specify at least one Object or External metric to support scaling to zero replicas" in answer["message"]
    )


@pytest.mark.parametrize(
    ("value", "problem"), [("5", "unrecognized type: int32"), (5.5, "cannot convert float64 to int32")]
)
def test_422_wrong_type_forgets_the_object(subject: Subject, value: object, problem: str) -> None:
    code, answer = refused(lambda: subject.patch(spec(minReplicas=value)))
    shown = f'Invalid value: "map[spec:map[minReplicas:{value}]]": {problem}'
    assert (code, answer["message"]) == (422, f' "" is invalid: patch: {shown}')


@pytest.mark.parametrize(("value", "stored"), [(5.0, 5), (None, 1)], ids=["5.0 is 5", "null is the default"])
def test_200_lenient_numbers(subject: Subject, value: object, stored: int) -> None:
    assert subject.patch(spec(minReplicas=value)).spec.min_replicas == stored


def test_422_json_patch_test_that_fails(subject: Subject) -> None:
    code, answer = refused(lambda: subject.patch([{"op": "test", "path": "/spec/minReplicas", "value": 9}]))
    message = "the server rejected our request due to an error in our request"
    assert (code, answer["reason"], answer["message"], answer["details"]) == (422, "Invalid", message, {})


def test_422_wrong_uid(subject: Subject) -> None:
    code, answer = refused(lambda: subject.patch({"metadata": {"uid": "not-this-one"}, "spec": {"minReplicas": 3}}))
    assert code == 422
    assert "metadata.uid" in answer["message"]
    assert answer["message"].endswith("field is immutable")


@stand_in_only
def test_422_admission_policy_says_forbidden(subject: Subject) -> None:
    subject.server.add_policy(
        "cap", HPA, lambda o: "minReplicas capped at 5 by policy" if o["spec"]["minReplicas"] > 5 else None
    )
    code, answer = refused(lambda: subject.patch(spec(minReplicas=6)))
    message = (
        "horizontalpodautoscalers.autoscaling \"web\" is forbidden: ValidatingAdmissionPolicy 'cap' with binding "
        "'cap' denied request: minReplicas capped at 5 by policy"
    )
    assert (code, answer["reason"], answer["message"]) == (422, "Invalid", message)


def test_422_negative_replicas(subject: Subject) -> None:
    words = "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    code, answer = refused(
        lambda: subject.apps.patch_namespaced_deployment("web", subject.namespace, spec(replicas=-1))
    )
    assert (code, answer["message"]) == (422, f'Deployment.apps "web" is invalid: {words}')
    code, answer = refused(
        lambda: subject.apps.patch_namespaced_deployment_scale("web", subject.namespace, spec(replicas=-1))
    )
    assert (code, answer["message"]) == (422, f'Scale.autoscaling "web" is invalid: {words}')


def test_unknown_field_warns_and_strict_refuses(subject: Subject) -> None:
    answer = subject.hpas.patch_namespaced_horizontal_pod_autoscaler_with_http_info(
        "web", subject.namespace, spec(minReplica=3)
    )
    assert answer[1] == 200
    assert 'unknown field \\"spec.minReplica\\"' in answer[2]["Warning"]
    code, body = refused(lambda: subject.patch(spec(minReplica=3), field_validation="Strict"))
    assert code == 422
    assert 'strict decoding error: unknown field "spec.minReplica"' in body["message"]


def test_404_object_namespace_and_version(subject: Subject) -> None:
    message = 'horizontalpodautoscalers.autoscaling "nope" not found'
    body = expected(404, "NotFound", message, {"name": "nope", **GROUP})
    assert refused(lambda: subject.patch(spec(minReplicas=3), name="nope")) == (404, body)
    elsewhere = refused(lambda: subject.hpas.read_namespaced_horizontal_pod_autoscaler("nope", "no-such-namespace"))
    assert elsewhere == (404, body)
    code, answer = refused(lambda: subject.apps.read_namespaced_deployment("nope", subject.namespace))
    assert (code, answer["message"]) == (404, 'deployments.apps "nope" not found')
    code, answer = refused(
        lambda: subject.api_client.call_api(
            f"/apis/autoscaling/v2beta2/namespaces/{subject.namespace}/horizontalpodautoscalers/web",
            "GET",
            auth_settings=["BearerToken"],
            response_types_map={},
        )
    )
    assert (code, answer["message"], answer["details"]) == (
        404,
        "the server could not find the requested resource",
        {},
    )


def rules(*verbs: str, names: list[str] | None = None) -> list[dict[str, Any]]:
    rule = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": list(verbs)}
    return [{**rule, "resourceNames": names} if names else rule]


@stand_in_only
def test_403_names_user_verb_and_resource(subject: Subject) -> None:
    subject.server.add_token("t-viewer", "viewer")
    subject.server.add_role("viewer", "facts", rules("get"))
    viewer = subject.as_user("t-viewer")
    message = (
        'horizontalpodautoscalers.autoscaling "web" is forbidden: User "viewer" cannot patch resource '
        '"horizontalpodautoscalers" in API group "autoscaling" in the namespace "facts"'
    )
    body = expected(403, "Forbidden", message, {"name": "web", **GROUP})
    assert refused(lambda: viewer.patch(spec(minReplicas=3))) == (403, body)
    assert refused(lambda: viewer.patch(spec(minReplicas=3), dry_run="All"))[0] == 403
    assert refused(lambda: viewer.patch(spec(minReplicas=99)))[0] == 403  # before 422
    assert refused(lambda: viewer.patch(spec(minReplicas=3), name="nope"))[0] == 403  # before 404


@stand_in_only
def test_403_scale_and_cluster_scope(subject: Subject) -> None:
    subject.server.add_token("t-sa", "system:serviceaccount:facts:scaler")
    scaler = subject.as_user("t-sa")
    _, body = refused(lambda: scaler.apps.patch_namespaced_deployment_scale("web", "facts", spec(replicas=3)))
    assert body["message"] == (
        'deployments.apps "web" is forbidden: User "system:serviceaccount:facts:scaler" cannot patch resource '
        '"deployments/scale" in API group "apps" in the namespace "facts"'
    )
    _, body = refused(lambda: scaler.hpas.list_horizontal_pod_autoscaler_for_all_namespaces())
    assert body["message"].endswith("at the cluster scope")


@stand_in_only
def test_401_bad_token_and_403_without_one(subject: Subject) -> None:
    subject.server.add_token("good", "admin", admin=True)
    code, body = refused(subject.as_user("bad").read)
    assert (code, body) == (401, expected(401, "Unauthorized", "Unauthorized", None))
    code, body = refused(subject.as_user(None).read)
    assert code == 403
    assert 'User "system:anonymous"' in body["message"]


@stand_in_only
def test_403_terminating_namespace(subject: Subject) -> None:
    subject.server.store.terminating.add("facts")
    code, body = refused(lambda: subject.hpas.create_namespaced_horizontal_pod_autoscaler("facts", hpa_body("another")))
    assert code == 403
    assert "unable to create new content in namespace facts because it is being terminated" in body["message"]
    assert body["details"]["causes"][0]["reason"] == "NamespaceTerminating"


@stand_in_only
def test_least_rights_and_access_review(subject: Subject) -> None:
    subject.server.add_token("t", "scaler")
    subject.server.add_role("scaler", "facts", rules("get", "patch", names=["web"]))
    scaler = subject.as_user("t")
    assert scaler.patch(spec(minReplicas=3)).spec.min_replicas == 3
    hpa = scaler.read()
    code, body = refused(lambda: scaler.hpas.replace_namespaced_horizontal_pod_autoscaler("web", "facts", hpa))
    assert (code, "cannot update resource" in body["message"]) == (403, True)

    def allowed(verb: str) -> bool:
        attributes = client.V1ResourceAttributes(
            namespace="facts", verb=verb, group="autoscaling", resource="horizontalpodautoscalers", name="web"
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        answer = client.AuthorizationV1Api(scaler.api_client).create_self_subject_access_review(review)
        return bool(answer.status.allowed)

    assert [allowed(v) for v in ("get", "patch", "update", "delete")] == [True, True, False, False]


@stand_in_only
def test_504_and_late_landing(subject: Subject) -> None:
    subject.server.fail_next(methods=("PATCH",), code=504, apply_after_s=0.1)
    code, body = refused(lambda: subject.patch(spec(minReplicas=5)))
    message = "Timeout: request did not complete within requested timeout - context deadline exceeded"
    assert (code, body["message"], body["reason"], body["details"]) == (504, message, "Timeout", {})
    until = time.monotonic() + 3
    while subject.read().spec.min_replicas != 5:
        assert time.monotonic() < until
        time.sleep(0.02)


@stand_in_only
def test_no_connection_and_read_timeout_are_not_api_exceptions(subject: Subject) -> None:
    subject.server.fail_next(delay_s=0.5)
    impatient = subject.as_user(None)
    with pytest.raises(urllib3.exceptions.HTTPError):
        impatient.hpas.read_namespaced_horizontal_pod_autoscaler("web", "facts", _request_timeout=0.1)
    subject.server.fail_next(drop=True)
    with pytest.raises(urllib3.exceptions.HTTPError):
        impatient.read()


@stand_in_only
def test_410_watch_from_a_compacted_version(subject: Subject) -> None:
    subject.server.store.compact()
    with pytest.raises(ApiException) as error:
        list(
            watch.Watch().stream(
                subject.hpas.list_namespaced_horizontal_pod_autoscaler, "facts", resource_version="1", timeout_seconds=1
            )
        )
    assert (error.value.status, error.value.body) == (410, None)
    assert error.value.reason.startswith("Expired: too old resource version: 1 (")


def test_a_patch_without_resource_version_never_conflicts(subject: Subject) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: subject.patch(spec(minReplicas=1 + n % 9)).spec.min_replicas, range(40)))
    assert len(done) == 40


def test_a_patch_that_changes_nothing_keeps_the_resource_version(subject: Subject) -> None:
    time.sleep(0.3 if subject.stand_in else 20)  # the controller's first status
    before = subject.patch(spec(minReplicas=2)).metadata.resource_version
    assert subject.patch(spec(minReplicas=2)).metadata.resource_version == before


def test_normalises_quantities_and_fills_in_metrics(subject: Subject) -> None:
    assert subject.read().spec.metrics[0].resource.target.average_utilization == 80
    body = hpa_body("pods")
    body["spec"]["metrics"] = [
        {
            "type": "Pods",
            "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "1000"}},
        }
    ]
    made = subject.hpas.create_namespaced_horizontal_pod_autoscaler(subject.namespace, body)
    assert made.spec.metrics[0].pods.target.average_value == "1k"
    assert made.metadata.generation is None


def test_managers_and_their_default_name(subject: Subject) -> None:
    managers = {m.manager for m in subject.patch(spec(minReplicas=3)).metadata.managed_fields}
    assert "OpenAPI-Generator" in managers
    patched = subject.patch(spec(minReplicas=4), field_manager="slotune")
    holders = [m.manager for m in patched.metadata.managed_fields if "f:minReplicas" in m.fields_v1.get("f:spec", {})]
    assert holders == ["slotune"]


def test_scale_subresource(subject: Subject) -> None:
    scale = subject.apps.read_namespaced_deployment_scale("web", subject.namespace)
    assert (scale.kind, scale.api_version, scale.spec.replicas, scale.status.selector) == (
        "Scale",
        "autoscaling/v1",
        2,
        "app=web",
    )
    assert subject.apps.patch_namespaced_deployment_scale("web", subject.namespace, spec(replicas=3)).spec.replicas == 3


def test_lease(subject: Subject) -> None:
    leases = client.CoordinationV1Api(subject.api_client)
    leases.create_namespaced_lease(
        subject.namespace, {"metadata": {"name": "slotune"}, "spec": {"holderIdentity": "a"}}
    )
    assert leases.read_namespaced_lease("slotune", subject.namespace).spec.holder_identity == "a"


class TestHpaController:
    """What the HPA controller does; the stand-in's sync is set to 0.05 s, a real one's is 15 s."""

    def settled(self, subject: Subject, wanted: int) -> None:
        until = time.monotonic() + (5 if subject.stand_in else 60)
        while (got := subject.apps.read_namespaced_deployment("web", subject.namespace).spec.replicas) != wanted:
            assert time.monotonic() < until, f"{got} replicas, not {wanted}"
            time.sleep(0.02)

    def quick(self, subject: Subject, metric: Callable[[int], int | None] | None = None) -> None:
        if subject.stand_in:
            from demo.kubernetes_api.hpa import HpaState

            subject.stand_in._hpas[("facts", "web")] = HpaState(0.05, metric)

    def test_the_floor_rises_in_one_step_without_metrics_or_policies(self, subject: Subject) -> None:
        self.quick(subject)
        subject.patch(spec(behavior={"scaleUp": {"selectPolicy": "Disabled"}}))
        subject.patch(spec(minReplicas=10))
        self.settled(subject, 10)

    def test_a_lowered_floor_keeps_the_replicas_while_metrics_are_missing(self, subject: Subject) -> None:
        self.quick(subject)
        subject.patch(spec(minReplicas=4))
        self.settled(subject, 4)
        subject.patch(spec(minReplicas=2))
        time.sleep(0.4 if subject.stand_in else 45)
        self.settled(subject, 4)

    @stand_in_only
    def test_a_lowered_floor_is_not_cushioned(self, subject: Subject) -> None:
        self.quick(subject, lambda _: 2)
        subject.patch(spec(minReplicas=10))
        self.settled(subject, 10)
        started = time.monotonic()
        subject.patch(spec(minReplicas=2))
        self.settled(subject, 2)
        assert time.monotonic() - started < 2  # although the downscale window is 300 s

    @pytest.mark.parametrize(("by_hand", "becomes"), [(12, 10), (1, 2)])
    def test_replicas_set_by_hand_come_back_into_the_bounds(self, subject: Subject, by_hand: int, becomes: int) -> None:
        self.quick(subject)
        subject.apps.patch_namespaced_deployment_scale("web", subject.namespace, spec(replicas=by_hand))
        self.settled(subject, becomes)

    def test_zero_replicas_switch_the_hpa_off(self, subject: Subject) -> None:
        self.quick(subject)
        subject.apps.patch_namespaced_deployment_scale("web", subject.namespace, spec(replicas=0))
        time.sleep(0.4 if subject.stand_in else 20)
        self.settled(subject, 0)
        active = next(c for c in subject.read().status.conditions if c.type == "ScalingActive")
        assert (active.status, active.reason) == ("False", "ScalingDisabled")

    def test_the_floor_shows_in_the_conditions(self, subject: Subject) -> None:
        self.quick(subject)
        subject.patch(spec(minReplicas=4))
        self.settled(subject, 4)
        writer = next(
            m
            for m in subject.apps.read_namespaced_deployment("web", subject.namespace).metadata.managed_fields
            if m.subresource == "scale"
        )
        assert writer.manager == "kube-controller-manager"

    def test_a_missing_target_is_named(self, subject: Subject) -> None:
        body = hpa_body("lost", target="missing")
        made = subject.hpas.create_namespaced_horizontal_pod_autoscaler(subject.namespace, body)
        assert made.status.desired_replicas == 0
        until = time.monotonic() + (5 if subject.stand_in else 60)
        while not (
            conditions := subject.hpas.read_namespaced_horizontal_pod_autoscaler_status(
                "lost", subject.namespace
            ).status.conditions
        ):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert (conditions[0].type, conditions[0].status, conditions[0].reason) == (
            "AbleToScale",
            "False",
            "FailedGetScale",
        )
        assert 'deployments.apps "missing" not found' in conditions[0].message

    @stand_in_only
    def test_scaling_up_by_metric_doubles(self, subject: Subject) -> None:
        from demo.kubernetes_api.hpa import HpaState, decide

        state = HpaState(15, lambda _: 20)
        bounds = {"minReplicas": 1, "maxReplicas": 20}
        replicas, seen = 4, []
        for at_s in (0.0, 15.0, 30.0):
            wanted, _, _ = decide(bounds, state, replicas, at_s)
            state.moves.append((at_s, wanted - replicas))
            replicas = wanted
            seen.append(replicas)
        assert seen == [8, 16, 20]

    @stand_in_only
    def test_policies_cushion_the_way_down(self, subject: Subject) -> None:
        from demo.kubernetes_api.hpa import HpaState, decide

        state = HpaState(15, lambda _: 2)
        rules = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}}
        bounds = {"minReplicas": 2, "maxReplicas": 10, "behavior": rules}
        replicas, seen = 10, []
        for tick in range(8):
            wanted, _, _ = decide(bounds, state, replicas, tick * 15.0)
            state.moves.append((tick * 15.0, wanted - replicas))
            replicas = wanted
            seen.append(replicas)
        assert seen == [9, 8, 7, 6, 5, 4, 3, 2]

    @stand_in_only
    def test_a_metric_that_drops_waits_for_the_stabilisation_window(self, subject: Subject) -> None:
        from demo.kubernetes_api.hpa import HpaState, decide

        wants = {"now": 4}
        state = HpaState(15, lambda _: wants["now"])
        bounds = {"minReplicas": 1, "maxReplicas": 20}
        assert decide(bounds, state, 4, 0.0)[0] == 4
        wants["now"] = 2
        seen = [decide(bounds, state, 4, at_s)[0] for at_s in (15.0, 150.0, 290.0, 305.0)]
        assert seen == [4, 4, 4, 2]

    @stand_in_only
    @pytest.mark.parametrize(
        ("wanted", "bounds", "reason"),
        [(2, (4, 20), "TooFewReplicas"), (30, (4, 8), "TooManyReplicas"), (6, (4, 8), "DesiredWithinRange")],
    )
    def test_the_bound_that_rules_is_named(
        self, subject: Subject, wanted: int, bounds: tuple[int, int], reason: str
    ) -> None:
        from demo.kubernetes_api.hpa import HpaState, decide

        low, high = bounds
        spec_ = {"minReplicas": low, "maxReplicas": high, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
        _, conditions, _ = decide(spec_, HpaState(15, lambda _: wanted), low, 0.0)
        limited = next(c for c in conditions if c["type"] == "ScalingLimited")
        assert (limited["reason"], limited["status"]) == (reason, str(reason != "DesiredWithinRange"))

    @stand_in_only
    def test_replicas_within_the_bounds_stay_while_metrics_are_missing(self, subject: Subject) -> None:
        from demo.kubernetes_api.hpa import HpaState, decide

        wanted, conditions, _ = decide({"minReplicas": 4, "maxReplicas": 10}, HpaState(15), 7, 0.0)
        assert wanted == 7
        assert {(c["type"], c["status"], c["reason"]) for c in conditions} >= {
            ("ScalingActive", "False", "FailedGetPodsMetric")
        }

    def test_a_rescale_leaves_an_event(self, subject: Subject) -> None:
        self.quick(subject)
        subject.patch(spec(minReplicas=4))
        self.settled(subject, 4)
        events = client.CoreV1Api(subject.api_client).list_namespaced_event(subject.namespace).items
        said = [e.message for e in events if e.reason == "SuccessfulRescale"]
        assert "New size: 4; reason: Current number of replicas below Spec.MinReplicas" in said

    def test_an_unknown_target_kind_is_named(self, subject: Subject) -> None:
        body = hpa_body("odd")
        body["spec"]["scaleTargetRef"]["kind"] = "Nope"
        subject.hpas.create_namespaced_horizontal_pod_autoscaler(subject.namespace, body)
        until = time.monotonic() + (5 if subject.stand_in else 60)
        while not (
            said := subject.hpas.read_namespaced_horizontal_pod_autoscaler("odd", subject.namespace).status.conditions
        ):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert 'no matches for kind "Nope" in group "apps"' in said[0].message
