"""What a Kubernetes API server answers, row by row: run over the demo's stand-in, or over a real server when
SLOTUNE_TEST_KUBECONFIG names a kubeconfig (`make test-kubernetes KUBECONFIG=...`)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from demo.kubernetes_api.resources import HPA
from tests.contracts.kubernetes_subject import (
    APPLY,
    MERGE,
    Rules,
    Subject,
    expected,
    hpa_body,
    pods_metric,
    refused,
    stand_in_only,
)
from tuning.quantization.build_target import BuildTarget, pod_spec

pytestmark = pytest.mark.server


def spec(**values: Any) -> dict[str, Any]:
    return {"spec": values}


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
    manifest = {"scaleTargetRef": ref, "minReplicas": 2, "maxReplicas": 10}
    code, answer = refused(lambda: subject.apply(manifest, "gitops"))
    message = 'Apply failed with 1 conflict: conflict with "scaler" using autoscaling/v2: .spec.minReplicas'
    cause = {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "scaler" using autoscaling/v2',
        "field": ".spec.minReplicas",
    }
    assert (code, answer) == (409, expected(409, "Conflict", message, {"causes": [cause]}))
    forced = subject.apply(manifest, "gitops", force=True)
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


def test_422_admission_policy_says_forbidden(subject: Subject) -> None:
    name = f"cap-{uuid.uuid4().hex[:8]}"
    if subject.stand_in is not None:
        rule = "minReplicas capped at 5 by policy"
        subject.stand_in.add_policy(name, HPA, lambda o: rule if o["spec"]["minReplicas"] > 5 else None)
        code, answer = refused(lambda: subject.patch(spec(minReplicas=6)))
    else:
        code, answer = _denied_by_a_real_policy(subject, name)
    message = (
        f"horizontalpodautoscalers.autoscaling \"web\" is forbidden: ValidatingAdmissionPolicy '{name}' with binding "
        f"'{name}' denied request: minReplicas capped at 5 by policy"
    )
    assert (code, answer["reason"], answer["message"]) == (422, "Invalid", message)


def _denied_by_a_real_policy(subject: Subject, name: str) -> tuple[int, dict[str, Any]]:
    """The refusal of a policy that holds in this namespace alone; it takes a moment until the server has read it."""
    admission = client.AdmissionregistrationV1Api(subject.api_client)
    rule = {"apiGroups": ["autoscaling"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": [HPA.plural]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": subject.namespace}}
    validation = {"expression": "object.spec.minReplicas <= 5", "message": "minReplicas capped at 5 by policy"}
    policy = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
              "validations": [validation]}  # fmt: skip
    try:
        admission.create_validating_admission_policy({"metadata": {"name": name}, "spec": policy})
        binding = {"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}
        admission.create_validating_admission_policy_binding(binding)

        def denied() -> tuple[int, dict[str, Any]] | None:
            try:
                subject.patch(spec(minReplicas=6), dry_run="All")
            except ApiException:
                return refused(lambda: subject.patch(spec(minReplicas=6)))
            return None

        found: tuple[int, dict[str, Any]] = subject.until(denied, real_s=30.0)
        return found
    finally:
        admission.delete_validating_admission_policy_binding(name)
        admission.delete_validating_admission_policy(name)


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
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
            response_types_map={},
        )
    )
    assert (code, answer["message"], answer["details"]) == (
        404,
        "the server could not find the requested resource",
        {},
    )


def rules(*verbs: str, names: list[str] | None = None) -> Rules:
    rule = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": list(verbs)}
    return [{**rule, "resourceNames": names} if names else rule]


def test_403_names_user_verb_and_resource_and_comes_before_404_and_422(subject: Subject) -> None:
    viewer = subject.as_user("viewer", rules("get"))
    message = (
        'horizontalpodautoscalers.autoscaling "web" is forbidden: User "viewer" cannot patch resource '
        f'"horizontalpodautoscalers" in API group "autoscaling" in the namespace "{subject.namespace}"'
    )
    body = expected(403, "Forbidden", message, {"name": "web", **GROUP})
    assert refused(lambda: viewer.patch(spec(minReplicas=3))) == (403, body)
    assert refused(lambda: viewer.patch(spec(minReplicas=3), dry_run="All"))[0] == 403
    assert refused(lambda: viewer.patch(spec(minReplicas=99)))[0] == 403  # before 422
    assert refused(lambda: viewer.patch(spec(minReplicas=3), name="nope"))[0] == 403  # before 404
    assert viewer.read().spec.min_replicas == 2


def test_403_of_a_service_account_on_scale_and_at_the_cluster_scope(subject: Subject) -> None:
    user = f"system:serviceaccount:{subject.namespace}:scaler"
    scaler = subject.as_user(user)
    _, body = refused(lambda: scaler.scale(3))
    assert body["message"] == (
        f'deployments.apps "web" is forbidden: User "{user}" cannot patch resource "deployments/scale" in API group '
        f'"apps" in the namespace "{subject.namespace}"'
    )
    _, body = refused(lambda: scaler.hpas.list_horizontal_pod_autoscaler_for_all_namespaces())
    assert body["message"] == (
        f'horizontalpodautoscalers.autoscaling is forbidden: User "{user}" cannot list resource '
        '"horizontalpodautoscalers" in API group "autoscaling" at the cluster scope'
    )


def test_401_bad_token(subject: Subject) -> None:
    code, body = refused(subject.with_token("nobody-knows-this-token").read)
    assert (code, body) == (401, expected(401, "Unauthorized", "Unauthorized", None))


def test_403_without_any_token_names_the_anonymous_user(subject: Subject) -> None:
    code, body = refused(subject.with_token(None).read)
    if subject.stand_in is None and code == 401:
        pytest.skip("this server refuses anonymous requests (--anonymous-auth=false)")
    assert code == 403
    assert 'User "system:anonymous" cannot get resource' in body["message"]


def test_403_terminating_namespace(subject: Subject) -> None:
    with _terminating(subject):
        code, body = refused(lambda: subject.create(hpa_body("another")))
    assert code == 403
    assert (
        f"unable to create new content in namespace {subject.namespace} because it is being terminated"
        in body["message"]
    )
    assert body["details"]["causes"][0]["reason"] == "NamespaceTerminating"


@contextmanager
def _terminating(subject: Subject) -> Iterator[None]:
    """The namespace is on its way out, held back by an object with a finaliser of its own."""
    if subject.stand_in is not None:
        subject.stand_in.store.terminating.add(subject.namespace)
        yield
        return
    held = {"metadata": {"name": "held", "finalizers": ["slotune.example/held"]}}
    subject.core.create_namespaced_config_map(subject.namespace, held)
    subject.core.delete_namespace(subject.namespace)
    try:
        yield
    finally:
        freed = [{"op": "remove", "path": "/metadata/finalizers"}]
        subject.core.patch_namespaced_config_map("held", subject.namespace, freed)


def test_least_rights_are_get_and_patch_of_the_named_object(subject: Subject) -> None:
    scaler = subject.as_user("scaler", rules("get", "patch", names=["web"]))
    assert scaler.patch(spec(minReplicas=3)).spec.min_replicas == 3
    hpa = scaler.read()
    code, body = refused(lambda: scaler.hpas.replace_namespaced_horizontal_pod_autoscaler("web", scaler.namespace, hpa))
    assert (code, "cannot update resource" in body["message"]) == (403, True)


def test_an_access_review_tells_the_missing_right_beforehand(subject: Subject) -> None:
    scaler = subject.as_user("scaler", rules("get", "patch", names=["web"]))

    def allowed(verb: str) -> bool:
        attributes = client.V1ResourceAttributes(
            namespace=subject.namespace, verb=verb, group="autoscaling", resource="horizontalpodautoscalers", name="web"
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        answer = client.AuthorizationV1Api(scaler.api_client).create_self_subject_access_review(review)
        return bool(answer.status.allowed)

    assert [allowed(v) for v in ("get", "patch", "update", "delete")] == [True, True, False, False]


@stand_in_only("needs an etcd that stops and thaws")
def test_504_of_a_patch_and_its_late_landing(subject: Subject) -> None:
    subject.server.fail_next(methods=("PATCH",), code=504, apply_after_s=0.1)
    code, body = refused(lambda: subject.patch(spec(minReplicas=5)))
    message = "Timeout: request did not complete within requested timeout - context deadline exceeded"
    assert (code, body) == (504, expected(504, "Timeout", message, {}))
    subject.until(lambda: subject.read().spec.min_replicas == 5)


@stand_in_only("needs an etcd that stops")
def test_504_of_a_get_has_no_kind(subject: Subject) -> None:
    subject.server.fail_next(methods=("GET",), code=504)
    code, body = refused(subject.with_token("t-admin").read)
    message = "Timeout: request did not complete within the allotted timeout"
    whole = expected(504, "Timeout", message, {})
    assert (code, body) == (504, {key: whole[key] for key in whole if key not in ("kind", "apiVersion")})


@stand_in_only("needs a server that answers late")
def test_a_patch_whose_client_gave_up_lands(subject: Subject) -> None:
    subject.server.fail_next(methods=("PATCH",), delay_s=0.4)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        subject.patch(spec(minReplicas=5), _request_timeout=0.1)
    assert subject.read().spec.min_replicas == 2
    subject.until(lambda: subject.read().spec.min_replicas == 5)


def test_no_connection_is_no_api_exception(subject: Subject) -> None:
    away = subject.with_token("t-admin")
    away.api_client.configuration.host = "http://127.0.0.1:9"
    with pytest.raises(urllib3.exceptions.MaxRetryError) as error:
        away.read()
    assert not isinstance(error.value, ApiException)


@stand_in_only("needs a server that answers late")
def test_a_read_timeout_is_no_api_exception(subject: Subject) -> None:
    assert not issubclass(urllib3.exceptions.ReadTimeoutError, ApiException)
    subject.server.fail_next(delay_s=0.5)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        subject.patch(spec(minReplicas=3), _request_timeout=0.1)


def test_410_watch_from_a_compacted_version(subject: Subject) -> None:
    if subject.stand_in is not None:
        subject.stand_in.store.compact()
    stream = watch.Watch().stream(
        subject.hpas.list_namespaced_horizontal_pod_autoscaler, subject.namespace, resource_version="1", timeout_seconds=1
    )
    try:
        list(stream)
    except ApiException as refusal:
        error = refusal
    else:
        assert subject.stand_in is None
        pytest.skip("nothing has been compacted on this server yet: every old version can still be watched")
    assert (error.status, error.body) == (410, None)
    assert error.reason.startswith("Expired: too old resource version: 1 (")


class Recording:
    """The sockets of a client, with the content types that went over them."""

    def __init__(self, sockets: Any) -> None:
        self._sockets = sockets
        self.sent: list[str] = []

    def request(self, method: str, url: str, **kwargs: Any) -> Any:
        self.sent.append(kwargs["headers"]["Content-Type"])
        return self._sockets.request(method, url, **kwargs)


@pytest.mark.parametrize(
    ("body", "given", "sent"),
    [
        ({"spec": {"minReplicas": 3}}, None, "application/strategic-merge-patch+json"),
        ([{"op": "replace", "path": "/spec/minReplicas", "value": 3}], None, "application/json-patch+json"),
        ({"spec": {"minReplicas": 3}}, MERGE, MERGE),
    ],
    ids=["a mapping", "a list", "asked for"],
)
def test_the_kind_of_a_patch_follows_its_body(subject: Subject, body: object, given: str | None, sent: str) -> None:
    recording = Recording(subject.api_client.rest_client.pool_manager)
    subject.api_client.rest_client.pool_manager = recording
    assert subject.patch(body, **({"_content_type": given} if given else {})).spec.min_replicas == 3
    assert recording.sent == [sent]


def test_a_patch_without_resource_version_never_conflicts(subject: Subject) -> None:
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda n: subject.patch(spec(minReplicas=1 + n % 9)).spec.min_replicas, range(160)))
    assert len(done) == 160


def test_a_patch_that_changes_nothing_keeps_the_resource_version(subject: Subject) -> None:
    time.sleep(0.3 if subject.stand_in else 20)  # the controller's first status, where there is one
    before = subject.patch(spec(minReplicas=2)).metadata.resource_version
    assert subject.patch(spec(minReplicas=2)).metadata.resource_version == before


def test_normalises_quantities_and_fills_in_metrics(subject: Subject) -> None:
    assert subject.read().spec.metrics[0].resource.target.average_utilization == 80
    body = hpa_body("pods")
    body["spec"]["metrics"] = pods_metric()
    made = subject.create(body)
    assert made.spec.metrics[0].pods.target.average_value == "1k"


def test_an_hpa_has_no_generation_to_observe(subject: Subject) -> None:
    patched = subject.patch(spec(minReplicas=3))
    assert (patched.metadata.generation, patched.status.observed_generation) == (None, None)


def test_a_fresh_hpa_has_a_status_without_conditions(subject: Subject) -> None:
    made = subject.create(hpa_body("fresh"))
    assert (made.status.desired_replicas, made.status.conditions) == (0, None)


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


def test_422_an_hpa_without_maxreplicas(subject: Subject) -> None:
    body = hpa_body("bare")
    del body["spec"]["maxReplicas"]
    code, answer = refused(lambda: subject.create(body))
    assert (code, "spec.maxReplicas" in answer["message"]) == (422, True)
    applied = {**body, "metadata": {"name": "bare"}}
    code, answer = refused(
        lambda: subject.patch(applied, name="bare", _content_type=APPLY, field_manager="gitops", force=True)
    )
    assert (code, "spec.maxReplicas" in answer["message"]) == (422, True)


def test_a_minimum_of_somebody_elses_survives_a_manifest_without_it(subject: Subject) -> None:
    manifest = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 10}
    subject.apply(manifest, "gitops", force=True)
    subject.patch(spec(minReplicas=4), field_manager="slotune")
    assert subject.apply(manifest, "gitops", force=True).spec.min_replicas == 4


def bare_pod(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "server", "image": "slotune-demo:1"}]}}


def test_403_of_pod_security_is_not_about_rights(subject: Subject) -> None:
    subject.needs_service_account()
    subject.set_pod_security("restricted")
    code, answer = refused(lambda: subject.core.create_namespaced_pod(subject.namespace, bare_pod("p")))
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert answer["message"].startswith('pods "p" is forbidden: violates PodSecurity "restricted:latest": ')
    for part in ("allowPrivilegeEscalation != false", "unrestricted capabilities", "runAsNonRoot != true", "seccompProfile"):
        assert part in answer["message"]


def test_a_build_pod_keeps_the_restricted_level(subject: Subject) -> None:
    subject.needs_service_account()
    subject.set_pod_security("restricted")
    target = BuildTarget(kind="pod", connection="c", namespace=subject.namespace, image="slotune:1", volume_claim="m")
    body = pod_spec(target, name="slotune-int8-x", command=["true"])
    assert subject.core.create_namespaced_pod(subject.namespace, body, dry_run="All").metadata.name == "slotune-int8-x"


def test_403_of_a_quota_is_not_about_rights(subject: Subject) -> None:
    subject.needs_controllers()
    subject.needs_service_account()
    subject.set_pods_quota("few", 0)
    code, answer = refused(lambda: subject.core.create_namespaced_pod(subject.namespace, bare_pod("p")))
    assert code == 403
    assert 'pods "p" is forbidden: exceeded quota: few, requested: pods=1, used: pods=' in answer["message"]


def test_pods_that_cannot_be_created_show_in_the_deployments_conditions(subject: Subject) -> None:
    subject.needs_controllers()
    subject.set_pods_quota("few", 2)
    subject.scale(3)

    def failure() -> Any:
        found = subject.apps.read_namespaced_deployment("web", subject.namespace).status.conditions or []
        return next((c for c in found if c.type == "ReplicaFailure"), None)

    seen = subject.until(failure)
    assert (seen.status, seen.reason) == ("True", "FailedCreate")
    assert "exceeded quota: few" in seen.message


def test_a_paused_deployment_says_so(subject: Subject) -> None:
    subject.needs_controllers()
    subject.apps.patch_namespaced_deployment("web", subject.namespace, spec(paused=True))

    def progressing() -> Any:
        found = subject.apps.read_namespaced_deployment("web", subject.namespace).status.conditions or []
        return next((c for c in found if c.type == "Progressing" and c.reason == "DeploymentPaused"), None)

    assert subject.until(progressing).status == "Unknown"


def test_pods_name_their_maker_by_uid(subject: Subject) -> None:
    """Which pods are a Deployment's: by way of its ReplicaSet, and the Scale has the Deployment's own uid."""
    subject.needs_controllers()
    uid = subject.apps.read_namespaced_deployment("web", subject.namespace).metadata.uid
    assert subject.apps.read_namespaced_deployment_scale("web", subject.namespace).metadata.uid == uid

    def pods() -> Any:
        return subject.core.list_namespaced_pod(subject.namespace, label_selector="app=web").items

    subject.until(lambda: len(pods()) == 2)
    sets = subject.apps.list_namespaced_replica_set(subject.namespace, label_selector="app=web").items
    made = {s.metadata.uid for s in sets if any(r.controller and r.uid == uid for r in s.metadata.owner_references)}
    assert all(r.controller and r.uid in made for p in pods() for r in p.metadata.owner_references)


@stand_in_only("needs a server that is just starting")
def test_a_starting_server_forbids_what_a_role_allows(subject: Subject) -> None:
    scaler = subject.as_user("scaler", rules("get", "patch", names=["web"]))
    subject.server.starting(2)
    codes = [refused(scaler.read)[0] for _ in range(2)]
    assert (codes, scaler.read().spec.min_replicas) == ([403, 403], 2)
