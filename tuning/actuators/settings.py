"""What each actuator can be told at its lever: one class per actuator, and the only place where a default stands.

`tuning.settings` puts them behind `levers.<lever>` of services.yaml, the configuration reference is generated from
them, and the actuators read them through `tuning.actuators._options.of`. An unknown key is an error.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tuning.quantization.build_target import BuildTarget
from tuning.quantization.gates import MAX_ACCURACY_DROP, MIN_SPEEDUP
from tuning.settings_base import ConnectionName, Section

MAX_TIMEOUT_S = 3600.0
MAX_BATCH_TIMEOUT_MS = 60_000.0


class EndpointOptions(Section):
    """A server that is told over HTTP."""

    connection: ConnectionName
    """Connection of the control endpoint."""

    endpoints: tuple[str, ...] = ()
    """Further replicas, where each has its own endpoint: names of connections, or addresses on the same host."""

    request_timeout_s: float = Field(5.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one control call may take, from the connection to the last byte."""


class BatchEndpointOptions(EndpointOptions):
    """The batch lever of such a server."""

    timeout_min_ms: float = Field(0.0, ge=0, le=MAX_BATCH_TIMEOUT_MS)
    """Shortest batch timeout that may be set."""

    timeout_max_ms: float = Field(20.0, ge=0, le=MAX_BATCH_TIMEOUT_MS)
    """Longest batch timeout that may be set."""

    canary: bool = True
    """Change one replica first and compare it with the others, where each has its own endpoint and its own P95."""

    @model_validator(mode="after")
    def _timeouts(self) -> Self:
        if self.timeout_min_ms > self.timeout_max_ms:
            raise ValueError(
                f"timeout_min ({self.timeout_min_ms:g}) is larger than timeout_max ({self.timeout_max_ms:g})"
            )
        return self


class HttpConfigOptions(BatchEndpointOptions):
    """http_config: batch size and batch timeout through `GET`/`POST /config`."""


class TritonOptions(BatchEndpointOptions):
    """triton: batch size and queue delay through Triton's repository load API."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    load_timeout_s: float = Field(60.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading the model may take; large models and warm-up need more."""


class PodSpecOptions(Section):
    """pod_spec: batch size in an environment variable or argument of the pod template."""

    connection: ConnectionName
    """Connection of the cluster's API server."""

    namespace: str = Field(min_length=1)
    """Namespace of the workload."""

    kind: Literal["Deployment", "StatefulSet"] = "Deployment"
    """Kind of the workload."""

    target: str = Field(min_length=1)
    """Name of the workload."""

    container: str = ""
    """The container; default: the only one."""

    env: str = ""
    """Environment variable that holds the batch size."""

    arg: str = ""
    """Command-line argument that holds the batch size, for example --max-num-seqs."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""

    rollout_timeout_s: float = Field(600.0, gt=0)
    """After this long without a finished rollout the old pod template is put back."""

    @model_validator(mode="after")
    def _place(self) -> Self:
        if not (self.env or self.arg):
            raise ValueError("actuator pod_spec needs the place of the batch size: env or arg")
        return self


class KubernetesOptions(Section):
    """kubernetes: replicas through their owner (HPA bounds, KEDA bounds, or the scale subresource)."""

    connection: ConnectionName
    """Connection of the cluster's API server."""

    namespace: str = Field(min_length=1)
    """Namespace of the workload."""

    kind: str = "Deployment"
    """Kind of the workload: Deployment, StatefulSet, or a scalable custom resource as group/version/plural."""

    target: str = Field(min_length=1)
    """Name of the workload."""

    hpa: str | None = None
    """Name of its HorizontalPodAutoscaler; default: found by scaleTargetRef."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""

    unschedulable_after_s: float = Field(300.0, gt=0)
    """A scale-up whose pods stay unschedulable this long is undone and reported as "no capacity"."""

    stand_down_s: float = Field(3600.0, ge=0)
    """After somebody else wrote the replicas by hand, slotune leaves them alone for this long."""


class PrecisionOptions(EndpointOptions):
    """The precision lever: a version in the model repository that each server is told to serve."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    onnx: str | None = None
    """Path of the FP32 ONNX model. Without it the lever holds: no calibrated model configured."""

    calibration: str | None = None
    """Path of the calibration data (.npz file or folder), or "recorded" for inputs that the service kept."""

    repository: str | None = None
    """Path of the model repository (Triton layout) that the server loads from."""

    max_accuracy_drop: float = Field(MAX_ACCURACY_DROP, ge=0, le=1)
    """Largest loss of accuracy on held-back data."""

    min_agreement: float = Field(0.98, ge=0, le=1)
    """Smallest share of answers on which INT8 and FP32 agree (for embeddings: of nearest neighbours that stay)."""

    output: str | None = None
    """Name of the output that is compared, for a model with several."""

    answers: Literal["auto", "classes", "vectors", "values"] = "auto"
    """What that output is: class scores, vectors (embeddings) or numbers; auto: told from its name and values."""

    min_speedup: float = Field(MIN_SPEEDUP, gt=0, le=1000)
    """INT8 must be at least this many times faster, else it is refused."""

    build: BuildTarget = BuildTarget()
    """Where INT8 is made."""

    keep_versions: int = Field(4, ge=2, le=1000)
    """How many versions stay in the repository; the one in use and the way back are never removed."""

    max_calibration_age_days: float = Field(30.0, gt=0)
    """Calibration data older than this are refused."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading a version may take."""


class ModelRepositoryOptions(PrecisionOptions):
    """model_repository: servers that load one version on request."""

    shadow_share: float = Field(0.1, ge=0, le=1)
    """Share of live requests that also go through the old version after a swap, to compare the answers."""


class TritonRepositoryOptions(PrecisionOptions):
    """triton_repository: the same on Triton, through `version_policy`."""


OPTIONS: dict[str, type[Section]] = {
    "http_config": HttpConfigOptions,
    "kubernetes": KubernetesOptions,
    "model_repository": ModelRepositoryOptions,
    "pod_spec": PodSpecOptions,
    "triton": TritonOptions,
    "triton_repository": TritonRepositoryOptions,
}
"""By the name of the actuator; a test holds it against the registry."""
