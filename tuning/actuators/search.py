"""Which workload is behind pods that somebody has seen, and who decides its replicas: for `slotune discover`.

Read-only: pods, ReplicaSets, HPAs, ScaledObjects and the scale subresource of one namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import BUILT_IN, find_owner, scale_ref
from tuning.actuators._kubernetes_pods import controller
from tuning.actuators._kubernetes_shape import Object
from tuning.errors import SlotuneError
from tuning.ports import Connections


@dataclass(frozen=True)
class Behind:
    """The workload behind some pods. port: where they were seen, None where they differ. owner: who decides its
    replicas, in words. low, high: the bounds that stand there now (the number itself where nobody owns it)."""

    namespace: str
    kind: str
    name: str
    pods: int
    port: int | None
    owner: str
    low: int
    high: int


def behind(connections: Connections, connection: str, namespace: str, addresses: Iterable[str]) -> Behind | None:
    """The one workload whose pods are at these addresses (host:port); None where no pod is, or several workloads are.

    Raises ConfigError, ControlUnreachable, ControlRefused (a right that is missing says which).
    """
    cluster = Cluster(connections, connection)
    seen = dict(address.rpartition(":")[::2] for address in addresses)
    pods = [pod for pod in cluster.items(Ref("", "v1", "pods", namespace)) if _host(pod, seen)]
    makers = {maker for pod in pods if (maker := _maker(cluster, namespace, pod)) is not None}
    if len(makers) != 1:
        return None
    kind, name = makers.pop()
    ports = {seen[host] for pod in pods if (host := _host(pod, seen))}
    port = int(port_text) if len(ports) == 1 and (port_text := ports.pop()).isdecimal() else None
    owner, low, high = _owner(cluster, namespace, kind, name, len(pods))
    return Behind(namespace, kind, name, len(pods), port, owner, low, high)


def _host(pod: Object, seen: dict[str, str]) -> str:
    """The host by which a pod was seen, "" where it was not: its address, or its name."""
    given = ((pod.get("status") or {}).get("podIP"), pod["metadata"].get("name"))
    return next((str(host) for host in given if host and str(host) in seen), "")


def _maker(cluster: Cluster, namespace: str, pod: Object) -> tuple[str, str] | None:
    """(kind, name) of the workload that made a pod; None for one of a kind that slotune does not scale."""
    ref = controller(pod)
    if ref.get("kind") == "ReplicaSet":
        ref = controller(cluster.get(Ref("apps", "v1", "replicasets", namespace, str(ref.get("name")))))
    kind, name = str(ref.get("kind") or ""), str(ref.get("name") or "")
    return (kind, name) if kind in BUILT_IN and name else None


def _owner(cluster: Cluster, namespace: str, kind: str, name: str, pods: int) -> tuple[str, int, int]:
    try:
        owner = find_owner(cluster, scale_ref(namespace, kind, name), None)
        values = owner.values()
    except SlotuneError as error:
        return f"its owner cannot be told: {error}", pods, pods
    low = values.get("min_replicas", values.get("replicas", pods))
    high = values.get("max_replicas", low)
    words = "no autoscaler" if owner.kind == "none" else owner.name
    return words, int(float(low or 0)), int(float(high or 0))
