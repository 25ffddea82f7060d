"""Each Role grants what the code uses and nothing else: all of it works, and without any one verb a refusal names it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.kubernetes_api.resources import DEPLOYMENT, HPA, REPLICA_SET, STATEFUL_SET, Resource
from demo.kubernetes_api.server import KubernetesApi
from slotune.commands.live_check import _rights
from tests.fakes.actuators import service
from tests.fakes.kubernetes import World, bounds, eventually
from tuning.actuators.http_config import HttpConfig
from tuning.actuators.kubernetes_release import KubernetesRelease
from tuning.actuators.kubernetes_restart import KubernetesRestart
from tuning.actuators.pod_spec import PodSpec
from tuning.errors import ControlRefused
from tuning.model import Change
from tuning.ports import Connection

pytestmark = pytest.mark.server
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
NAMESPACE = "inference"
POD = {"containers": [{"name": "server", "image": "x:1", "env": [{"name": "BATCH", "value": "8"}]}]}


CUSTOM = "serving.example.com/v1/inferenceservers"


def rules_of(path: str) -> list[dict[str, Any]]:
    """The Role's rules; with "#KIND" behind the path for another workload than a Deployment, as its comment says."""
    folder, _, kind = path.partition("#")
    text = (FOLDER / folder / "role.yaml").read_text()
    if kind:
        group, plural = {"StatefulSet": ("apps", "statefulsets"), CUSTOM: ("serving.example.com", "inferenceservers")}[
            kind
        ]
        text = text.replace("deployments", plural).replace("apiGroups: [apps]", f"apiGroups: [{group}]")
    return list(yaml.safe_load(text)["rules"])


def with_hpa(world: World) -> None:
    ranker = world.service(namespace=NAMESPACE, target="ranker", hpa="ranker")
    world.lever("t").read(ranker)
    world.lever("t").apply(ranker, bounds((2, 10), (3, 10)), key="k")


def with_keda(world: World) -> None:
    ranker = world.service(namespace=NAMESPACE, target="ranker")
    world.lever("t").apply(ranker, bounds((2, 10), (3, 10)), key="k")
    paused = world.service(namespace=NAMESPACE, target="paused")
    world.api.rbac.rules[("slotune", NAMESPACE)].append(
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "resourceNames": ["paused"], "verbs": ["get"]}
    )
    world.lever("t").read(paused)


def with_nobody(world: World) -> None:
    ranker = world.service(namespace=NAMESPACE, target="ranker")
    world.lever("t").apply(ranker, Change(lever="replicas", old={"replicas": 2}, new={"replicas": 3}), key="k")


def with_kind(kind: str) -> Callable[[World], None]:
    def run(world: World) -> None:
        ranker = world.service(namespace=NAMESPACE, target="ranker", kind=kind)
        world.lever("t").apply(ranker, Change(lever="replicas", old={"replicas": 2}, new={"replicas": 3}), key="k")

    return run


def with_pods(world: World) -> None:
    """Finding the pods is all that is asked of the cluster: nobody listens at their addresses here."""
    lever = HttpConfig(world.connect("t"), world.clock, world.sleep)
    assert len(lever.replicas(pods_service(world))) == 2


def pods_service(world: World) -> Any:
    extra = {"port": 8000, "cluster": "cluster"}
    world.connect("t").known["pods"] = Connection(name="pods", url=f"pods://{NAMESPACE}/ranker", extra=extra)
    return service("batch_size", "http_config", connection="pods")


def with_pod_spec(world: World) -> None:
    lever = PodSpec(world.connect("t"), world.clock, world.sleep)
    change = Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16})
    lever.apply(pod_service(), change, key="k")


def pod_service() -> Any:
    return service("batch_size", "pod_spec", connection="cluster", namespace=NAMESPACE, target="ranker", env="BATCH")


def with_release(world: World) -> None:
    lever = KubernetesRelease(world.connect("t"), world.clock, world.sleep)
    here = lever.read(release_service()).values["version"]
    older = next(
        one["metadata"]["labels"]["pod-template-hash"]
        for one in world.api.store.list(REPLICA_SET, NAMESPACE)
        if one["metadata"]["labels"]["pod-template-hash"] != here
    )
    change = Change(lever="release", old={"version": here}, new={"version": older})
    lever.apply(release_service(), change, key="k")


def release_service() -> Any:
    return service("release", "kubernetes_release", connection="cluster", namespace=NAMESPACE, target="ranker")


def with_restart(world: World) -> None:
    lever = KubernetesRestart(world.connect("t"), world.clock, world.sleep)
    knob = next(iter(lever.read(restart_service()).values))
    lever.apply(restart_service(), Change(lever="restart", old={knob: "up"}, new={knob: "gone"}), key="k")


def restart_service() -> Any:
    return service("restart", "kubernetes_restart", connection="cluster", namespace=NAMESPACE, target="ranker")


CASES: dict[str, tuple[str, Callable[[World], None]]] = {
    "hpa": ("base", with_hpa),
    "keda": ("components/keda", with_keda),
    "nobody": ("components/no-owner", with_nobody),
    "stateful set": ("components/no-owner#StatefulSet", with_kind("StatefulSet")),
    "custom resource": (f"components/no-owner#{CUSTOM}", with_kind(CUSTOM)),
    "pods": ("components/pods", with_pods),
    "pod_spec": ("components/pod-spec", with_pod_spec),
    "release": ("components/release", with_release),
    "restart": ("components/restart", with_restart),
}
EACH_VERB = [
    (case, number, verb)
    for case, (path, _) in CASES.items()
    for number, rule in enumerate(rules_of(path))
    for verb in rule["verbs"]
]


def make(case: str, rules: list[dict[str, Any]], api: KubernetesApi) -> World:
    api.add_namespace(NAMESPACE)
    kinds = {"stateful set": STATEFUL_SET}
    if case == "custom resource":
        kinds[case] = api.add_scalable_kind("serving.example.com", "v1", "inferenceservers", "InferenceServer")
    kind = kinds.get(case, DEPLOYMENT)
    api.cluster.where = lambda _namespace, _name: [("127.0.0.1", 9), ("127.0.0.1", 10)]
    api.add_deployment(NAMESPACE, "ranker", 2, spec=POD, kind=kind)
    if case == "hpa":
        api.add_hpa(NAMESPACE, "ranker", "ranker", 2, 10, sync_s=0.05)
    if case == "keda":
        api.add_scaled_object(NAMESPACE, "ranker", "ranker", 2, 10, sync_s=0.05)
        api.add_deployment(NAMESPACE, "paused", 1)
        api.add_scaled_object(NAMESPACE, "paused", "paused", 1, 2, annotations={"autoscaling.keda.sh/paused": "true"})
        eventually(lambda: bool(api.store.list(HPA, NAMESPACE)))
    eventually(lambda: _ready(api, kind) == 2)
    if case == "release":
        api.store.update(DEPLOYMENT, NAMESPACE, "ranker", _another_image, "ci")
        eventually(lambda: len(api.store.list(REPLICA_SET, NAMESPACE)) == 2)
    api.add_token("t", "slotune")
    api.add_role("slotune", NAMESPACE, rules)
    return World(api)


def _another_image(obj: dict[str, Any]) -> dict[str, Any]:
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = "another:2"
    return obj


def _ready(api: KubernetesApi, kind: Resource) -> int:
    return int(api.store.get(kind, NAMESPACE, "ranker").get("status", {}).get("readyReplicas", 0))


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with KubernetesApi(tick_s=0.01) as running:
        yield running


@pytest.mark.parametrize("case", CASES)
def test_the_role_is_enough(case: str, api: KubernetesApi) -> None:
    path, run = CASES[case]
    run(make(case, rules_of(path), api))


@pytest.mark.parametrize(("case", "number", "verb"), EACH_VERB)
def test_without_one_verb_a_refusal_names_it(case: str, number: int, verb: str, api: KubernetesApi) -> None:
    path, run = CASES[case]
    rules = copy.deepcopy(rules_of(path))
    rules[number]["verbs"].remove(verb)
    with pytest.raises(ControlRefused) as error:
        run(make(case, rules, api))
    said = str(error.value)
    assert f"may not {verb} {rules[number]['resources'][0]}" in said
    assert f'verbs: ["{verb}"]' in said


@pytest.mark.parametrize("case", [c for c in CASES if c != "keda"])
def test_the_live_check_asks_for_each_right_of_the_role_and_no_other(case: str, api: KubernetesApi) -> None:
    path, _ = CASES[case]
    rules = rules_of(path)
    world = make(case, rules, api)
    options = {"namespace": NAMESPACE, "target": "ranker"}
    if case == "pod_spec":
        actuator: Any = PodSpec(world.connect("t"), world.clock, world.sleep)
        ranker = pod_service()
    elif case == "release":
        actuator, ranker = KubernetesRelease(world.connect("t"), world.clock, world.sleep), release_service()
    elif case == "restart":
        actuator, ranker = KubernetesRestart(world.connect("t"), world.clock, world.sleep), restart_service()
    elif case == "pods":
        actuator = HttpConfig(world.connect("t"), world.clock, world.sleep)
        ranker = pods_service(world)
    else:
        actuator = world.lever("t")
        more = {"hpa": {"hpa": "ranker"}, "stateful set": {"kind": "StatefulSet"}, "custom resource": {"kind": CUSTOM}}
        ranker = world.service(**options, **more.get(case, {}))
    assert all(result.ok for result in _rights("ranker", ranker, actuator))
    asked = {(verb, ref.group, ref.resource, ref.name) for verb, ref in actuator.rights(ranker)}
    granted = {
        (verb, rule["apiGroups"][0], rule["resources"][0], rule.get("resourceNames", [""])[0])
        for rule in rules
        for verb in rule["verbs"]
    }
    assert asked == granted


def test_the_live_check_names_a_missing_right(api: KubernetesApi) -> None:
    rules = rules_of("base")
    rules[0]["verbs"].remove("patch")
    world = make("hpa", rules, api)
    ranker = world.service(namespace=NAMESPACE, target="ranker", hpa="ranker")
    failed = [r.text for r in _rights("ranker, replicas", ranker, world.lever("t")) if not r.ok]
    assert len(failed) == 1
    assert failed[0].startswith(
        "ranker, replicas: may not patch horizontalpodautoscalers inference/ranker; the Role needs"
    )
