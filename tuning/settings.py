"""The settings of services.yaml: what each key means, its unit, its default, and what makes it wrong.

`tuning.services_yaml` reads the file and turns units ("100ms", "5m", "1%") into the plain numbers here; the
configuration reference in docs/ is generated from these classes, so every field says what it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from detection import presets
from detection.model import InputSample, Lever, Mode, OwnPreset, OwnSignal, Service, ServiceKind, Slo
from detection.settings import DetectionSettings
from tuning.actuators.settings import OPTIONS
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
from tuning.channel_settings import ChannelSettings, NotifySettings, channels_of
from tuning.cron import cron_problem
from tuning.guards.settings import SafetySettings
from tuning.notifiers.settings import MailSettings
from tuning.planning.settings import PlanningSettings
from tuning.preset_settings import OwnSignalSettings, PresetSettings
from tuning.release_settings import ReleaseSettings
from tuning.settings_base import ConnectionName, Section
from tuning.verification.settings import VerificationSettings

MAX_BATCH_SIZE = 65_536
MAX_REPLICAS = 100_000
MAX_LIMIT = 1_000_000_000


class PrometheusSettings(Section):
    """Where the metrics come from."""

    connection: ConnectionName = "slotune_prometheus"
    """Connection that holds the address and, where needed, login, token or TLS settings of Prometheus."""

    rate_window_s: float = Field(60.0, gt=0)
    """Window of every rate() in the queries; at least four scrape intervals."""

    step_s: float = Field(15.0, gt=0)
    """Resolution at which series are read; usually the scrape interval."""

    timeout_s: float = Field(10.0, gt=0)
    """How long one query may take before the source counts as unreachable."""


class ScheduleSettings(Section):
    """How often the DAGs run."""

    watch_every_s: float = Field(300.0, ge=5)
    """Interval of watch_services: pull metrics, detect, open incidents."""

    learn_every_s: float = Field(3600.0, ge=60)
    """Interval of learn_baselines."""

    review: str = "0 7 * * 1"
    """Cron expression of review_week (UTC)."""

    switched_on: bool = False
    """The DAGs are switched on as soon as Airflow sees them; otherwise Airflow's own rule says (paused, by default)."""

    @field_validator("review")
    @classmethod
    def _cron(cls, value: str) -> str:
        problem = cron_problem(value)
        if problem:
            raise ValueError(problem)
        return value


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


OwnOrQuery = Annotated[
    Annotated[str, Tag("promql")] | Annotated[OwnSignalSettings, Tag("OwnSignalSettings")],
    Discriminator(lambda value: "promql" if isinstance(value, str) else "OwnSignalSettings"),
]


NO_PROMISE = "no_promise"
"""The mistake of an SLO without a latency."""
_NO_PROMISE = "is missing (or ttft_p95, itl_p95, e2e_p95 of a language model, iteration of a training job)"
_PROMISES = ("p95", "ttft_p95", "itl_p95", "e2e_p95", "iteration")


class SloSettings(Section):
    """The promise that slotune keeps."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [f"{name}{unit}"]} for name in _PROMISES for unit in ("", "_ms")]}
    )

    p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 latency must stay under this. Give at least one of p95, ttft_p95, itl_p95 and e2e_p95."""

    ttft_p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 of the time to the first token must stay under this (servers of language models)."""

    itl_p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 of the time per output token must stay under this (servers of language models)."""

    e2e_p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 of whole requests must stay under this, where `p95` speaks of something else."""

    iteration_ms: float | None = Field(None, gt=0, le=86_400_000)
    """The mean time of an iteration must stay under this (`kind: training` alone)."""

    for_s: float = Field(60.0, ge=0)
    """How long a latency may be broken before it is an incident."""

    ttft_p95_for_s: float | None = Field(None, ge=0)
    """The same for ttft_p95 alone; default: for."""

    itl_p95_for_s: float | None = Field(None, ge=0)
    """The same for itl_p95 alone; default: for."""

    e2e_p95_for_s: float | None = Field(None, ge=0)
    """The same for e2e_p95 alone; default: for."""

    error_rate: float = Field(0.01, ge=0, le=1)
    """Largest share of failed requests."""

    abort_rate: float = Field(0.05, ge=0, le=1)
    """Largest share of requests that are aborted, or end without an answer, where the server shows it."""

    accuracy_drop: float = Field(0.01, ge=0, le=1)
    """Largest loss of accuracy, where the service exports it."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(getattr(self, f"{name}_ms") is None for name in _PROMISES):
            raise PydanticCustomError(NO_PROMISE, _NO_PROMISE)
        return self


class InputSettings(Section):
    """A sample of what the service is fed, in files that this process can read: checked every hour (docs/data.md)."""

    sample: str = Field(min_length=1)
    """A CSV or Parquet file, or a folder of them; the newest day in it is checked."""

    reference: str = ""
    """What the inputs should be like, in the same form, over some days; default: the sample's own earlier days."""

    time_column: str = ""
    """The column with the time of a row (ISO 8601, or epoch seconds); default: the time of its file."""

    ignore: tuple[str, ...] = ()
    """Columns that are not looked at: ids, free text."""

    fresh_s: float = Field(86_400.0, gt=0)
    """How old the newest row may be."""


class ServiceSettings(Section):
    """One inference service, or one training job."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name: in mails, task ids and the ledger."""

    serving: str = Field(min_length=1, max_length=100)
    """Serving system, which decides the queries: a preset of slotune, of a package, or of `presets` here."""

    kind: ServiceKind = "inference"
    """`training`: a training job, which is watched and has no lever (docs/training.md)."""

    selectors: dict[str, str] = Field(min_length=1)
    """Prometheus labels that single out its series."""

    slo: SloSettings
    """What it promises."""

    mode: Mode = "observe"
    """observe: plan and mail only. approve: ask a person in Airflow's UI. act: act."""

    levers: Levers = Levers()
    """What may be changed."""

    labels: dict[str, str] = {}
    """Free labels, and names of metrics for presets that let them be chosen."""

    signals: dict[str, OwnOrQuery] = {}
    """Signals by name: PromQL alone for a signal that the preset does not read (docs/presets.md), and with its class,
    unit and direction for a signal of your own (docs/signals.md)."""

    exporters: dict[str, dict[str, str]] = {}
    """What shows the machine, by its name (cadvisor, dcgm, node_exporter), each with the labels that single out this
    service's container, GPU or machine: docs/signals.md."""

    inputs: InputSettings | None = None
    """A sample of what the service is fed."""

    chain: tuple[str, ...] = ()
    """Signals of which each is thought to move the next ([gpu_util, queue_ms, p95_ms, conversion]): reports say how
    they went together around an incident."""

    cost_per_hour: float = Field(0.0, ge=0)
    """What one replica costs an hour, for the cost of 1,000 requests; default: that of levers.replicas."""

    def to_service(
        self, *, control_timeout_s: float | None = None, presets_here: Mapping[str, OwnPreset] | None = None
    ) -> Service:
        """As the rest of slotune knows it. control_timeout_s: the control calls of a change may not take longer.

        presets_here: those that services.yaml brings, by name.
        """
        own = (presets_here or {}).get(self.serving)
        watched = self.kind == "training"
        like = own.like if own is not None else self.serving
        levers = {}
        for name in ("batch_size", "replicas", "precision", "release", "variant", "admission", "breaker", "restart"):
            lever: BaseLever | None = getattr(self.levers, name)
            if lever is None or watched:
                continue
            actuator = str(getattr(lever, "actuator"))  # noqa: B009 - each subclass narrows it to its own literal
            options = lever.model_dump(mode="json", include=set(OPTIONS[actuator].model_fields))
            if options.get("knob", "") is None:
                reads = presets.REGISTRY[self.serving].signals if self.serving in presets.REGISTRY else {}
                options["knob"] = "max_num_seqs" if "running" in reads else "batch_size"
            if "model" in options and not options["model"]:
                options["model"] = self.name
            if control_timeout_s is not None:
                options["request_timeout_s"] = min(options["request_timeout_s"], control_timeout_s)
                options["control_timeout_s"] = control_timeout_s
            levers[name] = Lever(
                name=name,
                actuator=actuator,
                minimum=getattr(lever, "minimum", 0),
                maximum=getattr(lever, "maximum", 1),
                mode=lever.mode or ("approve" if name in ASKED_FIRST and self.mode == "act" else None),
                cost_per_hour=lever.cost_per_hour,
                cool_down_s=lever.cool_down_s,
                effect_delay_s=lever.effect_delay_s,
                options=options,
            )
        return Service(
            name=self.name,
            serving=self.serving,
            engine=presets.REGISTRY[like].engine if like in presets.REGISTRY else "dynamic_batching",
            edges_ms=dict(presets.REGISTRY[like].edges_ms) if like in presets.REGISTRY else {},
            kind=self.kind,
            selectors=self.selectors,
            slo=Slo(**self.slo.model_dump()),
            mode="observe" if watched else self.mode,
            levers=levers,
            labels=self.labels,
            queries={name: query for name, query in self.signals.items() if isinstance(query, str)},
            own_signals={
                name: OwnSignal.model_validate(own.model_dump())
                for name, own in self.signals.items()
                if not isinstance(own, str)
            },
            exporters=self.exporters,
            inputs=InputSample.model_validate(self.inputs.model_dump()) if self.inputs is not None else None,
            preset=own,
            cost_per_hour=self.cost_per_hour,
            chain=self.chain,
        )


class Settings(Section):
    """The whole file."""

    prometheus: PrometheusSettings = PrometheusSettings()
    """Where the metrics come from."""

    mail: MailSettings = MailSettings()
    """Who reads the reports."""

    notify: NotifySettings = NotifySettings()
    """Who is told what, where and when."""

    schedule: ScheduleSettings = ScheduleSettings()
    """How often the DAGs run."""

    detection: DetectionSettings = DetectionSettings()
    """What counts as an anomaly."""

    planning: PlanningSettings = PlanningSettings()
    """How a lever is chosen."""

    verification: VerificationSettings = VerificationSettings()
    """How a change is judged."""

    releases: ReleaseSettings = ReleaseSettings()
    """How changes of version are watched."""

    safety: SafetySettings = SafetySettings()
    """What must never happen."""

    presets: tuple[PresetSettings, ...] = ()
    """Serving systems that slotune does not know, by their PromQL; ours are in docs/presets.md."""

    services: tuple[ServiceSettings, ...]
    """The services; at least one."""

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        if not self.services:
            raise ValueError("services must not be empty: there is nothing to look after")
        for what, named in (("services", self.services), ("presets", self.presets)):
            names = [one.name for one in named]
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have one name: give each its own")
        if len(self._build_queues()) > 1:
            raise ValueError(
                f"the services name different queues to build INT8 on ({', '.join(self._build_queues())}); they share "
                "the task quantize_int8, and a task runs on one queue"
            )
        return self

    def _build_queues(self) -> list[str]:
        levers = [service.levers.precision for service in self.services]
        return sorted({name for lever in levers if lever is not None and (name := lever.build.queue_name())})

    def build_queue(self) -> str | None:
        """The Airflow queue of the task quantize_int8; None: Airflow's default."""
        return next(iter(self._build_queues()), None)

    def completed(self) -> Self:
        """With prometheus.rate_window and verification.look where they are needed too and nothing else was said."""
        window_s, look_s = self.prometheus.rate_window_s, self.verification.look_s
        planning, verification = self.planning, self.verification
        told = planning.model_fields_set
        shared = {"rate_window_s": window_s, "verify_window_s": look_s}
        planning = planning.model_copy(update={k: v for k, v in shared.items() if k not in told})
        if "rate_window_s" not in verification.model_fields_set:
            verification = verification.model_copy(update={"rate_window_s": window_s})
        return self.model_copy(update={"planning": planning, "verification": verification})

    def channels(self) -> tuple[ChannelSettings, ...]:
        """Every channel that is in use, also those that nobody had to write down."""
        return channels_of(self.notify, self.mail.to)

    def service_values(self) -> tuple[Service, ...]:
        timeout_s, own = self.safety.control_timeout_s, self.own_presets()
        return tuple(s.to_service(control_timeout_s=timeout_s, presets_here=own) for s in self.services)

    def own_presets(self) -> dict[str, OwnPreset]:
        """The presets of this file, by name."""
        return {preset.name: preset.data() for preset in self.presets}


def _ordered(low_name: str, low: float, high_name: str, high: float) -> None:
    if low > high:
        raise ValueError(f"{low_name} ({low:g}) is larger than {high_name} ({high:g})")
