"""The lever of replicas."""

from __future__ import annotations

from pydantic import Field

from tuning.actuators.settings.fields import ClusterOptions


class KubernetesOptions(ClusterOptions):
    """kubernetes: replicas through their owner (HPA bounds, KEDA bounds, or the scale subresource)."""

    kind: str = "Deployment"
    """Kind of the workload: Deployment, StatefulSet, or a scalable custom resource as group/version/plural."""

    hpa: str | None = None
    """Name of its HorizontalPodAutoscaler; default: found by scaleTargetRef."""

    unschedulable_after_s: float = Field(300.0, gt=0)
    """A scale-up whose pods stay unschedulable this long is undone and reported as "no capacity"."""

    stand_down_s: float = Field(3600.0, ge=0)
    """After somebody else wrote the replicas by hand, slotune leaves them alone for this long."""
