"""Where an INT8 build runs: in this worker, on an Airflow queue, or in a Kubernetes pod on a GPU node.

An engine of full TensorRT must be built on the GPU generation that will serve it, with the TensorRT version of the
serving image: name a queue whose workers have that GPU, or an image and a node selector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import model_validator

from detection.model import Value
from tuning.errors import ConfigError


class BuildTarget(Value):
    """kind "worker": the task itself builds. "queue": the task runs on that Airflow queue. "pod": in a pod.

    image, namespace, node_selector, gpu: for a pod. cpu, memory: its requests and limits (Kubernetes quantities).
    volume_claim: the claim with model, data and repository, mounted at `mount`. deadline_s: then the pod is ended.
    """

    kind: Literal["worker", "queue", "pod"] = "worker"
    queue: str = ""
    image: str = ""
    namespace: str = ""
    service_account: str = ""
    node_selector: dict[str, str] = {}
    gpu: int = 0
    cpu: str = "2"
    memory: str = "8Gi"
    volume_claim: str = ""
    mount: str = "/models"
    deadline_s: int = 3600

    @model_validator(mode="after")
    def _complete(self) -> BuildTarget:
        needed = {"queue": ("queue",), "pod": ("image", "namespace", "volume_claim")}.get(self.kind, ())
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise ValueError(f"a build in a {self.kind} needs {', '.join(missing)}")
        if self.gpu < 0 or self.deadline_s <= 0:
            raise ValueError("gpu must be 0 or more and deadline_s more than 0")
        return self

    def text(self) -> str:
        """Where, for people."""
        if self.kind == "pod":
            return f"a pod in {self.namespace} ({self.image})"
        return f"a worker of the queue {self.queue}" if self.kind == "queue" else "this worker"

    def queue_name(self) -> str | None:
        """The `queue` argument of the Airflow task, None for the default queue."""
        return self.queue if self.kind == "queue" else None


def build_command(
    *, model: str, calibration: str, out: str, target: str = "ort", compute_capability: str | None = None
) -> list[str]:
    """The command line of a build: `slotune quantize` with absolute paths below the mount."""
    command = ["slotune", "quantize", model, "--calibration", calibration, "--out", out, "--target", target]
    return [*command, "--compute-capability", compute_capability] if compute_capability else command


def pod_spec(target: BuildTarget, *, name: str, command: Sequence[str]) -> dict[str, object]:
    """A core/v1 Pod for one build: runs once, as nobody, without API token, on a GPU node when one is asked for."""
    if target.kind != "pod":
        raise ConfigError(f"a build of kind {target.kind!r} needs no pod")
    resources: dict[str, str] = {"cpu": target.cpu, "memory": target.memory}
    if target.gpu:
        resources["nvidia.com/gpu"] = str(target.gpu)
    container: dict[str, object] = {
        "name": "build",
        "image": target.image,
        "command": list(command),
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "models", "mountPath": target.mount}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    spec: dict[str, object] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": target.deadline_s,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "fsGroup": 65534},
        "containers": [container],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": target.volume_claim}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if target.node_selector:
        spec["nodeSelector"] = dict(target.node_selector)
    if target.gpu:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    if target.service_account:
        spec["serviceAccountName"] = target.service_account
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "labels": {"app.kubernetes.io/name": "slotune", "app.kubernetes.io/component": "int8-build"},
        },
        "spec": spec,
    }
