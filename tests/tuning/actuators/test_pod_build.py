"""An INT8 build in a pod, on the Kubernetes-shaped API server; its kubelet runs the pod's command as a process here."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.kubernetes_api.resources import POD
from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.actuators import FakeConnections
from tests.fakes.quantization import loaded, rows_of, tiny
from tuning.actuators._pod_build import FOLDER, PodBuild, build_rights, may
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NoCapacity, QuantizationRefused, Temporary
from tuning.ports import Connection
from tuning.quantization.build_target import BuildTarget
from tuning.quantization.gates import GateLimits
from tuning.quantization.pipeline import Recipe

pytestmark = pytest.mark.server
TARGET = BuildTarget(kind="pod", connection="cluster", namespace="ml", image="slotune:1", volume_claim="models")
RECIPE = Recipe(limits=GateLimits(min_agreement=0.9, min_speedup=0.01), batches=(1,))


class Cluster:
    """The API server with a kubelet. `ran`: names of the pods it ran; `run`: whether it does;
    `instead`: what to run; `take`: evict the pod, once for each entry."""

    def __init__(self, api: KubernetesApi, root: Path) -> None:
        self.api, self.root, self.run = api, root, True
        self.instead: list[str] | None = None
        self.ran: list[str] = []
        self.uids: list[str] = []
        self.take: list[bool] = []
        self.token: str | None = None
        self.ahead_s = 0.0
        self.on_sleep: Callable[[], None] = lambda: None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._kubelet, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def pods(self) -> list[dict[str, Any]]:
        return self.api.store.list(POD, "ml")

    def status(self, name: str, **status: Any) -> None:
        def change(pod: dict[str, Any]) -> dict[str, Any]:
            pod["status"] = {**(pod.get("status") or {}), **status}
            return pod

        self.api.store.update(POD, "ml", name, change, "kubelet", sub="status")

    def _kubelet(self) -> None:
        while not self._stop.wait(0.05):
            for pod in self.pods() if self.run else []:
                name = pod["metadata"]["name"]
                if self.take and self.take.pop():
                    gone = {"reason": "Evicted", "message": "The node was low on resource: memory."}
                    self.status(name, phase="Failed", **gone)
                elif pod["metadata"]["uid"] not in self.uids and (pod.get("status") or {}).get("phase") != "Failed":
                    self.uids.append(pod["metadata"]["uid"])
                    self.ran.append(name)
                    self._run(name, pod["spec"]["containers"][0])

    def _run(self, name: str, container: dict[str, Any]) -> None:
        mount = container["volumeMounts"][0]["mountPath"]
        command = [word.replace(mount, str(self.root), 1) for word in container["command"]]
        command[0] = str(Path(sys.executable).parent / command[0])
        self.status(name, phase="Running")
        done = subprocess.run(self.instead or command, capture_output=True, text=True, check=False)
        self.api.store.logs["ml", name] = done.stdout + done.stderr
        state = {"name": "build", "state": {"terminated": {"exitCode": done.returncode}}}
        self.status(name, phase="Failed" if done.returncode else "Succeeded", containerStatuses=[state])

    def clock(self) -> float:
        return time.monotonic() + self.ahead_s

    def sleep(self, seconds: float) -> None:
        self.ahead_s += seconds
        self.on_sleep()
        time.sleep(0.05)

    def build(self, key: str = "plan-1:precision", recipe: Recipe = RECIPE, target: BuildTarget = TARGET) -> Any:
        make = PodBuild(self.connections(), self.clock, self.sleep, target, "ranker", self.root, key)
        return make(loaded(tiny()), rows_of(tiny()), recipe, None)

    def connections(self) -> FakeConnections:
        return FakeConnections({"cluster": Connection(name="cluster", url=self.api.url, password=self.token)})

    def left(self) -> list[str]:
        folder = self.root / FOLDER
        return [p.name for p in folder.iterdir()] if folder.is_dir() else []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """In a namespace whose pods have to keep PodSecurity's level "restricted"."""
    with KubernetesApi(tick_s=0.01) as api:
        api.add_namespace("ml", {"pod-security.kubernetes.io/enforce": "restricted"})
        made = Cluster(api, tmp_path)
        yield made
        made.stop()


def test_the_pod_builds_what_this_process_would_and_leaves_nothing(cluster: Cluster) -> None:
    from tuning.quantization.pipeline import quantize

    made = cluster.build()
    here = quantize(loaded(tiny()), rows_of(tiny()), RECIPE)
    assert made.judgement.ready and made.artefact.digest == here.artefact.digest
    assert made.artefact.layers == here.artefact.layers and made.artefact.data == here.artefact.data
    assert cluster.pods() == [] and cluster.left() == []


def test_a_refusal_comes_back_with_its_table(cluster: Cluster) -> None:
    made = cluster.build(recipe=Recipe(limits=GateLimits(min_agreement=0.9, min_speedup=1e6), batches=(1,)))
    assert not made.judgement.ready and "speed at batch 1" in made.judgement.refusal
    assert cluster.pods() == [] and cluster.left() == []


def test_a_task_that_is_run_again_goes_on_with_its_own_pod(cluster: Cluster) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    cluster.run, cluster.on_sleep = False, kill
    with pytest.raises(Killed):
        cluster.build()
    assert len(cluster.pods()) == 1
    cluster.run, cluster.on_sleep = True, lambda: None
    assert cluster.build().judgement.ready and len(cluster.ran) == 1


def test_a_build_that_fails_says_its_own_last_words(cluster: Cluster) -> None:
    cluster.instead = [sys.executable, "-c", "print('slotune: no space left on the device'); raise SystemExit(2)"]
    with pytest.raises(QuantizationRefused, match=r"ended with code 2: slotune: no space left on the device"):
        cluster.build()
    assert cluster.pods() == [] and cluster.left() == []


def test_an_answer_about_another_model_is_not_taken(cluster: Cluster) -> None:
    cluster.instead = ["true"]
    with pytest.raises(QuantizationRefused, match="wrote no usable answer"):
        cluster.build()
    assert cluster.pods() == []


def test_a_pod_that_never_starts_is_removed_and_the_reason_named(cluster: Cluster) -> None:
    cluster.run = False

    def unschedulable() -> None:
        waiting = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes have nvidia.com/gpu"}]
        cluster.status(cluster.pods()[0]["metadata"]["name"], phase="Pending", conditions=waiting)

    cluster.on_sleep = unschedulable
    with pytest.raises(NoCapacity, match=r"did not start within 60 s: 0/3 nodes have nvidia\.com/gpu"):
        cluster.build(target=TARGET.model_copy(update={"pending_s": 60.0}))
    assert cluster.pods() == [] and cluster.left() == []


def test_a_pod_that_never_ends_and_one_that_is_taken_away(cluster: Cluster) -> None:
    cluster.run = False
    cluster.on_sleep = lambda: cluster.status(cluster.pods()[0]["metadata"]["name"], phase="Running")
    with pytest.raises(QuantizationRefused, match="did not end within 30 s"):
        cluster.build(target=TARGET.model_copy(update={"deadline_s": 30.0, "pending_s": 10.0}))
    assert cluster.pods() == []
    cluster.on_sleep = lambda: cluster.api.store.delete(POD, "ml", cluster.pods()[0]["metadata"]["name"])
    with pytest.raises(Temporary, match="was removed by somebody"):
        cluster.build()


def test_a_cluster_that_says_no_and_one_that_is_away(cluster: Cluster) -> None:
    with pytest.raises(ControlRefused, match="nowhere"):
        cluster.build(target=TARGET.model_copy(update={"namespace": "nowhere"}))
    with pytest.raises(ConfigError, match="no connection away"):
        cluster.build(target=TARGET.model_copy(update={"connection": "away"}))
    cluster.api.fail_next(times=1, code=500, methods=("POST",))
    with pytest.raises(ControlUnreachable, match="no pod was created"):
        cluster.build(key="plan-2:precision")
    cluster.api.fail_next(times=1, apply_after_s=0.0, methods=("POST",))
    assert cluster.build(key="plan-2:precision").judgement.ready  # it had landed, and nobody was told
    assert len(cluster.ran) == 1


def ends(cluster: Cluster, status: dict[str, Any]) -> Callable[[], None]:
    """At the next look the pod has ended like this."""
    return lambda: cluster.status(cluster.pods()[0]["metadata"]["name"], phase="Failed", **status)


def killed(reason: str) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "build", "state": {"terminated": {"exitCode": 137, "reason": reason}}}]}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (killed("OOMKilled"), r"was OOMKilled: it needs more memory than 8Gi \(build\.memory\)"),
        ({"reason": "DeadlineExceeded"}, r"did not end within 3600 s \(build\.deadline\)"),
    ],
)
def test_how_the_cluster_ended_a_build_is_said(cluster: Cluster, status: dict[str, Any], words: str) -> None:
    cluster.run, cluster.on_sleep = False, ends(cluster, status)
    with pytest.raises(QuantizationRefused, match=words):
        cluster.build()
    assert cluster.pods() == [] and cluster.left() == []


def test_an_evicted_build_is_started_again(cluster: Cluster) -> None:
    cluster.take = [True]
    assert cluster.build().judgement.ready
    assert cluster.pods() == [] and cluster.left() == []


def test_one_that_is_evicted_again_and_again_is_given_up_with_the_reason(cluster: Cluster) -> None:
    cluster.take = [True] * 9
    with pytest.raises(NoCapacity, match=r"taken away 3 times, the last time because of Evicted: The node was low"):
        cluster.build()
    assert cluster.pods() == [] and cluster.left() == []


def test_room_in_a_quota_is_waited_for_and_its_words_are_told(cluster: Cluster) -> None:
    cluster.api.add_quota("ml", "gpus", 0)
    waited: list[int] = []

    def room() -> None:
        waited.append(1)
        if len(waited) == 3:
            cluster.api.add_quota("ml", "gpus", None)

    cluster.on_sleep = room
    assert cluster.build().judgement.ready
    cluster.api.add_quota("ml", "gpus", 0)
    cluster.on_sleep = lambda: None
    with pytest.raises(NoCapacity, match=r"could not be created within 60 s.*ResourceQuota.*exceeded quota: gpus"):
        cluster.build(key="plan-2:precision", target=TARGET.model_copy(update={"pending_s": 60.0}))
    assert cluster.left() == []


def test_a_pod_of_somebody_elses_is_not_taken_for_its_own(cluster: Cluster) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    cluster.run, cluster.on_sleep = False, kill
    with pytest.raises(Killed):
        cluster.build()
    name = cluster.pods()[0]["metadata"]["name"]

    def other(pod: dict[str, Any]) -> dict[str, Any]:
        pod["metadata"]["annotations"]["slotune/change"] = "another"
        return pod

    cluster.api.store.update(POD, "ml", name, other, "eve")
    with pytest.raises(ControlRefused, match="belongs to somebody else"):
        cluster.build()


def test_an_api_server_that_is_starting_is_waited_for(cluster: Cluster) -> None:
    cluster.api.starting(3, methods=("GET",), path="slotune-int8")
    assert cluster.build().judgement.ready


def test_what_an_earlier_build_left_is_removed(cluster: Cluster) -> None:
    (cluster.root / FOLDER / "slotune-int8-old").mkdir(parents=True)
    labels = {"app.kubernetes.io/name": "slotune", "app.kubernetes.io/component": "int8-build"}
    keeps = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    small = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    for name, of in (("mine", "ranker"), ("theirs", "llm")):
        meta = {"name": name, "labels": labels, "annotations": {"slotune/service": of}}
        spec = {"securityContext": keeps, "containers": [{"name": "build", "securityContext": small}]}
        cluster.api.store.create(POD, "ml", {"metadata": meta, "spec": spec, "status": {}}, "slotune")
        cluster.status(name, phase="Succeeded")
        cluster.uids.append(cluster.api.store.get(POD, "ml", name)["metadata"]["uid"])
    cluster.ahead_s = time.time() - time.monotonic() + 9000
    assert cluster.build().judgement.ready
    assert [pod["metadata"]["name"] for pod in cluster.pods()] == ["theirs"]
    assert cluster.left() == []


RULES = yaml.safe_load(
    (Path(__file__).resolve().parents[3] / "deploy/kubernetes/components/int8-build/role.yaml").read_text()
)["rules"]


def test_the_role_grants_what_a_build_uses_and_nothing_else(cluster: Cluster) -> None:
    cluster.api.add_token("t", "slotune")
    cluster.api.add_role("slotune", "ml", RULES)
    cluster.token = "t"
    assert cluster.build().judgement.ready
    assert all(may(cluster.connections(), TARGET, verb, ref) for verb, ref in build_rights(TARGET))
    granted = {(verb, rule["resources"][0]) for rule in RULES for verb in rule["verbs"]}
    assert {(verb, ref.resource) for verb, ref in build_rights(TARGET)} == granted


def test_without_the_right_to_create_the_rule_is_named(cluster: Cluster) -> None:
    cluster.api.add_token("t", "slotune")
    cluster.api.add_role("slotune", "ml", RULES[1:])
    cluster.token = "t"
    with pytest.raises(ControlRefused, match=r'may not create pods.*verbs: \["create"\]'):
        cluster.build()
    assert cluster.left() == []
