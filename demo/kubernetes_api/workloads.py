"""The Deployment controller and a stand-in kubelet: pods that appear, get ready, stay pending, or roll over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo.kubernetes_api.resources import DEPLOYMENT, EVENT, POD, REPLICA_SET, Resource
from demo.kubernetes_api.status import ApiError
from demo.kubernetes_api.store import Object, Store, now_text

MANAGER = "kube-controller-manager"
REVISION = "deployment.kubernetes.io/revision"
NO_ROOM = (
    "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. "
    "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
)


@dataclass
class Cluster:
    """What the pods run on.

    start_s: a pod is ready so long after it was placed. room: pods that fit in a namespace (None: no limit).
    waits: why the container of a pod cannot start ("ImagePullBackOff"), None when it can.
    schedule_s: a pod has no PodScheduled condition for so long. failures: why the last pod of a workload could not be
    created.
    ready: tells how many pods of a workload are ready instead of start_s. healthy: whether a pod template can ever
    become ready. where: (address, port) of the pods of a workload, in order. place: where one pod answers, None while
    it does not; instead of the two.
    """

    start_s: float = 0.0
    schedule_s: float = 0.0
    room: dict[str, int] = field(default_factory=dict)
    ready: Callable[[str, str], int] | None = None
    healthy: Callable[[Object], bool] = lambda _: True
    where: Callable[[str, str], list[tuple[str, int]]] | None = None
    place: Callable[[Object], tuple[str, int] | None] | None = None
    waits: Callable[[Object], str | None] = lambda _: None
    started_s: dict[tuple[str, str], float] = field(default_factory=dict)
    rollout_s: dict[tuple[str, str], float] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    serial: int = 0


def template_hash(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def sync(store: Store, cluster: Cluster, resource: Resource, namespace: str, name: str, now_s: float) -> int:
    """One pass over one workload; the number of replicas that it should have."""
    with store.lock:
        workload = store.find(resource, namespace, name)
        if workload is None:
            return 0
        wanted: int = workload["spec"].get("replicas", 0)
        template = workload["spec"].get("template", {})
        labels = workload["spec"].get("selector", {}).get("matchLabels") or {"app": name}
        maker = _controller(resource.api_version, resource.kind, workload)
        if resource == DEPLOYMENT:
            made = _replica_set(store, workload, namespace, name, template_hash(template))
            template, maker = made["spec"]["template"], _controller("apps/v1", "ReplicaSet", made)
        mark = template_hash(template)
        makers = {workload["metadata"]["uid"], *(s["metadata"]["uid"] for s in _sets(store, namespace, name))}
        _roll(store, cluster, workload, labels, template, maker, _own(store, namespace, labels, makers), now_s)
        _kubelet(store, cluster, namespace, name, _own(store, namespace, labels, makers), now_s)
        _status(store, cluster, resource, workload, mark, _own(store, namespace, labels, makers), now_s)
        return wanted


def _own(store: Store, namespace: str, labels: dict[str, str], makers: set[str]) -> list[Object]:
    """The pods that a workload's controllers made; who merely carries its labels is none of its business."""
    found = store.list(POD, namespace, labels)
    return [p for p in found if any(r.get("uid") in makers for r in p["metadata"].get("ownerReferences", []))]


def _sets(store: Store, namespace: str, name: str) -> list[Object]:
    return [s for s in store.list(REPLICA_SET, namespace) if _owner(s) == name]


def ready_pods(pods: list[Object]) -> list[Object]:
    return [p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"]["conditions"])]


def _hash(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get("pod-template-hash", ""))


def _replica_set(store: Store, workload: Object, namespace: str, name: str, mark: str) -> Object:
    """The ReplicaSet of the current template, made once and reused when an old template comes back. While the
    Deployment is paused a new template gets none."""
    sets = _sets(store, namespace, name)
    newest = max((int(s["metadata"]["annotations"][REVISION]) for s in sets), default=0)
    last = next((s for s in sets if int(s["metadata"]["annotations"][REVISION]) == newest), None)
    if last is not None and (workload["spec"].get("paused") or last["metadata"]["labels"]["pod-template-hash"] == mark):
        return last
    mine = next((s for s in sets if s["metadata"]["labels"]["pod-template-hash"] == mark), None)
    revision = str(newest + 1)
    if mine is None:
        pods = workload["spec"].get("template", {}).get("metadata", {}).get("labels", {})
        labels = {**pods, "pod-template-hash": mark}
        body = {
            "metadata": {
                "name": f"{name}-{mark}",
                "labels": labels,
                "annotations": {REVISION: revision},
                "ownerReferences": [_controller("apps/v1", "Deployment", workload)],
            },
            "spec": {
                "selector": {"matchLabels": labels},
                "template": workload["spec"].get("template", {}),
                "replicas": workload["spec"]["replicas"],
            },
        }
        made = store.create(REPLICA_SET, namespace, body, MANAGER)
    else:
        made = store.update(REPLICA_SET, namespace, f"{name}-{mark}", lambda o: _annotate(o, revision), MANAGER)
    store.update(DEPLOYMENT, namespace, name, lambda o: _annotate(o, revision), MANAGER)
    return made


def _controller(version: str, kind: str, obj: Object) -> Object:
    """The owner reference that an object's controller puts on what it makes."""
    meta = obj["metadata"]
    return {"apiVersion": version, "kind": kind, "name": meta["name"], "uid": meta["uid"], "controller": True,
            "blockOwnerDeletion": True}  # fmt: skip


def _annotate(obj: Object, revision: str) -> Object:
    obj["metadata"].setdefault("annotations", {})[REVISION] = revision
    return obj


def _owner(obj: Object) -> str:
    return next((str(ref["name"]) for ref in obj["metadata"].get("ownerReferences", [])), "")


def _roll(
    store: Store, cluster: Cluster, workload: Object, labels: dict[str, str], template: Object, maker: Object,
    pods: list[Object], now_s: float,
) -> None:  # fmt: skip
    """New pods first (surge one), old ones leave as new ones get ready; surplus leaves, the youngest first. A
    StatefulSet keeps the old pods below its partition, and all of them with OnDelete."""
    namespace, name = workload["metadata"]["namespace"], workload["metadata"]["name"]
    wanted, mark = workload["spec"].get("replicas", 0), template_hash(template)
    new = [p for p in pods if _hash(p) == mark]
    old = [p for p in pods if _hash(p) != mark]
    kept = min(len(old), _old_ones(workload, wanted))
    surge = 1 if len(old) > kept and wanted else 0
    room = wanted + surge - len(pods) if old else wanted - len(new)
    cluster.failures.pop((namespace, name), None)
    for _ in range(max(0, min(room, wanted - kept - len(new)))):
        cluster.serial += 1
        pod_name, marked = f"{name}-{mark}-{cluster.serial:04d}", {**labels, "pod-template-hash": mark}
        try:
            _create_pod(store, cluster, namespace, pod_name, marked, template, maker, now_s)
        except ApiError as error:
            cluster.serial -= 1
            cluster.failures[(namespace, name)] = str(error)
            _failed_create(store, namespace, maker, str(error))
            break
    spare = len(ready_pods(new)) + len(ready_pods(old)) - wanted
    leaving = old[: len(old) - kept]
    doomed = [p for p in leaving if p not in ready_pods(old)] if ready_pods(new) else []
    doomed += ready_pods(leaving)[: max(0, spare)]
    surplus = len(new) + kept - wanted
    if surplus > 0:
        pending_first = sorted(new, key=lambda p: (p in ready_pods(new), -_serial(p)))
        doomed += pending_first[:surplus]
    if not wanted:
        doomed = pods
    for pod in doomed:
        store.delete(POD, namespace, pod["metadata"]["name"])
        cluster.started_s.pop((namespace, pod["metadata"]["name"]), None)


def _old_ones(workload: Object, wanted: int) -> int:
    """Pods that keep the old template, whatever happens to the new one."""
    strategy = workload["spec"].get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return wanted
    return int((strategy.get("rollingUpdate") or {}).get("partition") or 0)


def _failed_create(store: Store, namespace: str, maker: Object, words: str) -> None:
    """The event that the maker of the pods leaves, once for the same words."""
    name = f"{maker['name']}.failed-create"
    event = {
        "metadata": {"name": name},
        "involvedObject": {"kind": maker["kind"], "namespace": namespace, "name": maker["name"]},
        "reason": "FailedCreate",
        "type": "Warning",
        "message": f"Error creating: {words}",
    }
    if store.find(EVENT, namespace, name) is None:
        store.create(EVENT, namespace, event, MANAGER)


def _serial(pod: Object) -> int:
    return int(pod["metadata"]["name"].rsplit("-", 1)[1])


def _create_pod(
    store: Store, cluster: Cluster, namespace: str, pod_name: str, labels: dict[str, str], template: Object,
    maker: Object, now_s: float,
) -> None:  # fmt: skip
    body = {
        "metadata": {"name": pod_name, "labels": labels, "ownerReferences": [maker]},
        "spec": template.get("spec", {"containers": [{"name": "server", "image": "demo"}]}),
        "status": {"phase": "Pending", "conditions": []},
    }
    store.create(POD, namespace, body, MANAGER)
    cluster.started_s[(namespace, pod_name)] = now_s


def _kubelet(store: Store, cluster: Cluster, namespace: str, name: str, pods: list[Object], now_s: float) -> None:
    room = cluster.room.get(namespace)
    places = cluster.where(namespace, name) if cluster.where else []
    ready_count = cluster.ready(namespace, name) if cluster.ready else None
    for index, pod in enumerate(sorted(pods, key=_serial)):
        age_s = now_s - cluster.started_s.get((namespace, pod["metadata"]["name"]), now_s)
        if age_s < cluster.schedule_s:
            continue
        placed = room is None or index < room
        waits = cluster.waits(pod) if placed else None
        ready = placed and not waits and cluster.healthy(pod["spec"])
        started = age_s >= cluster.start_s or pod in ready_pods(pods)
        ready = ready and (index < ready_count if ready_count is not None else started)
        address = places[index] if index < len(places) else None
        if cluster.place is not None:
            address = cluster.place(pod)
            ready = placed and not waits and address is not None
        _pod_status(store, namespace, pod, placed=placed, ready=ready, waits=waits, address=address)


def _pod_status(
    store: Store, namespace: str, pod: Object, *, placed: bool, ready: bool, waits: str | None,
    address: tuple[str, int] | None,
) -> None:  # fmt: skip
    conditions: list[dict[str, Any]] = [{"type": "PodScheduled", "status": str(placed)}]
    if not placed:
        conditions[0] |= {"reason": "Unschedulable", "message": NO_ROOM}
    conditions.append({"type": "Ready", "status": str(ready)})
    state: dict[str, Any] = {"phase": "Running" if placed and not waits else "Pending", "conditions": conditions}
    if waits:
        state["containerStatuses"] = [{"name": "server", "ready": False, "state": {"waiting": {"reason": waits}}}]
    if address:
        state |= {"podIP": address[0]}
    before = pod["status"]
    parts = ("phase", "conditions", "podIP", "containerStatuses")
    if [before.get(part) for part in parts] == [state.get(part) for part in parts]:
        return

    def change(obj: Object) -> Object:
        obj["status"] = state
        if address:
            obj["metadata"].setdefault("annotations", {})["slotune/port"] = str(address[1])
        return obj

    store.update(POD, namespace, pod["metadata"]["name"], change, "kubelet", sub="status")


def _status(
    store: Store, cluster: Cluster, resource: Resource, workload: Object, mark: str, pods: list[Object], now_s: float
) -> None:
    namespace, name = workload["metadata"]["namespace"], workload["metadata"]["name"]
    wanted, ready = workload["spec"].get("replicas", 0), len(ready_pods(pods))
    state: dict[str, Any] = {
        "observedGeneration": workload["metadata"]["generation"],
        "replicas": len(pods),
        "updatedReplicas": len([p for p in pods if _hash(p) == template_hash(workload["spec"].get("template", {}))]),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
    }
    if resource == DEPLOYMENT:
        state["conditions"] = [_progress(cluster, workload, namespace, name, mark, state, wanted, now_s)]
        failure = cluster.failures.get((namespace, name))
        if failure:
            state["conditions"].append(_replica_failure(workload, failure))
    if dict(workload.get("status", {})) == state:
        return

    def change(obj: Object) -> Object:
        obj["status"] = state
        return obj

    store.update(resource, namespace, name, change, MANAGER, sub="status")


def _replica_failure(workload: Object, words: str) -> dict[str, Any]:
    conditions = workload.get("status", {}).get("conditions", [])
    since = next((c.get("lastTransitionTime") for c in conditions if c["type"] == "ReplicaFailure"), None)
    return {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words,
            "lastTransitionTime": since or now_text()}  # fmt: skip


def _progress(
    cluster: Cluster, workload: Object, namespace: str, name: str, mark: str, state: Object, wanted: int, now_s: float
) -> dict[str, Any]:
    done = state["updatedReplicas"] == wanted == state["readyReplicas"] == state["replicas"]
    key = (f"{namespace}/{name}", f"{mark}/{workload['metadata']['generation']}")
    began_s = cluster.rollout_s.setdefault(key, now_s)
    old: Object = next((c for c in workload.get("status", {}).get("conditions", []) if c["type"] == "Progressing"), {})
    if workload["spec"].get("paused"):
        found = {"status": "Unknown", "reason": "DeploymentPaused", "message": "Deployment is paused"}
    elif done:
        found = {
            "status": "True",
            "reason": "NewReplicaSetAvailable",
            "message": f'ReplicaSet "{name}-{mark}" has successfully progressed.',
        }
    elif now_s - began_s > workload["spec"].get("progressDeadlineSeconds", 600):
        found = {
            "status": "False",
            "reason": "ProgressDeadlineExceeded",
            "message": f'ReplicaSet "{name}-{mark}" has timed out progressing.',
        }
    else:
        found = {
            "status": "True",
            "reason": "ReplicaSetUpdated",
            "message": f'ReplicaSet "{name}-{mark}" is progressing.',
        }
    since = old.get("lastTransitionTime") if old.get("reason") == found["reason"] else None
    return {"type": "Progressing", **found, "lastTransitionTime": since or now_text()}
