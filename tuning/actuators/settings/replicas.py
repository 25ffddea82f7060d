"""The lever of replicas."""

from __future__ import annotations

from pydantic import Field

from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S
from tuning.settings_base import ConnectionName, Section


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
