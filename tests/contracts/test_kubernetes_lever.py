"""The production replica lever against the API server of this run: the stand-in, or a real one (see kubernetes_subject)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from detection.model import Service
from tests.contracts.kubernetes_subject import KUBECONFIG, MERGE, Rules, Subject
from tests.fakes.actuators import FakeConnections, service
from tests.fakes.kubernetes import bounds
from tuning.actuators.kubernetes import KubernetesReplicas
from tuning.errors import ControlRefused, NoCapacity, NotOwner
from tuning.model import Change
from tuning.ports import Connection

pytestmark = pytest.mark.server


class Ahead:
    """On the stand-in a clock that runs ahead by what was slept; on a real server, whose controllers take their time,
    the time of day."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def clock(self) -> float:
        return time.time() + self.ahead_s

    def sleep(self, seconds: float) -> None:
        if KUBECONFIG:
            time.sleep(seconds)
        else:
            self.ahead_s += seconds
            time.sleep(min(seconds, 0.05))


def lever(subject: Subject, token: str | None = None) -> KubernetesReplicas:
    configuration, ahead = subject.api_client.configuration, Ahead()
    if token is None and KUBECONFIG:
        connection = Connection(name="cluster", url="", extra={"kube_config_path": KUBECONFIG})
    else:
        extra = {"ca_file": configuration.ssl_ca_cert} if configuration.ssl_ca_cert else {}
        connection = Connection(name="cluster", url=configuration.host, password=token or "t-admin", extra=extra)
    return KubernetesReplicas(FakeConnections({"cluster": connection}), ahead.clock, ahead.sleep)


def web(subject: Subject, **options: object) -> Service:
    given = {"connection": "cluster", "namespace": subject.namespace, "target": "web", **options}
    return service("replicas", "kubernetes", maximum=20, **given)


def role(*, patch: bool = True) -> Rules:
    """deploy/kubernetes/base's Role for HPA "web"."""
    named: dict[str, Any] = {"resourceNames": ["web"]}
    verbs = ["get", "patch"] if patch else ["get"]
    return [
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": verbs, **named},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"], **named},
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"], **named},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]


def test_bounds_are_raised_once_read_back_and_restored(subject: Subject) -> None:
    subject.needs_ready_pods()
    up, actuator = bounds((2, 10), (3, 12)), lever(subject)
    assert actuator.read(web(subject)).values["min_replicas"] == 2
    receipt = actuator.apply(web(subject), up, key="k")
    assert (receipt.applied, receipt.changed, receipt.after) == (True, True, up.new)
    assert actuator.apply(web(subject), up, key="k").changed is False
    hpa = subject.read()
    assert (hpa.spec.min_replicas, hpa.spec.max_replicas) == (3, 12)
    holders = [m.manager for m in hpa.metadata.managed_fields if "f:minReplicas" in m.fields_v1.get("f:spec", {})]
    assert holders == ["slotune"]
    assert lever(subject).apply(web(subject), up.inverse(), key="back").changed
    assert subject.read().spec.min_replicas == 2


def test_somebody_elses_change_of_the_field_makes_it_stand_down(subject: Subject) -> None:
    subject.patch({"spec": {"minReplicas": 5}}, field_manager="kubectl-edit")
    with pytest.raises(NotOwner, match="somebody else changed it"):
        lever(subject).apply(web(subject), bounds((2, 10), (3, 10)), key="k")
    assert subject.read().spec.min_replicas == 5


def test_an_apply_manager_of_the_field_makes_it_stand_down(subject: Subject) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    subject.apply({"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 10}, "flux", force=True)
    with pytest.raises(NotOwner, match="flux"):
        lever(subject).apply(web(subject), bounds((2, 10), (3, 10)), key="k")


def test_who_applies_maxreplicas_alone_leaves_minreplicas_free(subject: Subject) -> None:
    subject.needs_ready_pods()
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    subject.apply({"scaleTargetRef": target, "maxReplicas": 10}, "flux", force=True)
    assert lever(subject).apply(web(subject), bounds((2, 10), (3, 10)), key="k").changed
    with pytest.raises(NotOwner, match=r"flux applies spec\.maxReplicas"):
        lever(subject).apply(web(subject), bounds((3, 10), (3, 9)), key="k2")


def test_an_hpa_that_a_controller_made_is_left_alone(subject: Subject) -> None:
    uid = subject.apps.read_namespaced_deployment("web", subject.namespace).metadata.uid
    above = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid, "controller": True}
    subject.patch({"metadata": {"ownerReferences": [above]}}, _content_type=MERGE)
    with pytest.raises(NotOwner, match="HPA web belongs to Deployment web"):
        lever(subject).apply(web(subject), bounds((2, 10), (3, 10)), key="k")
    assert subject.read().spec.min_replicas == 2


def test_a_persons_kubectl_scale_stands(subject: Subject) -> None:
    subject.needs_ready_pods()
    subject.hpas.delete_namespaced_horizontal_pod_autoscaler("web", subject.namespace)
    change = Change(lever="replicas", old={"replicas": 2}, new={"replicas": 3})
    lever(subject).apply(web(subject), change, key="k")
    subject.apps.patch_namespaced_deployment_scale(
        "web", subject.namespace, {"spec": {"replicas": 2}}, field_manager="kubectl"
    )
    with pytest.raises(NotOwner, match=r"kubectl scaled web \(replicas 2 now\)"):
        lever(subject).apply(web(subject), change, key="k2")
    assert subject.replicas() == 2


def test_pods_that_a_quota_forbids_are_undone_in_the_controllers_words(subject: Subject) -> None:
    subject.needs_controllers()
    subject.needs_ready_pods()
    subject.set_pods_quota("few", 2)
    subject.hpas.delete_namespaced_horizontal_pod_autoscaler("web", subject.namespace)
    change = Change(lever="replicas", old={"replicas": 2}, new={"replicas": 3})
    with pytest.raises(NoCapacity, match=r"3 wanted, 2 exist: 2 ready.*FailedCreate.*exceeded quota: few"):
        lever(subject).apply(web(subject, unschedulable_after_s=15), change, key="k")
    assert subject.replicas() == 2


def test_a_workload_at_zero_is_not_switched_on(subject: Subject) -> None:
    subject.scale(0)
    with pytest.raises(NotOwner, match="stands at 0 replicas"):
        lever(subject).apply(web(subject), bounds((2, 10), (3, 10)), key="k")
    assert subject.read().spec.min_replicas == 2


def test_nobody_owns_the_replicas(subject: Subject) -> None:
    subject.needs_ready_pods()
    subject.hpas.delete_namespaced_horizontal_pod_autoscaler("web", subject.namespace)
    change = Change(lever="replicas", old={"replicas": 2}, new={"replicas": 3})
    assert lever(subject).apply(web(subject), change, key="k").changed
    assert subject.replicas() == 3


def test_the_documented_role_of_a_service_account_is_enough(subject: Subject) -> None:
    subject.needs_ready_pods()
    token = subject.service_account_token("slotune", role())
    actuator, ranker = lever(subject, token), web(subject, hpa="web")
    rights = actuator.rights(ranker)
    assert rights and all(actuator.may(ranker, verb, ref) for verb, ref in rights)
    assert actuator.apply(ranker, bounds((2, 10), (3, 10)), key="k").changed


def test_a_missing_right_is_named_and_nothing_is_changed(subject: Subject) -> None:
    token = subject.service_account_token("slotune", role(patch=False))
    actuator, ranker = lever(subject, token), web(subject, hpa="web")
    assert [actuator.may(ranker, verb, ref) for verb, ref in actuator.rights(ranker) if verb == "patch"] == [False]
    with pytest.raises(ControlRefused, match="may not patch horizontalpodautoscalers"):
        actuator.apply(ranker, bounds((2, 10), (3, 10)), key="k")
    assert subject.read().spec.min_replicas == 2


def test_an_object_that_is_missing_is_named(subject: Subject) -> None:
    with pytest.raises(ControlRefused, match=f"{subject.namespace}/nope"):
        lever(subject).read(web(subject, target="nope"))
