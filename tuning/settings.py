"""The settings of services.yaml: what each key means, its unit, its default, and what makes it wrong.

`tuning.services_yaml` reads the file and turns units ("100ms", "5m", "1%") into the plain numbers here; the
configuration reference in docs/ is generated from these classes, so every field says what it is for.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from detection import presets
from detection.model import Lever, Mode, Service, Slo
from detection.settings import DetectionSettings
from tuning.guards.settings import SafetySettings
from tuning.notifiers.settings import MailSettings
from tuning.planning.settings import PlanningSettings
from tuning.quantization.build_target import BuildTarget
from tuning.settings_base import ConnectionName, Section
from tuning.verification.settings import VerificationSettings


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

    minimum: int = Field(1, ge=1, alias="min")
    """Smallest batch size that may be set."""

    maximum: int = Field(32, ge=1, alias="max")
    """Largest batch size that may be set."""

    timeout_min_ms: float = Field(0.0, ge=0)
    """Shortest batch timeout that may be set."""

    timeout_max_ms: float = Field(20.0, ge=0)
    """Longest batch timeout that may be set."""

    actuator: Literal["http_config", "triton", "pod_spec"] = "http_config"
    """How it is changed: http_config (GET/POST /config), triton (repository load), pod_spec (env or args)."""

    connection: ConnectionName
    """Connection of the control endpoint (for pod_spec: of the cluster)."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    endpoints: tuple[str, ...] = ()
    """Connections of further replicas' control endpoints, where each has its own."""

    canary: bool = True
    """Change one replica first and compare it with the others, where each has its own endpoint and its own P95."""

    namespace: str = ""
    """pod_spec: the namespace of the workload."""

    kind: Literal["Deployment", "StatefulSet"] = "Deployment"
    """pod_spec: the kind of the workload."""

    target: str = ""
    """pod_spec: the name of the workload."""

    container: str = ""
    """pod_spec: the container; default: the only one."""

    env: str = ""
    """pod_spec: environment variable that holds the batch size."""

    arg: str = ""
    """pod_spec: command-line argument that holds the batch size, for example --max-num-seqs."""

    request_timeout_s: float = Field(5.0, gt=0)
    """How long one control call may take."""

    load_timeout_s: float = Field(60.0, gt=0)
    """triton: how long loading the model may take; large models and warm-up need more."""

    rollout_timeout_s: float = Field(600.0, gt=0)
    """pod_spec: after this long without a finished rollout the old pod template is put back."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _ordered("min", self.minimum, "max", self.maximum)
        _ordered("timeout_min", self.timeout_min_ms, "timeout_max", self.timeout_max_ms)
        if self.actuator == "pod_spec" and not (self.namespace and self.target and (self.env or self.arg)):
            raise ValueError("actuator pod_spec needs namespace, target, and env or arg")
        return self


class ReplicasLever(BaseLever):
    """Replicas through their owner: HPA bounds, KEDA bounds, or the scale subresource (task scale_replicas)."""

    minimum: int = Field(1, ge=1, alias="min")
    """Fewest replicas that slotune may ask for."""

    maximum: int = Field(4, ge=1, alias="max")
    """Most replicas that slotune may ask for."""

    actuator: Literal["kubernetes"] = "kubernetes"
    """How it is changed."""

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

    unschedulable_after_s: float = Field(300.0, gt=0)
    """A scale-up whose pods stay unschedulable this long is undone and reported as "no capacity"."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _ordered("min", self.minimum, "max", self.maximum)
        return self


class PrecisionLever(BaseLever):
    """FP32 to INT8 and back (task quantize_int8)."""

    actuator: Literal["model_repository", "triton_repository"] = "model_repository"
    """How it is changed: a new version in the model repository, loaded beside the old one."""

    connection: ConnectionName
    """Connection of the server's model repository API."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    onnx: str | None = None
    """Path of the FP32 ONNX model. Without it the lever holds: no calibrated model configured."""

    calibration: str | None = None
    """Path of the calibration data (.npz file or folder), or "recorded" for inputs that the service kept."""

    repository: str | None = None
    """Path of the model repository (Triton layout) that the server loads from."""

    max_accuracy_drop: float = Field(0.01, ge=0, le=1)
    """Largest loss of accuracy on held-back data."""

    min_agreement: float = Field(0.98, ge=0, le=1)
    """Smallest share of answers on which INT8 and FP32 agree."""

    output: str | None = None
    """Name of the output with the class scores that are compared, for a model with several."""

    min_speedup: float = Field(1.1, ge=1)
    """INT8 must be at least this many times faster, else it is refused."""

    build: BuildTarget = BuildTarget()
    """Where INT8 is made."""

    endpoints: tuple[str, ...] = ()
    """Connections of further replicas, where each loads its own."""

    keep_versions: int = Field(4, ge=2)
    """How many versions stay in the repository; the one in use and the way back are never removed."""

    shadow_share: float = Field(0.1, ge=0, le=1)
    """Share of live requests that also go through the old version after a swap, to compare the answers."""

    max_calibration_age_days: float = Field(30.0, gt=0)
    """Calibration data older than this are refused."""

    request_timeout_s: float = Field(5.0, gt=0)
    """How long one control call may take."""

    load_timeout_s: float = Field(120.0, gt=0)
    """How long loading a version may take."""


class Levers(Section):
    """The levers that slotune may pull for a service; a lever that is not named is never touched."""

    batch_size: BatchSizeLever | None = None
    """Batch size and batch timeout."""

    replicas: ReplicasLever | None = None
    """Replicas."""

    precision: PrecisionLever | None = None
    """Numeric precision of the model."""


class SloSettings(Section):
    """The promise that slotune keeps."""

    p95_ms: float = Field(gt=0)
    """P95 latency must stay under this."""

    for_s: float = Field(60.0, ge=0)
    """How long it may be broken before it is an incident."""

    error_rate: float = Field(0.01, ge=0, le=1)
    """Largest share of failed requests."""

    accuracy_drop: float = Field(0.01, ge=0, le=1)
    """Largest loss of accuracy, where the service exports it."""


class ServiceSettings(Section):
    """One inference service."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name: in mails, task ids and the ledger."""

    serving: str
    """Serving system, which decides the queries: a name of detection/presets."""

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

    def to_service(self) -> Service:
        levers = {}
        for name in ("batch_size", "replicas", "precision"):
            lever: BaseLever | None = getattr(self.levers, name)
            if lever is None:
                continue
            core = {"mode", "cost_per_hour", "cool_down_s", "effect_delay_s", "minimum", "maximum", "actuator"}
            options = {k: v for k, v in lever.model_dump(mode="json").items() if k not in core}
            if "model" in options and not options["model"]:
                options["model"] = self.name
            levers[name] = Lever(
                name=name,
                actuator=getattr(lever, "actuator"),  # noqa: B009 - each subclass narrows it to its own literal
                minimum=getattr(lever, "minimum", 0),
                maximum=getattr(lever, "maximum", 1),
                mode=lever.mode,
                cost_per_hour=lever.cost_per_hour,
                cool_down_s=lever.cool_down_s,
                effect_delay_s=lever.effect_delay_s,
                options=options,
            )
        return Service(
            name=self.name,
            serving=self.serving,
            engine=presets.REGISTRY[self.serving].engine if self.serving in presets.REGISTRY else "dynamic_batching",
            selectors=self.selectors,
            slo=Slo(**self.slo.model_dump()),
            mode=self.mode,
            levers=levers,
            labels=self.labels,
        )


class Settings(Section):
    """The whole file."""

    prometheus: PrometheusSettings = PrometheusSettings()
    """Where the metrics come from."""

    mail: MailSettings = MailSettings()
    """Who reads the reports."""

    schedule: ScheduleSettings = ScheduleSettings()
    """How often the DAGs run."""

    detection: DetectionSettings = DetectionSettings()
    """What counts as an anomaly."""

    planning: PlanningSettings = PlanningSettings()
    """How a lever is chosen."""

    verification: VerificationSettings = VerificationSettings()
    """How a change is judged."""

    safety: SafetySettings = SafetySettings()
    """What must never happen."""

    services: tuple[ServiceSettings, ...]
    """The services; at least one."""

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        if not self.services:
            raise ValueError("services must not be empty: there is nothing to look after")
        names = [service.name for service in self.services]
        if len(set(names)) != len(names):
            raise ValueError("two services have one name: give each its own")
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

    def service_values(self) -> tuple[Service, ...]:
        return tuple(service.to_service() for service in self.services)


def _ordered(low_name: str, low: float, high_name: str, high: float) -> None:
    if low > high:
        raise ValueError(f"{low_name} ({low:g}) is larger than {high_name} ({high:g})")
