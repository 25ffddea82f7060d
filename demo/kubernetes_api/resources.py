"""The kinds that the stand-in serves, and how a path names one of their objects."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """One served kind. group "" is the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    scalable: bool = False

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


HPA = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
DEPLOYMENT = Resource("apps", "v1", "deployments", "Deployment", scalable=True)
STATEFUL_SET = Resource("apps", "v1", "statefulsets", "StatefulSet", scalable=True)
REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet", scalable=True)
POD = Resource("", "v1", "pods", "Pod")
EVENT = Resource("", "v1", "events", "Event")
NAMESPACE = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
SCALED_OBJECT = Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
BUDGET = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
LEASE = Resource("coordination.k8s.io", "v1", "leases", "Lease")
ACCESS_REVIEW = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
SERVED = (
    HPA, DEPLOYMENT, STATEFUL_SET, REPLICA_SET, POD, EVENT, NAMESPACE, SCALED_OBJECT, LEASE, BUDGET, ACCESS_REVIEW,
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """What a path points at. name "" is the collection; sub is "", "scale", "log" or "eviction"."""

    resource: Resource
    namespace: str | None
    name: str
    sub: str


_PATH = re.compile(
    r"^/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?/?$"
)


def parse(path: str, served: tuple[Resource, ...]) -> Address | None:
    """The address that a path names; None where nothing is served."""
    found = _PATH.match(path)
    if not found:
        return None
    group = found["group"] or ""
    for resource in served:
        if (resource.group, resource.version, resource.plural) == (group, found["version"], found["plural"]):
            sub = found["sub"] or ""
            own = (sub == "scale" and resource.scalable) or (sub in ("log", "eviction") and resource == POD)
            if sub not in ("", "status") and not own:
                return None
            return Address(resource, found["namespace"], found["name"] or "", sub)
    return None
