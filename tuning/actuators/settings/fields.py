"""What every lever over Kubernetes' API can be told, and which fields of an object it may write: what people wish, and
nothing that is another lever's."""

from __future__ import annotations

from pydantic import Field

from tuning.actuators import _json_pointer as pointers
from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S
from tuning.settings_base import ConnectionName, Section


class ClusterOptions(Section):
    """An object of a cluster."""

    connection: ConnectionName
    """Connection of the cluster's API server."""

    namespace: str = Field(min_length=1)
    """Namespace of the object."""

    target: str = Field(min_length=1)
    """Name of the object."""

    request_timeout_s: float = Field(10.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one call to the API server may take."""


def of_a_wish(pointer: str) -> str:
    """The pointer itself; ValueError (a sentence) where it leads to nothing that people wish."""
    top = pointers.steps(pointers.check(pointer))[:1]
    if top in ([], ["metadata"], ["status"], ["kind"], ["apiVersion"]):
        raise ValueError("must lead to a field of what people wish (/spec/..., /data/...)")
    return pointer


def no_rollout(kind: str, pointer: str, template: str) -> None:
    """ValueError where a field is another lever's. template: what to say of a pod template."""
    workload = kind in ("Deployment", "StatefulSet") or kind.startswith("apps/")
    if workload and pointers.below(pointer, "/spec/template") is not None:
        raise ValueError(template)
    if pointers.steps(pointer)[-1:] in (["replicas"], ["minReplicas"], ["maxReplicas"]):
        raise ValueError("replicas are changed by the lever replicas, which knows who owns them")
