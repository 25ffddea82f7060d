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

from demo.kubernetes_api.resources import POD
from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.actuators import FakeConnections
from tests.fakes.quantization import loaded, rows_of, tiny
from tuning.actuators._pod_build import FOLDER, PodBuild
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NoCapacity, QuantizationRefused, Temporary
from tuning.quantization.build_target import BuildTarget
from tuning.quantization.gates import GateLimits
from tuning.quantization.pipeline import Recipe

pytestmark = pytest.mark.server
TARGET = BuildTarget(kind="pod", connection="cluster", namespace="ml", image="slotune:1", volume_claim="models")
RECIPE = Recipe(limits=GateLimits(min_agreement=0.9, min_speedup=0.01), batches=(1,))


class Cluster:
    """The API server with a kubelet. `ran`: names of the pods it ran; `run`: whether it does; `instead`: what to run."""

    def __init__(self, api: KubernetesApi, root: Path) -> None:
        self.api, self.root, self.run = api, root, True
        self.instead: list[str] | None = None
        self.ran: list[str] = []
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
                if name not in self.ran:
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
        connections = FakeConnections({"cluster": self.api.url})
        make = PodBuild(connections, self.clock, self.sleep, target, "ranker", self.root, key)
        return make(loaded(tiny()), rows_of(tiny()), recipe, None)

    def left(self) -> list[str]:
        folder = self.root / FOLDER
        return [p.name for p in folder.iterdir()] if folder.is_dir() else []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with KubernetesApi(tick_s=0.01) as api:
        api.add_namespace("ml")
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
