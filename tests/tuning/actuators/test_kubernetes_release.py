"""A Deployment back to an earlier template: what is refused, what its owner is told, and rollouts that fail."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from demo.kubernetes_api.resources import DEPLOYMENT, REPLICA_SET
from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.actuators import service
from tests.fakes.kubernetes import World, eventually
from tuning.actuators._kubernetes_templates import differences
from tuning.actuators.kubernetes_release import KubernetesRelease
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotApplied, NotOwner
from tuning.model import Change

pytestmark = pytest.mark.server


class Released:
    """A Deployment that ran x:1 and runs x:2 since somebody released that."""

    def __init__(self, api: KubernetesApi) -> None:
        self.world = World(api)
        api.add_namespace("facts")
        api.add_deployment("facts", "web", 2, spec={"containers": [{"name": "server", "image": "x:1"}]})
        self.world.steady()
        self.old = self.version("x:1")
        self.new = self.release("x:2")
        self.world.steady()
        self.lever = KubernetesRelease(self.world.connect(), self.world.clock, self.world.sleep)
        self.service = service("release", "kubernetes_release", connection="cluster", namespace="facts", target="web", rollout_timeout_s=20.0)
        self.back = Change(lever="release", old={"version": self.new}, new={"version": self.old})

    def version(self, image: str) -> str:
        for one in self.world.api.store.list(REPLICA_SET, "facts"):
            if one["spec"]["template"]["spec"]["containers"][0]["image"] == image:
                return str(one["metadata"]["labels"]["pod-template-hash"])
        return ""

    def edit(self, change, by: str = "ci") -> None:
        self.world.api.store.update(DEPLOYMENT, "facts", "web", change, by)

    def release(self, image: str) -> str:
        def change(obj):
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
            return obj

        self.edit(change)
        eventually(lambda: bool(self.version(image)))
        return self.version(image)

    def image(self) -> str:
        return str(self.world.deployment()["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.fixture
def web() -> Iterator[Released]:
    with KubernetesApi(tick_s=0.01) as api:
        yield Released(api)


def test_the_setting_names_template_image_and_when_it_came(web):
    time.sleep(1.1)  # Kubernetes tells whole seconds
    newest = web.release("x:3")
    setting = web.lever.read(web.service)
    assert setting.values == {"version": newest} and setting.facts["image"] == "x:3" and not setting.useless
    assert abs(float(setting.facts["since_s"]) - web.world.clock()) < 60


def test_back_and_forth_keeps_the_versions(web):
    receipt = web.lever.apply(web.service, web.back, key="p:release")
    assert web.image() == "x:1" and web.version("x:1") == web.old and receipt.reason.startswith("x:1: ")
    assert receipt.evidence["differences"] == ["spec.template.spec.containers[server].image: x:2 -> x:1"]
    assert "since_s" not in web.lever.read(web.service).facts, "the older ReplicaSet does not say when it came back"
    web.lever.apply(web.service, web.back.inverse(), key="u:release")
    assert web.image() == "x:2" and web.lever.read(web.service).values == {"version": web.new}


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ({"labels": {"argocd.argoproj.io/instance": "shop"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}, "Flux"),
        ({"ownerReferences": [{"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "web", "uid": "u", "controller": True}]}, "InferenceService web"),
        ({"annotations": {"rollout.argoproj.io/workload-generation": "1"}}, "Argo Rollout"),
    ],
    ids=["argo cd", "flux", "a controller above", "argo rollouts"],
)
def test_where_somebody_keeps_the_template_the_commit_is_named_and_nothing_changed(web, mark, words):
    def change(obj):
        for key, value in mark.items():
            obj["metadata"][key] = {**obj["metadata"].get(key, {}), **value} if isinstance(value, dict) else value
        return obj

    web.edit(change)
    useless = web.lever.read(web.service).useless
    assert words in useless and "spec.template.spec.containers[server].image: x:2 -> x:1" in useless
    with pytest.raises(NotOwner, match="slotune stands down"):
        web.lever.apply(web.service, web.back, key="p:release")
    assert web.image() == "x:2"


def test_a_template_that_is_gone_is_a_sentence_that_names_those_there_are(web):
    gone = web.back.model_copy(update={"new": {"version": "5f5f5f"}})
    with pytest.raises(ControlRefused, match=rf"no ReplicaSet of version 5f5f5f any more; it has {web.new} \(revision 2\)"):
        web.lever.apply(web.service, gone, key="p:release")
    assert web.image() == "x:2"


def test_a_paused_rollout_changes_nothing(web):
    def pause(obj):
        obj["spec"]["paused"] = True
        return obj

    web.edit(pause)
    with pytest.raises(ControlRefused, match="paused"):
        web.lever.apply(web.service, web.back, key="p:release")
    assert web.image() == "x:2"


def test_another_release_meanwhile_is_left_alone(web):
    web.release("x:3")
    with pytest.raises(NotOwner, match="somebody else released it"):
        web.lever.apply(web.service, web.back, key="p:release")
    assert web.image() == "x:3"


def test_a_rollout_that_does_not_finish_puts_the_newer_template_back(web):
    healthy = web.world.api.cluster.healthy
    web.world.api.cluster.healthy = lambda spec: spec["containers"][0]["image"] != "x:1" and healthy(spec)
    with pytest.raises(NotApplied, match=f"did not finish in time.*the template of version {web.new} is back"):
        web.lever.apply(web.service, web.back, key="p:release")
    assert web.image() == "x:2"


def test_a_change_without_a_version_is_a_mistake_of_ours(web):
    with pytest.raises(ConfigError, match="names no version"):
        web.lever.apply(web.service, web.back.model_copy(update={"new": {"version": ""}}), key="p:release")


def test_an_api_server_that_is_gone_is_unreachable(web):
    web.world.connections.known["cluster"] = "http://127.0.0.1:9"
    with pytest.raises(ControlUnreachable):
        KubernetesRelease(web.world.connections, web.world.clock, web.world.sleep).read(web.service)


def test_differences_are_few_and_bounded():
    old = {"spec": {"containers": [{"name": "a", "image": "x:2", "env": [{"name": "N", "value": "1"}]}]}}
    new = {"spec": {"containers": [{"name": "a", "image": "x:1", "env": [{"name": "N", "value": "1"}], "tty": True}]}}
    assert differences(old, new) == [
        "spec.template.spec.containers[a].image: x:2 -> x:1",
        "spec.template.spec.containers[a].tty: nothing -> true",
    ]
    many = differences({str(n): n for n in range(9)}, {})
    assert len(many) == 6 and many[-1] == "and 4 more"
