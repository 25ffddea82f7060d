"""Control endpoints that are pods: every ready pod of a workload, found anew at each call.

Labels are anybody's to set, so a pod counts only when the workload (or a ReplicaSet of the workload) is its controller,
by uid: credentials go to nobody else.

A connection with the address pods://NAMESPACE/NAME?port=8000&cluster=CONNECTION (and kind=StatefulSet or
group/version/plural where it is no Deployment). A pod whose annotation slotune/port names a port listens there instead.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from tuning.actuators._http import elsewhere
from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import BUILT_IN, scale_ref, scale_view
from tuning.actuators._kubernetes_pods import controller
from tuning.actuators._kubernetes_shape import Object
from tuning.errors import ConfigError, ControlUnreachable
from tuning.ports import Connection, Connections

PORT_ANNOTATION = "slotune/port"


def pod_connections(connections: Connections, connection: Connection) -> list[Connection]:
    """One connection per ready pod, named as the pod is, with the credentials of the given one.

    Raises ConfigError (a part of the address is missing), ControlUnreachable (no pod is ready), and what listing pods
    raises.
    """
    cluster_name, workload, port = _target(connection)
    own, strangers = own_pods(Cluster(connections, cluster_name), workload)
    told = [pod for pod in own if is_ready(pod) and _usable(str((pod.get("status") or {}).get("podIP") or ""))]
    found = sorted(told, key=lambda pod: str(pod["metadata"]["name"]))
    if not found:
        foreign = f" ({len(strangers)} pods carry its labels and are not its own)" if strangers else ""
        raise ControlUnreachable(
            f"{workload.namespace}/{workload.name} has no ready pod{foreign}: there is nobody to tell"
        )
    return [elsewhere(connection, str(pod["metadata"]["name"]), _address(pod, port)) for pod in found]


def pod_rights(connection: Connection) -> list[tuple[str, Ref]]:
    """What slotune's Role has to grant for finding the pods, as (verb, object). Raises ConfigError."""
    _, workload, _ = _target(connection)
    return rights_to_find(workload)


def rights_to_find(workload: Ref) -> list[tuple[str, Ref]]:
    """What finding the pods of a workload (by its scale) takes."""
    rights = [("get", workload), ("list", Ref("", "v1", "pods", workload.namespace))]
    return rights if _is_stateful_set(workload) else [*rights, ("list", _replica_sets(workload))]


def own_pods(cluster: Cluster, workload: Ref) -> tuple[list[Object], list[Object]]:
    """(the pods that a workload has made, those that merely carry its labels). workload: its scale."""
    scale = scale_view(cluster, workload)
    selector = str((scale.get("status") or {}).get("selector") or "")
    pods = cluster.items(Ref("", "v1", "pods", workload.namespace), selector) if selector else []
    makers = _makers(cluster, workload, str(scale["metadata"].get("uid") or ""), selector)
    own = [pod for pod in pods if controller(pod).get("uid") in makers]
    return own, [pod for pod in pods if controller(pod).get("uid") not in makers]


def _makers(cluster: Cluster, workload: Ref, uid: str, selector: str) -> set[str]:
    """The uids of those who make the workload's pods: itself, and its ReplicaSets."""
    if not uid:
        return set()
    if _is_stateful_set(workload) or not selector:
        return {uid}
    sets = cluster.items(_replica_sets(workload), selector)
    return {uid, *(str(s["metadata"].get("uid")) for s in sets if controller(s).get("uid") == uid)}


def _is_stateful_set(workload: Ref) -> bool:
    return (workload.group, workload.version, workload.plural) == BUILT_IN["StatefulSet"]


def _replica_sets(workload: Ref) -> Ref:
    return Ref("apps", "v1", "replicasets", workload.namespace)


def may(connections: Connections, connection: Connection, verb: str, ref: Ref) -> bool:
    """Whether the credentials of a pods:// connection's cluster have one right (changes nothing)."""
    return Cluster(connections, _target(connection)[0]).may(verb, ref)


def _target(connection: Connection) -> tuple[str, Ref, str]:
    """(the cluster's connection, the workload's scale, the port)."""
    parts = urlsplit(connection.url)
    namespace, name = parts.netloc, parts.path.strip("/")
    cluster_name, port = str(connection.extra.get("cluster") or ""), str(connection.extra.get("port") or "")
    if not (namespace and name and cluster_name and port.isascii() and port.isdigit()):
        raise ConfigError(
            f"the connection {connection.name} must look like pods://NAMESPACE/NAME?port=8000&cluster=CONNECTION"
        )
    return cluster_name, scale_ref(namespace, str(connection.extra.get("kind") or "Deployment"), name), port


def is_ready(pod: Object) -> bool:
    """Whether it takes requests, and is not leaving."""
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
    return bool(ready and not meta.get("deletionTimestamp"))


def _usable(ip: str) -> bool:
    """Whether it is the address of a machine: no name, no address that stands for several, or for the link's own."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_multicast or address.is_link_local)


def _address(pod: Object, port: str) -> str:
    return f"http://{place(pod, port)}"


def place(pod: Object, port: str) -> str:
    """host:port of a pod that has an address."""
    own = str((pod["metadata"].get("annotations") or {}).get(PORT_ANNOTATION) or "")
    ip = str(pod["status"]["podIP"])
    usable = own.isascii() and own.isdigit() and 0 < int(own[:6]) < 65536
    return f"{f'[{ip}]' if ':' in ip else ip}:{own if usable else port}"
