"""The levers of the version that serves."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S, EndpointOptions, ReadOne, WriteOne
from tuning.actuators.settings.fields import ClusterOptions


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


class MlflowReleaseOptions(EndpointOptions):
    """mlflow_release: the version that an alias of MLflow's registry names. One connection: the MLflow server's."""

    model: str = ""
    """The registered model's name; default: the service's name."""

    alias: str = Field("champion", pattern=r"^[A-Za-z0-9_-]{1,255}$")
    """The alias that the server follows."""


class KubernetesReleaseOptions(ClusterOptions):
    """kubernetes_release: a Deployment back to the pod template of an earlier ReplicaSet."""

    rollout_timeout_s: float = Field(600.0, gt=0)
    """After this long without a finished rollout the newer pod template is put back."""
