"""The settings of a service's levers: the bounds and modes that all have, and what each actuator can be told."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from detection.model import Mode
from tuning.actuators.settings.admission import HttpAdmissionOptions, KubernetesAdmissionOptions, TritonAdmissionOptions
from tuning.actuators.settings.batch_size import (
    HttpConfigOptions,
    HttpOptions,
    KubernetesPatchOptions,
    PodSpecOptions,
    TritonOptions,
)
from tuning.actuators.settings.breaker import HttpBreakerOptions
from tuning.actuators.settings.command import CommandOptions
from tuning.actuators.settings.precision import ModelRepositoryOptions, TritonRepositoryOptions
from tuning.actuators.settings.release import (
    HttpReleaseOptions,
    KubernetesReleaseOptions,
    MlflowReleaseOptions,
    TritonReleaseOptions,
)
from tuning.actuators.settings.replicas import KubernetesOptions
from tuning.actuators.settings.restart import HttpRestartOptions, KubernetesRestartOptions
from tuning.actuators.settings.variant import HttpVariantOptions, TritonVariantOptions
from tuning.settings_base import Section

MAX_BATCH_SIZE = 65_536
MAX_REPLICAS = 100_000
MAX_LIMIT = 1_000_000_000


class BaseLever(Section):
    """What every lever has."""

    mode: Mode | None = None
    """observe, approve or act for this lever alone; default: the service's mode."""

    cost_per_hour: float = Field(0.0, ge=0)
    """What one more unit costs per hour (a replica; for other levers usually 0)."""

    cool_down_s: float | None = Field(None, ge=0)
    """Shortest time between two changes of this lever; default: safety.cool_down."""

    effect_delay_s: float = Field(5.0, ge=0)
    """How long a change takes to show (a new replica's start, a model load); part of the settle time."""


class BatchSizeLever(BaseLever):
    """Maximum batch size and batch timeout (task adjust_batch_size)."""

    minimum: int = Field(1, ge=1, le=MAX_BATCH_SIZE, alias="min")
    """Smallest batch size that may be set."""

    maximum: int = Field(32, ge=1, le=MAX_BATCH_SIZE, alias="max")
    """Largest batch size that may be set."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _ordered("min", self.minimum, "max", self.maximum)
        return self


class HttpConfigLever(HttpConfigOptions, BatchSizeLever):
    """Batch size and batch timeout through `GET`/`POST /config` of every replica."""

    actuator: Literal["http_config"] = "http_config"
    """How it is changed."""


class HttpLever(HttpOptions, BatchSizeLever):
    """Batch size and batch timeout through requests that are written here: for servers of one's own."""

    actuator: Literal["http"] = "http"
    """How it is changed."""


class CommandLever(CommandOptions, BatchSizeLever):
    """Batch size and batch timeout through a program where the task runs: a vendor's tool, a script, ssh."""

    actuator: Literal["command"] = "command"
    """How it is changed."""


class KubernetesPatchLever(KubernetesPatchOptions, BatchSizeLever):
    """Batch size and batch timeout in a field of any Kubernetes object, by JSON pointer: what an operator reads."""

    actuator: Literal["kubernetes_patch"] = "kubernetes_patch"
    """How it is changed."""


class TritonLever(TritonOptions, BatchSizeLever):
    """Batch size and queue delay through Triton's repository load API."""

    actuator: Literal["triton"] = "triton"
    """How it is changed."""


class PodSpecLever(PodSpecOptions, BatchSizeLever):
    """Batch size in an environment variable or argument of the pod template: every change is a rollout."""

    actuator: Literal["pod_spec"] = "pod_spec"
    """How it is changed."""


class ReplicasLever(BaseLever):
    """How many replicas there may be (task scale_replicas)."""

    minimum: int = Field(1, ge=1, le=MAX_REPLICAS, alias="min")
    """Fewest replicas that slotune may ask for."""

    maximum: int = Field(4, ge=1, le=MAX_REPLICAS, alias="max")
    """Most replicas that slotune may ask for."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _ordered("min", self.minimum, "max", self.maximum)
        return self


class KubernetesLever(KubernetesOptions, ReplicasLever):
    """Replicas through their owner: HPA bounds, KEDA bounds, or the scale subresource (task scale_replicas)."""

    actuator: Literal["kubernetes"] = "kubernetes"
    """How it is changed."""


class BasePrecisionLever(BaseLever):
    """What both precision levers have in common."""

    @field_validator("min_speedup", check_fields=False)
    @classmethod
    def _faster(cls, value: float) -> float:
        if value < 1:
            raise ValueError(f"must be at least 1 (found {value:g}): a slower INT8 model helps nobody")
        return value


class ModelRepositoryLever(ModelRepositoryOptions, BasePrecisionLever):
    """FP32 to INT8 and back (task quantize_int8) on servers that load one version on request."""

    actuator: Literal["model_repository"] = "model_repository"
    """How it is changed: a version in the model repository, loaded beside the old one."""


class TritonRepositoryLever(TritonRepositoryOptions, BasePrecisionLever):
    """FP32 to INT8 and back (task quantize_int8) on Triton, through `version_policy`."""

    actuator: Literal["triton_repository"] = "triton_repository"
    """How it is changed."""


class HttpReleaseLever(HttpReleaseOptions, BaseLever):
    """Back to a proven version (task revert_release) through requests that are written here."""

    actuator: Literal["http_release"] = "http_release"
    """How it is changed."""


class KubernetesReleaseLever(KubernetesReleaseOptions, BaseLever):
    """Back to a proven version (task revert_release): the pod template of an earlier ReplicaSet."""

    actuator: Literal["kubernetes_release"] = "kubernetes_release"
    """How it is changed."""


class MlflowReleaseLever(MlflowReleaseOptions, BaseLever):
    """Back to a proven version (task revert_release) by the alias of a model in MLflow's registry."""

    actuator: Literal["mlflow_release"] = "mlflow_release"
    """How it is changed."""


class TritonReleaseLever(TritonReleaseOptions, BaseLever):
    """Back to a proven version (task revert_release) on Triton, through `version_policy`."""

    actuator: Literal["triton_release"] = "triton_release"
    """How it is changed."""


class HttpVariantLever(HttpVariantOptions, BaseLever):
    """Another variant while nothing else meets the SLO (task switch_variant) through requests that are written here."""

    actuator: Literal["http_variant"] = "http_variant"
    """How it is changed."""


class TritonVariantLever(TritonVariantOptions, BaseLever):
    """Another variant while nothing else meets the SLO (task switch_variant), a version of one Triton model."""

    actuator: Literal["triton_variant"] = "triton_variant"
    """How it is changed."""


class BaseAdmissionLever(BaseLever):
    """What all admission levers have in common."""

    minimum: int = Field(ge=1, le=MAX_LIMIT, alias="min")
    """Lowest limit that slotune may set. It only ever lowers the limit that it finds, and gives that one back."""

    maximum: ClassVar[int] = MAX_LIMIT


class HttpAdmissionLever(HttpAdmissionOptions, BaseAdmissionLever):
    """Requests refused at the door while nothing else meets the SLO (task limit_admission), through requests that are
    written here."""

    actuator: Literal["http_admission"] = "http_admission"
    """How it is changed."""


class TritonAdmissionLever(TritonAdmissionOptions, BaseAdmissionLever):
    """Requests refused at the door while nothing else meets the SLO (task limit_admission), by Triton's queue size."""

    actuator: Literal["triton_admission"] = "triton_admission"
    """How it is changed."""


class KubernetesAdmissionLever(KubernetesAdmissionOptions, BaseAdmissionLever):
    """Requests refused at the door while nothing else meets the SLO (task limit_admission), by a field of any
    Kubernetes object."""

    actuator: Literal["kubernetes_admission"] = "kubernetes_admission"
    """How it is changed."""


class HttpBreakerLever(HttpBreakerOptions, BaseLever):
    """A route whose errors or latency explode gets no requests until a probe goes well (task break_circuit), through
    requests that are written here."""

    actuator: Literal["http_breaker"] = "http_breaker"
    """How it is changed."""


class BaseRestartLever(BaseLever):
    """What both restart levers have in common."""

    minimum: int = Field(1, ge=1, le=MAX_REPLICAS, alias="min_ready")
    """So many other replicas must be ready while one restarts."""

    maximum: int = Field(3, ge=1, le=1000, alias="per_day")
    """Most restarts within 24 hours; after them a person is told."""

    effect_delay_s: float = Field(30.0, ge=0)
    """How long a replica takes from its restart until it takes requests; the warm-up comes on top of it."""


class KubernetesRestartLever(KubernetesRestartOptions, BaseRestartLever):
    """One sick replica (task restart_replica): its pod is evicted, which respects PodDisruptionBudgets."""

    actuator: Literal["kubernetes_restart"] = "kubernetes_restart"
    """How it is changed."""


class HttpRestartLever(HttpRestartOptions, BaseRestartLever):
    """One sick replica (task restart_replica) through requests that are written here."""

    actuator: Literal["http_restart"] = "http_restart"
    """How it is changed."""


def _actuator_or(default: str) -> Discriminator:
    """Which class reads a lever: the one of its actuator, the default's where none is named."""

    def tag(value: object) -> str:
        named = value.get("actuator", default) if isinstance(value, dict) else getattr(value, "actuator", default)
        return named if isinstance(named, str) else ""

    return Discriminator(tag)


BatchLever = Annotated[
    Annotated[HttpConfigLever, Tag("http_config")]
    | Annotated[CommandLever, Tag("command")]
    | Annotated[HttpLever, Tag("http")]
    | Annotated[KubernetesPatchLever, Tag("kubernetes_patch")]
    | Annotated[PodSpecLever, Tag("pod_spec")]
    | Annotated[TritonLever, Tag("triton")],
    _actuator_or("http_config"),
]
PrecisionLever = Annotated[
    Annotated[ModelRepositoryLever, Tag("model_repository")]
    | Annotated[TritonRepositoryLever, Tag("triton_repository")],
    _actuator_or("model_repository"),
]


ReleaseLever = Annotated[
    Annotated[TritonReleaseLever, Tag("triton_release")]
    | Annotated[HttpReleaseLever, Tag("http_release")]
    | Annotated[KubernetesReleaseLever, Tag("kubernetes_release")]
    | Annotated[MlflowReleaseLever, Tag("mlflow_release")],
    _actuator_or("triton_release"),
]


VariantLever = Annotated[
    Annotated[HttpVariantLever, Tag("http_variant")] | Annotated[TritonVariantLever, Tag("triton_variant")],
    _actuator_or("http_variant"),
]
AdmissionLever = Annotated[
    Annotated[HttpAdmissionLever, Tag("http_admission")]
    | Annotated[TritonAdmissionLever, Tag("triton_admission")]
    | Annotated[KubernetesAdmissionLever, Tag("kubernetes_admission")],
    _actuator_or("http_admission"),
]
RestartLever = Annotated[
    Annotated[KubernetesRestartLever, Tag("kubernetes_restart")] | Annotated[HttpRestartLever, Tag("http_restart")],
    _actuator_or("kubernetes_restart"),
]


class Levers(Section):
    """The levers that slotune may pull for a service; a lever that is not named is never touched."""

    batch_size: BatchLever | None = None
    """Batch size and batch timeout. `actuator` says how they are changed, and decides the other keys."""

    replicas: KubernetesLever | None = None
    """Replicas."""

    precision: PrecisionLever | None = None
    """Numeric precision of the model. `actuator` says how it is changed."""

    release: ReleaseLever | None = None
    """The version that serves: back to the last proven one. `actuator` says how it is changed. Its mode is approve
    where the service's is act, unless it names its own."""

    variant: VariantLever | None = None
    """Another variant of the model, which costs quality: only where nothing else meets the SLO, and only for as long.
    `actuator` says how it is changed. Its mode is approve where the service's is act, unless it names its own."""

    admission: AdmissionLever | None = None
    """A limit of what is taken in, lowered while nothing else meets the SLO: what is answered is answered in time, and
    the rest is refused. The last lever, and only for as long. `actuator` says how it is changed. Its mode is approve
    where the service's is act, unless it names its own."""

    breaker: HttpBreakerLever | None = None
    """Routes of which one may be taken out: a dependency, a replica or a backend whose errors or latency explode while
    the others are well gets no requests until a probe goes well. Its mode is approve where the service's is act, unless
    it names its own."""

    restart: RestartLever | None = None
    """One replica that is slower than the others, leaks memory or answers wrongly: drained and started again.
    `actuator` says how."""


ASKED_FIRST = ("release", "variant", "admission", "breaker")
"""Levers about which a person is asked unless they name their own mode: what they change, somebody else decided."""


def _ordered(low_name: str, low: float, high_name: str, high: float) -> None:
    if low > high:
        raise ValueError(f"{low_name} ({low:g}) is larger than {high_name} ({high:g})")
