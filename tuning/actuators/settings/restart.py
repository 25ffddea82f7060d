"""The levers that restart one replica."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S, EndpointOptions, ReadOne, WriteOne
from tuning.actuators.settings.fields import ClusterOptions


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


class KubernetesRestartOptions(ClusterOptions):
    """kubernetes_restart: the pod of one replica is evicted, and its owner makes the next one."""

    kind: str = "Deployment"
    """Kind of the workload: Deployment, StatefulSet, or a scalable custom resource as group/version/plural."""

    port: int = Field(8000, ge=1, le=65535)
    """The port by which Prometheus calls a pod (podIP:port is its label), where the label is not the pod's name."""

    grace_s: float | None = Field(None, ge=0)
    """How long the pod may take to finish what it has begun; default: what the pod itself says."""

    ready_timeout_s: float = Field(300.0, gt=0)
    """How long the next pod may take to be ready."""

    budget_timeout_s: float = Field(60.0, ge=0)
    """For how long an eviction that a PodDisruptionBudget does not allow is tried again."""
