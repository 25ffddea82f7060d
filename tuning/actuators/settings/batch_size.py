"""The levers of batch size and batch timeout over HTTP and in Kubernetes fields."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _request_template as templates
from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S, EndpointOptions, HttpRequest, ReadOne
from tuning.actuators.settings.fields import ClusterOptions, no_rollout, of_a_wish
from tuning.settings_base import Section

MAX_BATCH_TIMEOUT_MS = 60_000.0


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
            raise ValueError(f'{{{bare}}} without quotes is a mapping in YAML: write "{{{bare}}}"')
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


class KubernetesPatchOptions(ClusterOptions, TimeoutBounds):
    """kubernetes_patch: batch size and batch timeout in fields of an object that an operator reads."""

    kind: str = Field(min_length=1)
    """Its kind: group/version/plural (serving.kserve.io/v1beta1/inferenceservices), or v1/configmaps."""

    batch_size_at: str
    """JSON pointer to the batch size, for example /spec/predictor/containerConcurrency; it has to be there."""

    batch_timeout_at: str | None = None
    """JSON pointer to the batch timeout; without it the timeout is never changed."""

    batch_timeout_unit: Literal["us", "ms", "s"] = "ms"
    """The unit of the object's batch timeout."""

    @field_validator("batch_size_at", "batch_timeout_at")
    @classmethod
    def _is_pointer(cls, value: str | None) -> str | None:
        return None if value is None else of_a_wish(value)

    @model_validator(mode="after")
    def _not_a_rollout(self) -> Self:
        for place in filter(None, (self.batch_size_at, self.batch_timeout_at)):
            waits = "a pod template is changed by the actuator pod_spec, which waits for the rollout"
            no_rollout(self.kind, place, waits)
        return self


class TritonOptions(BatchEndpointOptions):
    """triton: batch size and queue delay through Triton's repository load API."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    load_timeout_s: float = Field(60.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading the model may take; large models and warm-up need more."""


class PodSpecOptions(ClusterOptions):
    """pod_spec: batch size in an environment variable or argument of the pod template."""

    kind: Literal["Deployment", "StatefulSet"] = "Deployment"
    """Kind of the workload."""

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

    rollout_timeout_s: float = Field(600.0, gt=0)
    """After this long without a finished rollout the old pod template is put back."""

    @model_validator(mode="after")
    def _place(self) -> Self:
        if not (self.env or self.arg):
            raise ValueError("actuator pod_spec needs the place of the batch size: env or arg")
        if self.tokens_min > self.tokens_max:
            raise ValueError(f"tokens_min ({self.tokens_min}) is larger than tokens_max ({self.tokens_max})")
        return self
