"""What each actuator can be told at its lever: one class per actuator, and the only place where a default stands.

`tuning.settings` puts them behind `levers.<lever>` of services.yaml, the configuration reference is generated from
them, and the actuators read them through `tuning.actuators._options.of`. An unknown key is an error.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _request_template as templates
from tuning.quantization.build_target import BuildTarget
from tuning.quantization.gates import MAX_ACCURACY_DROP, MIN_SPEEDUP
from tuning.settings_base import ConnectionName, Section

MAX_TIMEOUT_S = 3600.0
MAX_BATCH_TIMEOUT_MS = 60_000.0
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TO_CONNECTION = "credentials belong into the connection, which keeps them out of files and to its own hosts"
_OURS = "it follows from the address and the body"
_NOT_HERE = {
    **dict.fromkeys(("authorization", "cookie", "proxy-authorization", "x-api-key", "api-key"), _TO_CONNECTION),
    **dict.fromkeys(("host", "content-length", "transfer-encoding", "connection", "content-encoding"), _OURS),
}
"""Headers that services.yaml must not set, and why."""


class EndpointOptions(Section):
    """A server that is told over HTTP."""

    connection: ConnectionName
    """Connection of the control endpoint."""

    endpoints: tuple[str, ...] = ()
    """Further replicas, where each has its own endpoint: names of connections, or addresses on the same host."""

    request_timeout_s: float = Field(5.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one control call may take, from the connection to the last byte."""


class TimeoutBounds(Section):
    """How far a batch timeout may be moved."""

    timeout_min_ms: float = Field(0.0, ge=0, le=MAX_BATCH_TIMEOUT_MS)
    """Shortest batch timeout that may be set."""

    timeout_max_ms: float = Field(20.0, ge=0, le=MAX_BATCH_TIMEOUT_MS)
    """Longest batch timeout that may be set."""

    @model_validator(mode="after")
    def _timeouts(self) -> Self:
        if self.timeout_min_ms > self.timeout_max_ms:
            raise ValueError(
                f"timeout_min ({self.timeout_min_ms:g}) is larger than timeout_max ({self.timeout_max_ms:g})"
            )
        return self


class BatchEndpointOptions(EndpointOptions, TimeoutBounds):
    """The batch lever of such a server."""

    canary: bool = True
    """Change one replica first and compare it with the others, where each has its own endpoint and its own P95."""


class HttpConfigOptions(BatchEndpointOptions):
    """http_config: batch size and batch timeout through `GET`/`POST /config`."""


class HttpRequest(Section):
    """What every request that services.yaml writes has."""

    headers: dict[str, str] = {}
    """Further headers. Credentials belong into the connection."""

    @field_validator("path", check_fields=False)
    @classmethod
    def _is_path(cls, value: str) -> str:
        return templates.check_path(value)

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _HEADER.fullmatch(name) or not text.isprintable() or not text.isascii():
                raise ValueError(f"{name!r} is no HTTP header with a printable value")
            if name.lower() in _NOT_HERE:
                raise ValueError(f"{name!r} must not stand here: {_NOT_HERE[name.lower()]}")
        return value

    @field_validator("body", check_fields=False)
    @classmethod
    def _is_json(cls, value: Any) -> Any:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError("holds something that JSON has no form for (a date? write it in quotes)") from error
        return value


class ReadOne(HttpRequest):
    """A request that shows what is in force; it must change nothing. place: what must not stand in it."""

    place: ClassVar[str]

    method: Literal["GET", "POST"] = "GET"
    """Its method."""

    path: str
    """Path below the connection's address."""

    body: Any = None
    """Body of a POST: any YAML, sent as JSON."""

    @field_validator(
        "batch_size_at",
        "batch_timeout_at",
        "version_at",
        "incarnation_at",
        "variant_at",
        "limit_at",
        check_fields=False,
    )
    @classmethod
    def _is_pointer(cls, value: str | None) -> str | None:
        return None if value is None else pointers.check(value)

    @model_validator(mode="after")
    def _as_it_is(self) -> Self:
        if templates.places(self.path) | templates.places(self.body):
            raise ValueError(
                f"the read request has nothing to fill in: write it without places such as {{{self.place}}}"
            )
        return self


class WriteOne(HttpRequest):
    """A request that brings one thing into force, so that sending it twice is sending it once. place: what is filled
    in. unnamed: what is wrong where it is nowhere ("" where it need not be)."""

    place: ClassVar[str]
    unnamed: ClassVar[str] = ""

    method: Literal["PUT", "POST", "PATCH"] = "POST"
    """Its method."""

    path: str

    body: Any = None

    @model_validator(mode="after")
    def _known_places(self) -> Self:
        found = templates.places(self.path) | templates.places(self.body)
        if unknown := found - {self.place}:
            raise ValueError(f"there is no place {{{min(unknown)}}}; known: {{{self.place}}}")
        if self.unnamed and self.place not in found:
            raise ValueError(f"{self.unnamed}: put {{{self.place}}} into its path or body")
        return self


class ReadRequest(ReadOne):
    """The request that shows what is in force; it must change nothing."""

    place: ClassVar[str] = "batch_size"

    batch_size_at: str
    """JSON pointer to the batch size in the answer, for example /batching/max_size."""

    batch_timeout_at: str | None = None
    """JSON pointer to the batch timeout; without it the timeout is never changed."""


class WriteRequest(HttpRequest):
    """The request that sets the knobs to given values, so that sending it twice is sending it once."""

    method: Literal["PUT", "POST", "PATCH"] = "PUT"
    """Its method."""

    path: str
    """Path below the connection's address; may hold {batch_size} and {batch_timeout}."""

    body: Any = None
    """Any YAML, sent as JSON. "{batch_size}", "{batch_timeout}" become numbers, "{current}" what current_at names."""

    current_at: str = ""
    """JSON pointer to the part of the read answer that is sent back, with the knobs changed, as "{current}"."""

    @field_validator("current_at")
    @classmethod
    def _is_pointer(cls, value: str) -> str:
        return pointers.check(value)

    @field_validator("body")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        bare = templates.unquoted(value)
        if bare:
            raise ValueError(f"{{{bare}}} without quotes is a mapping in YAML: write \"{{{bare}}}\"")
        return value

    @model_validator(mode="after")
    def _known_places(self) -> Self:
        unknown = sorted(self.places() - set(templates.PLACES))
        if unknown:
            known = ", ".join(f"{{{place}}}" for place in templates.PLACES)
            raise ValueError(f"there is no place {{{unknown[0]}}}; known: {known}")
        if "current" in templates.places(self.path):
            raise ValueError("{current} is a part of an answer and cannot stand in a path")
        return self

    def places(self) -> set[str]:
        """The places that are filled in when it is sent."""
        return templates.places(self.path) | templates.places(self.body)


class HttpOptions(BatchEndpointOptions):
    """http: batch size and batch timeout through requests that are written here."""

    read: ReadRequest
    """How what is in force is read."""

    write: WriteRequest
    """How it is set."""

    batch_timeout_unit: Literal["us", "ms", "s"] = "ms"
    """The unit of the server's own batch timeout."""

    @model_validator(mode="after")
    def _every_knob_can_be_set(self) -> Self:
        places, pointer_of = self.write.places(), {"batch_size": self.read.batch_size_at}
        if self.read.batch_timeout_at is not None:
            pointer_of["batch_timeout"] = self.read.batch_timeout_at
        elif "batch_timeout" in places:
            raise ValueError("write holds {batch_timeout}, but read.batch_timeout_at does not say where it is shown")
        for knob, pointer in pointer_of.items():
            back = "current" in places and pointers.below(pointer, self.write.current_at) is not None
            if knob not in places and not back:
                raise ValueError(f"write sets no {knob}: put {{{knob}}} into its path or body")
        return self


class ReadCommand(Section):
    """The program that shows what is in force; it must change nothing."""

    command: tuple[str, ...] = Field(min_length=1, max_length=100)
    """Its words, the first one the program; there is no shell."""

    batch_size_at: str = ""
    """JSON pointer to the batch size in what it prints; default: it prints that number and nothing else."""

    batch_timeout_at: str | None = None
    """JSON pointer to the batch timeout; without it the timeout is never changed."""

    @field_validator("command")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _words_of(value)

    @field_validator("batch_size_at", "batch_timeout_at")
    @classmethod
    def _is_pointer(cls, value: str | None) -> str | None:
        return None if value is None else pointers.check(value)

    @model_validator(mode="after")
    def _as_it_is(self) -> Self:
        if _knobs_in(self.command):
            raise ValueError("the read command has no knobs to fill in: write it without places such as {batch_size}")
        return self


class WriteCommand(Section):
    """The program that sets the knobs to given values, so that running it twice is running it once."""

    command: tuple[str, ...] = Field(min_length=1, max_length=100)
    """Its words, the first one the program; may hold {batch_size} and {batch_timeout}. There is no shell."""

    @field_validator("command")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _words_of(value)


class CommandOptions(TimeoutBounds):
    """command: batch size and batch timeout through a program that runs where the task runs."""

    connection: ConnectionName
    """Connection whose address, user and password the programs get as SLOTUNE_URL, SLOTUNE_USER, SLOTUNE_PASSWORD."""

    read: ReadCommand
    """How what is in force is read."""

    write: WriteCommand
    """How it is set."""

    batch_timeout_unit: Literal["us", "ms", "s"] = "ms"
    """The unit of the program's batch timeout."""

    request_timeout_s: float = Field(30.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one run of a program may take; then it is stopped, with all that it started."""

    @model_validator(mode="after")
    def _every_knob_can_be_set(self) -> Self:
        places = _knobs_in(self.write.command)
        known = {"batch_size"} | ({"batch_timeout"} if self.read.batch_timeout_at is not None else set())
        if places - known:
            raise ValueError(f"write has the place {{{min(places - known)}}}, and read does not show it")
        if known - places:
            raise ValueError(f"write sets no {min(known - places)}: put {{{min(known - places)}}} into its command")
        return self


def _knobs_in(command: tuple[str, ...]) -> set[str]:
    """The knobs that a command has places for; other braces are the program's own."""
    return {place for word in command for place in templates.places(word)} & {"batch_size", "batch_timeout"}


def _words_of(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command[0].strip() or any("\0" in word for word in command):
        raise ValueError("must be the program and its words, for example [/opt/tool, --batch, \"{batch_size}\"]")
    return command


class KubernetesPatchOptions(TimeoutBounds):
    """kubernetes_patch: batch size and batch timeout in fields of an object that an operator reads."""

    connection: ConnectionName
    """Connection of the cluster's API server."""

    namespace: str = Field(min_length=1)
    """Namespace of the object."""

    kind: str = Field(min_length=1)
    """Its kind: group/version/plural (serving.kserve.io/v1beta1/inferenceservices), or v1/configmaps."""

    target: str = Field(min_length=1)
    """Its name."""

    batch_size_at: str
    """JSON pointer to the batch size, for example /spec/predictor/containerConcurrency; it has to be there."""

    batch_timeout_at: str | None = None
    """JSON pointer to the batch timeout; without it the timeout is never changed."""

    batch_timeout_unit: Literal["us", "ms", "s"] = "ms"
    """The unit of the object's batch timeout."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""

    @field_validator("batch_size_at", "batch_timeout_at")
    @classmethod
    def _is_pointer(cls, value: str | None) -> str | None:
        return None if value is None else _of_a_wish(value)

    @model_validator(mode="after")
    def _not_a_rollout(self) -> Self:
        for place in filter(None, (self.batch_size_at, self.batch_timeout_at)):
            waits = "a pod template is changed by the actuator pod_spec, which waits for the rollout"
            _no_rollout(self.kind, place, waits)
        return self


def _of_a_wish(pointer: str) -> str:
    """The pointer itself; ValueError (a sentence) where it leads to nothing that people wish."""
    top = pointers.steps(pointers.check(pointer))[:1]
    if top in ([], ["metadata"], ["status"], ["kind"], ["apiVersion"]):
        raise ValueError("must lead to a field of what people wish (/spec/..., /data/...)")
    return pointer


def _no_rollout(kind: str, pointer: str, template: str) -> None:
    """ValueError where a field is another lever's. template: what to say of a pod template."""
    workload = kind in ("Deployment", "StatefulSet") or kind.startswith("apps/")
    if workload and pointers.below(pointer, "/spec/template") is not None:
        raise ValueError(template)
    if pointers.steps(pointer)[-1:] in (["replicas"], ["minReplicas"], ["maxReplicas"]):
        raise ValueError("replicas are changed by the lever replicas, which knows who owns them")


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

    knob: Literal["batch_size", "max_num_seqs"] | None = None
    """What that number limits: rows of a batch, or requests that run at once in a language model's engine (the default
    where the preset is one of a language model)."""

    tokens_arg: str = ""
    """Command-line argument that holds the tokens of one iteration, for example --max-num-batched-tokens; default: it
    is left alone."""

    tokens_min: int = Field(256, ge=1)
    """Fewest tokens of one iteration that may be set."""

    tokens_max: int = Field(8192, ge=1)
    """Most tokens of one iteration that may be set."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""

    rollout_timeout_s: float = Field(600.0, gt=0)
    """After this long without a finished rollout the old pod template is put back."""

    @model_validator(mode="after")
    def _place(self) -> Self:
        if not (self.env or self.arg):
            raise ValueError("actuator pod_spec needs the place of the batch size: env or arg")
        if self.tokens_min > self.tokens_max:
            raise ValueError(f"tokens_min ({self.tokens_min}) is larger than tokens_max ({self.tokens_max})")
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


class ReadVersion(ReadOne):
    """The request that shows which version serves; it must change nothing."""

    place: ClassVar[str] = "version"

    version_at: str
    """JSON pointer to the version that serves in the answer, for example /served_version."""


class WriteVersion(WriteOne):
    """The request that brings a version into service, so that sending it twice is sending it once."""

    place: ClassVar[str] = "version"
    unnamed: ClassVar[str] = "write names no version"

    path: str
    """Path below the connection's address; may hold {version}."""

    body: Any = None
    """Any YAML, sent as JSON; may hold "{version}"."""


class HttpReleaseOptions(EndpointOptions):
    """http_release: the version that serves, through requests that are written here."""

    read: ReadVersion
    """How the version that serves is read."""

    write: WriteVersion
    """How another one is brought into service."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading a version may take."""


class TritonReleaseOptions(EndpointOptions):
    """triton_release: the version that answers on Triton, through `version_policy`."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading a version may take."""


class ReadIncarnation(ReadOne):
    """The request that shows which process answers; it must change nothing."""

    place: ClassVar[str] = "incarnation"

    incarnation_at: str
    """JSON pointer to what every start of the process makes anew (its start time, a boot id), for example
    /started_at."""


class WriteRestart(WriteOne):
    """The request that makes one replica finish what it has begun and start again; {incarnation}, where the server can
    take it, keeps a request that comes late from ending the next process."""

    place: ClassVar[str] = "incarnation"

    path: str
    """Path below the connection's address; may hold {incarnation}."""

    body: Any = None
    """Any YAML, sent as JSON; may hold "{incarnation}"."""


class HttpRestartOptions(EndpointOptions):
    """http_restart: one replica, through requests to its own endpoint that are written here."""

    read: ReadIncarnation
    """How it is told which process answers."""

    write: WriteRestart
    """How it is told to drain and start again."""

    restart_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long the next process may take to answer."""


class KubernetesRestartOptions(Section):
    """kubernetes_restart: the pod of one replica is evicted, and its owner makes the next one."""

    connection: ConnectionName
    """Connection of the cluster's API server."""

    namespace: str = Field(min_length=1)
    """Namespace of the workload."""

    kind: str = "Deployment"
    """Kind of the workload: Deployment, StatefulSet, or a scalable custom resource as group/version/plural."""

    target: str = Field(min_length=1)
    """Name of the workload."""

    port: int = Field(8000, ge=1, le=65535)
    """The port by which Prometheus calls a pod (podIP:port is its label), where the label is not the pod's name."""

    grace_s: float | None = Field(None, ge=0)
    """How long the pod may take to finish what it has begun; default: what the pod itself says."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""

    ready_timeout_s: float = Field(300.0, gt=0)
    """How long the next pod may take to be ready."""

    budget_timeout_s: float = Field(60.0, ge=0)
    """For how long an eviction that a PodDisruptionBudget does not allow is tried again."""


class MlflowReleaseOptions(EndpointOptions):
    """mlflow_release: the version that an alias of MLflow's registry names. One connection: the MLflow server's."""

    model: str = ""
    """The registered model's name; default: the service's name."""

    alias: str = Field("champion", pattern=r"^[A-Za-z0-9_-]{1,255}$")
    """The alias that the server follows."""


class KubernetesReleaseOptions(Section):
    """kubernetes_release: a Deployment back to the pod template of an earlier ReplicaSet."""

    connection: ConnectionName
    """Connection of the cluster's API server."""

    namespace: str = Field(min_length=1)
    """Namespace of the Deployment."""

    target: str = Field(min_length=1)
    """Name of the Deployment."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""

    rollout_timeout_s: float = Field(600.0, gt=0)
    """After this long without a finished rollout the newer pod template is put back."""


class Variant(Section):
    """One way of answering: the whole model, a smaller one, another engine, a cache."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name, in plans and mails."""

    value: str = Field("", max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """What the server, or the gateway, calls it: a version, an alias, a route; default: its name."""

    quality: float = Field(ge=0, le=1)
    """Share of right answers that was measured on held-back rows (accuracy, or agreement with the first one)."""

    service_time: float | None = Field(None, gt=0, le=100)
    """How long a batch takes, over what it takes with the first one (0.4); without it the variant is not chosen before
    it has served for a while in calm traffic, from which it is learned."""

    @field_validator("value", mode="before")
    @classmethod
    def _number_too(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class VariantOptions(Section):
    """What every variant lever has."""

    variants: tuple[Variant, ...]
    """At least two, the best first: it is what serves normally, and what every switch leads back to."""

    quality_of: str = Field(min_length=1, max_length=120)
    """What `quality` is and where it was measured, for mails: "top-1 accuracy on 5,000 held-back rows"."""

    @field_validator("variants")
    @classmethod
    def _ordered(cls, value: tuple[Variant, ...]) -> tuple[Variant, ...]:
        if len(value) < 2:
            raise ValueError("needs at least two: first the one that serves normally, which is the way back")
        for what, told in (("name", [v.name for v in value]), ("value", [v.value or v.name for v in value])):
            twice = next((one for one in told if told.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"two variants have the {what} {twice}: nobody could tell which of them serves")
        for better, other in itertools.pairwise(value):
            if other.quality > better.quality:
                raise ValueError(
                    f"must be ordered by quality, the best first: {other.name} ({other.quality:.2%}) stands after "
                    f"{better.name} ({better.quality:.2%})"
                )
        if value[0].service_time not in (None, 1.0):
            raise ValueError(f"service_time is told against the first one: leave it out at {value[0].name}")
        for other in value[1:]:
            if other.service_time is not None and other.service_time >= 1:
                raise ValueError(
                    f"{other.name} takes {other.service_time:g} times as long as {value[0].name}: a variant that is no "
                    "faster relieves nothing"
                )
        return value


class ReadVariant(ReadOne):
    """The request that shows which variant serves; it must change nothing."""

    place: ClassVar[str] = "variant"

    variant_at: str
    """JSON pointer to the variant that serves in the answer, for example /served_version."""


class WriteVariant(WriteOne):
    """The request that switches to a variant, so that sending it twice is sending it once."""

    place: ClassVar[str] = "variant"
    unnamed: ClassVar[str] = "write names no variant, so that there is no way back"

    path: str
    """Path below the connection's address; may hold {variant}."""

    body: Any = None
    """Any YAML, sent as JSON; may hold "{variant}"."""


class HttpVariantOptions(VariantOptions, EndpointOptions):
    """http_variant: which variant serves, at the server or at a gateway, through requests that are written here."""

    read: ReadVariant
    """How the variant that serves is read."""

    write: WriteVariant
    """How another one is switched to."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long a switch may take (a model load)."""


class TritonVariantOptions(VariantOptions, EndpointOptions):
    """triton_variant: variants that are versions of one Triton model, through `version_policy`."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading a version may take."""

    @field_validator("variants")
    @classmethod
    def _are_versions(cls, value: tuple[Variant, ...]) -> tuple[Variant, ...]:
        for variant in value:
            if not (variant.value or variant.name).isdigit():
                raise ValueError(f"{variant.name} needs the number of its version: value: 2")
        return value


class AdmissionOptions(Section):
    """What every admission lever has."""

    max_refused: float = Field(0.8, gt=0, lt=1)
    """Largest share of the requests that may be refused, as predicted; a limit that would refuse more is not set."""


class CountedOptions(AdmissionOptions):
    """A limit of which it has to be said what it counts."""

    limits: Literal["queue", "concurrency", "rate"]
    """What it counts: requests that wait, requests that wait or are computed, or requests a second."""

    per: Literal["replica", "service"] = "replica"
    """Whether each replica has the limit for itself, or all of them share one (a gateway's)."""

    unlimited: Literal[-1, 0] | None = None
    """The value that means "no limit" there. Without it 0 and -1 are no ground for a plan."""


class ReadLimit(ReadOne):
    """The request that shows the limit that is in force; it must change nothing."""

    place: ClassVar[str] = "limit"

    limit_at: str
    """JSON pointer to the limit in the answer, for example /max_queue."""


class WriteLimit(WriteOne):
    """The request that sets the limit, so that sending it twice is sending it once."""

    place: ClassVar[str] = "limit"
    unnamed: ClassVar[str] = "write sets no limit, so that there is no way back"

    path: str
    """Path below the connection's address; may hold {limit}."""

    body: Any = None
    """Any YAML, sent as JSON; "{limit}" becomes a number."""


class HttpAdmissionOptions(CountedOptions, EndpointOptions):
    """http_admission: a limit at the server or at a gateway, through requests that are written here."""

    read: ReadLimit
    """How the limit that is in force is read."""

    write: WriteLimit
    """How another one is set."""


class TritonAdmissionOptions(AdmissionOptions, EndpointOptions):
    """triton_admission: max_queue_size of a Triton model's dynamic batcher."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    load_timeout_s: float = Field(60.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading the model may take; large models and warm-up need more."""


class KubernetesAdmissionOptions(CountedOptions):
    """kubernetes_admission: a limit in a field of an object that a gateway or an operator reads."""

    connection: ConnectionName
    """Connection of the cluster's API server."""

    namespace: str = Field(min_length=1)
    """Namespace of the object."""

    kind: str = Field(min_length=1)
    """Its kind: group/version/plural (networking.istio.io/v1/destinationrules), or v1/configmaps."""

    target: str = Field(min_length=1)
    """Its name."""

    limit_at: str
    """JSON pointer to the limit, for example /spec/trafficPolicy/connectionPool/http/http1MaxPendingRequests."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""

    @field_validator("limit_at")
    @classmethod
    def _is_pointer(cls, value: str) -> str:
        return _of_a_wish(value)

    @model_validator(mode="after")
    def _not_a_rollout(self) -> Self:
        restarts = "a pod template is no place of a limit: its change restarts every replica"
        _no_rollout(self.kind, self.limit_at, restarts)
        return self


STATES = ("closed", "half_open", "open")
"""Where a circuit stands."""


class RouteStates(Section):
    """What the endpoint calls the states of a route: a weight, a word."""

    closed: str = Field("closed", min_length=1, max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """It gets its share of the requests."""

    half_open: str = Field("half_open", min_length=1, max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """It gets a few of them, to see: a small weight."""

    open: str = Field("open", min_length=1, max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """It gets none."""

    @field_validator("closed", "half_open", "open", mode="before")
    @classmethod
    def _number_too(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        told = [self.called(state) for state in STATES]
        if len(set(told)) < len(told):
            raise ValueError(f"two states are called the same ({', '.join(told)}): nobody could tell them apart")
        return self

    def called(self, state: str) -> str:
        """What the endpoint calls a state."""
        found: str = getattr(self, state)
        return found


class Route(Section):
    """One way that requests go: a dependency, a replica, a version, a backend."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name, in plans and mails."""

    value: str = Field("", max_length=120)
    """What the endpoint calls it; default: its name."""

    state_at: str
    """JSON pointer to its state in the answer of the read request, for example /routes/eu/weight."""

    capacity: float = Field(gt=0)
    """Requests per second that it carries: a route is taken out only where the others carry what comes."""

    failed: str = ""
    """The signal of this service (`signals:`) that shows the share of its requests that fail, 0 to 1."""

    max_failed: float = Field(0.5, gt=0, le=1)
    """Share of failed requests from which it is taken out."""

    p95: str = ""
    """The signal of this service (`signals:`) that shows its P95, in ms."""

    max_p95_ms: float | None = Field(None, gt=0)
    """P95 from which it is taken out."""

    @field_validator("state_at")
    @classmethod
    def _is_pointer(cls, value: str) -> str:
        return pointers.check(value)

    @model_validator(mode="after")
    def _seen(self) -> Self:
        if not (self.failed or self.p95):
            raise ValueError(f"{self.name} needs a signal of its own: failed or p95")
        if bool(self.p95) != (self.max_p95_ms is not None):
            raise ValueError(f"{self.name} needs both p95 (the signal) and max_p95 (its limit), or neither")
        return self


class ReadRoutes(ReadOne):
    """The request that shows where every route stands; it must change nothing."""

    place: ClassVar[str] = "route"


class WriteRoute(HttpRequest):
    """The request that sets one route's state, so that sending it twice is sending it once."""

    method: Literal["PUT", "POST", "PATCH"] = "PUT"
    """Its method."""

    path: str
    """Path below the connection's address; may hold {route} and {state}."""

    body: Any = None
    """Any YAML, sent as JSON; may hold "{route}" and "{state}" (a number where the state is called by one)."""

    @model_validator(mode="after")
    def _places(self) -> Self:
        found = templates.places(self.path) | templates.places(self.body)
        if unknown := found - {"route", "state"}:
            raise ValueError(f"there is no place {{{min(unknown)}}}; known: {{route}}, {{state}}")
        if missing := {"route", "state"} - found:
            raise ValueError(f"write names no {min(missing)}: put {{{min(missing)}}} into its path or body")
        return self


class HttpBreakerOptions(EndpointOptions):
    """http_breaker: whether routes get requests, at a gateway or a service, through requests that are written here."""

    routes: tuple[Route, ...]
    """At least two: what one of them does not get, the others carry."""

    states: RouteStates = RouteStates()
    """What the endpoint calls closed, half-open and open."""

    open_for_s: float = Field(60.0, gt=0, le=86_400)
    """How long a route gets nothing before it is probed; twice as long after each probe that failed."""

    open_max_s: float = Field(3600.0, gt=0, le=86_400)
    """The longest of these rests."""

    probe_for_s: float = Field(60.0, gt=0, le=86_400)
    """How long a probe has to go well, from when its signals show it."""

    read: ReadRoutes
    """How it is read where the routes stand."""

    write: WriteRoute
    """How a route's state is set."""

    @field_validator("routes")
    @classmethod
    def _apart(cls, value: tuple[Route, ...]) -> tuple[Route, ...]:
        if len(value) < 2:
            raise ValueError("needs at least two: without the only one nothing would be answered")
        for what, told in (("name", [r.name for r in value]), ("value", [r.value or r.name for r in value])):
            twice = next((one for one in told if told.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"two routes have the {what} {twice}")
        return value

    @model_validator(mode="after")
    def _rests(self) -> Self:
        if self.open_max_s < self.open_for_s:
            raise ValueError(f"open_max ({self.open_max_s:g} s) is shorter than open_for ({self.open_for_s:g} s)")
        return self


OPTIONS: dict[str, type[Section]] = {
    "command": CommandOptions,
    "http": HttpOptions,
    "http_admission": HttpAdmissionOptions,
    "http_breaker": HttpBreakerOptions,
    "http_config": HttpConfigOptions,
    "http_release": HttpReleaseOptions,
    "http_restart": HttpRestartOptions,
    "http_variant": HttpVariantOptions,
    "kubernetes": KubernetesOptions,
    "kubernetes_admission": KubernetesAdmissionOptions,
    "kubernetes_patch": KubernetesPatchOptions,
    "kubernetes_release": KubernetesReleaseOptions,
    "kubernetes_restart": KubernetesRestartOptions,
    "mlflow_release": MlflowReleaseOptions,
    "model_repository": ModelRepositoryOptions,
    "pod_spec": PodSpecOptions,
    "triton": TritonOptions,
    "triton_admission": TritonAdmissionOptions,
    "triton_release": TritonReleaseOptions,
    "triton_repository": TritonRepositoryOptions,
    "triton_variant": TritonVariantOptions,
}
"""By the name of the actuator; a test holds it against the registry."""
