"""Where an INT8 build runs: in this worker, on an Airflow queue, or in a Kubernetes pod on a GPU node.

An engine of full TensorRT must be built on the GPU generation that will serve it, with the TensorRT version of the
serving image: name a queue whose workers have that GPU, or an image and a node selector.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from tuning.errors import ConfigError
from tuning.settings_base import ConnectionName, Section

if TYPE_CHECKING:
    from tuning.quantization.pipeline import Recipe


LABELS = {"app.kubernetes.io/name": "slotune", "app.kubernetes.io/component": "int8-build"}
"""By which the pods of builds are found again."""


class BuildTarget(Section):
    """Where an INT8 build runs."""

    kind: Literal["worker", "queue", "pod"] = "worker"
    """worker: the task itself builds. queue: the task quantize_int8 runs on an Airflow queue. pod: in a pod."""

    queue: str = ""
    """queue: its name; one for all services, because they share the task."""

    connection: ConnectionName | None = None
    """pod: the connection of the cluster's API server."""

    namespace: str = ""
    """pod: where it is created."""

    image: str = ""
    """pod: an image with slotune in it."""

    volume_claim: str = ""
    """pod: the PersistentVolumeClaim that holds the model repository (`repository` of the lever is its root here)."""

    mount: str = "/models"
    """pod: where the claim is mounted in it."""

    service_account: str = ""
    """pod: its service account; default: the namespace's."""

    node_selector: dict[str, str] = {}
    """pod: labels of the nodes that it may run on."""

    gpu: int = Field(0, ge=0)
    """pod: GPUs that it asks for."""

    cpu: str = "2"
    """pod: CPU that it asks for and may use (a Kubernetes quantity)."""

    memory: str = "8Gi"
    """pod: memory that it asks for and may use (a Kubernetes quantity)."""

    deadline_s: float = Field(3600.0, gt=0)
    """pod: after this long Kubernetes ends it, and the build has failed."""

    pending_s: float = Field(600.0, gt=0)
    """pod: one that does not start for this long is removed, and the build has failed."""

    @model_validator(mode="after")
    def _complete(self) -> BuildTarget:
        needed = {"queue": ("queue",), "pod": ("connection", "namespace", "image", "volume_claim")}.get(self.kind, ())
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise ValueError(f"a build in a {self.kind} needs {', '.join(missing)}")
        return self

    def text(self) -> str:
        """Where, for people."""
        if self.kind == "pod":
            return f"a pod in {self.namespace} ({self.image})"
        return f"a worker of the queue {self.queue}" if self.kind == "queue" else "this worker"

    def queue_name(self) -> str | None:
        """The `queue` argument of the Airflow task, None for the default queue."""
        return self.queue if self.kind == "queue" else None


def build_command(recipe: Recipe, *, model: str, folder: str, live: bool) -> list[str]:
    """The command line of a build in `folder` (as the pod sees it): `slotune quantize` with the recipe's limits.

    The folder holds `model`, rows.npz and (live) live.npz; the answer is written to out/.
    """

    def at(name: str) -> str:
        return posixpath.join(folder, name)

    limits = recipe.limits
    command = ["slotune", "quantize", at(model), "--calibration", at("rows.npz"), "--out", at("out")]
    command += ["--target", recipe.target, "--max-accuracy-drop", repr(limits.max_accuracy_drop)]
    command += ["--min-speedup", repr(limits.min_speedup)]
    if limits.min_agreement is not None:
        command += ["--min-agreement", repr(limits.min_agreement)]
    if recipe.output is not None:
        command += ["--output", recipe.output]
    if recipe.answers is not None:
        command += ["--answers", recipe.answers]
    if live:
        command += ["--live", at("live.npz")]
    return [*command, *(word for batch in recipe.batches for word in ("--batch", str(batch)))]


def pod_spec(
    target: BuildTarget, *, name: str, command: Sequence[str], annotations: dict[str, str] | None = None
) -> dict[str, object]:
    """A core/v1 Pod for one build: runs once, as nobody, without API token, on a GPU node when one is asked for.

    It keeps PodSecurity's level "restricted".
    """
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
        "activeDeadlineSeconds": int(target.deadline_s),
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "fsGroup": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
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
            "labels": dict(LABELS),
            "annotations": annotations or {},
        },
        "spec": spec,
    }
