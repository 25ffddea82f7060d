"""Control endpoints that are pods: every ready pod of a workload, found anew at each call.

A connection with the address pods://NAMESPACE/NAME?port=8000&cluster=CONNECTION (and kind=StatefulSet or
group/version/plural where it is no Deployment). A pod whose annotation slotune/port names a port listens there instead.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from tuning.actuators._http import elsewhere
from tuning.actuators._kubernetes_client import Cluster, Object
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import scale_ref
from tuning.errors import ConfigError, ControlUnreachable
from tuning.ports import Connection, Connections

PORT_ANNOTATION = "slotune/port"


def pod_connections(connections: Connections, connection: Connection) -> list[Connection]:
    """One connection per ready pod, named as the pod is, with the credentials of the given one.

    Raises ConfigError (a part of the address is missing), ControlUnreachable (no pod is ready), and what listing pods
    raises.
    """
    cluster_name, workload, port = _target(connection)
    cluster = Cluster(connections, cluster_name)
    scale = cluster.get(workload)
    selector = str((scale.get("status") or {}).get("selector") or "")
    pods = cluster.items(Ref("", "v1", "pods", workload.namespace), selector) if selector else []
    found = sorted((pod for pod in pods if _ready(pod)), key=lambda pod: str(pod["metadata"]["name"]))
    if not found:
        raise ControlUnreachable(f"{workload.namespace}/{workload.name} has no ready pod: there is nobody to tell")
    return [elsewhere(connection, str(pod["metadata"]["name"]), _address(pod, port)) for pod in found]


def pod_rights(connection: Connection) -> list[tuple[str, Ref]]:
    """What slotune's Role has to grant for finding the pods, as (verb, object). Raises ConfigError."""
    _, workload, _ = _target(connection)
    return [("get", workload), ("list", Ref("", "v1", "pods", workload.namespace))]


def may(connections: Connections, connection: Connection, verb: str, ref: Ref) -> bool:
    """Whether the credentials of a pods:// connection's cluster have one right (changes nothing)."""
    return Cluster(connections, _target(connection)[0]).may(verb, ref)


def _target(connection: Connection) -> tuple[str, Ref, str]:
    """(the cluster's connection, the workload's scale, the port)."""
    parts = urlsplit(connection.url)
    namespace, name = parts.netloc, parts.path.strip("/")
    cluster_name, port = str(connection.extra.get("cluster") or ""), str(connection.extra.get("port") or "")
    if not (namespace and name and cluster_name and port.isdigit()):
        raise ConfigError(
            f"the connection {connection.name} must look like pods://NAMESPACE/NAME?port=8000&cluster=CONNECTION"
        )
    return cluster_name, scale_ref(namespace, str(connection.extra.get("kind") or "Deployment"), name), port


def _ready(pod: Object) -> bool:
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    conditions = [c for c in status.get("conditions") or [] if isinstance(c, dict)]
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return bool(ready and status.get("podIP") and not meta.get("deletionTimestamp"))


def _address(pod: Object, port: str) -> str:
    own = str((pod["metadata"].get("annotations") or {}).get(PORT_ANNOTATION) or "")
    ip = str(pod["status"]["podIP"])
    return f"http://{f'[{ip}]' if ':' in ip else ip}:{own if own.isdigit() else port}"
