"""The levers of how many requests are let in."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S, EndpointOptions, ReadOne, WriteOne
from tuning.actuators.settings.fields import ClusterOptions, no_rollout, of_a_wish
from tuning.settings_base import Section


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


class KubernetesAdmissionOptions(ClusterOptions, CountedOptions):
    """kubernetes_admission: a limit in a field of an object that a gateway or an operator reads."""

    kind: str = Field(min_length=1)
    """Its kind: group/version/plural (networking.istio.io/v1/destinationrules), or v1/configmaps."""

    limit_at: str
    """JSON pointer to the limit, for example /spec/trafficPolicy/connectionPool/http/http1MaxPendingRequests."""

    @field_validator("limit_at")
    @classmethod
    def _is_pointer(cls, value: str) -> str:
        return of_a_wish(value)

    @model_validator(mode="after")
    def _not_a_rollout(self) -> Self:
        restarts = "a pod template is no place of a limit: its change restarts every replica"
        no_rollout(self.kind, self.limit_at, restarts)
        return self
