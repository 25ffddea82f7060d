"""The KEDA operator: a ScaledObject makes an HPA of its own and keeps its bounds equal to the ScaledObject's."""

from __future__ import annotations

from demo.kubernetes_api.hpa import scale, target_of
from demo.kubernetes_api.resources import HPA, SCALED_OBJECT, Resource
from demo.kubernetes_api.store import Object, Store

MANAGER = "keda"
PAUSED, PAUSED_AT = "autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas"


def sync(store: Store, namespace: str, name: str, served: tuple[Resource, ...]) -> str | None:
    """One pass; the name of the HPA, None while paused."""
    with store.lock:
        scaled = store.find(SCALED_OBJECT, namespace, name)
        if scaled is None:
            return None
        hpa_name = f"keda-hpa-{name}"
        hpa = store.find(HPA, namespace, hpa_name)
        notes = scaled["metadata"].get("annotations", {})
        if PAUSED_AT in notes or notes.get(PAUSED) == "true":
            if hpa is not None:
                store.delete(HPA, namespace, hpa_name)
            _hold(store, scaled, namespace, notes.get(PAUSED_AT), served)
            return None
        low = max(1, scaled["spec"].get("minReplicaCount", 0))
        high = scaled["spec"].get("maxReplicaCount", 100)
        if hpa is None:
            store.create(HPA, namespace, _hpa(scaled, hpa_name, low, high), MANAGER)
        elif (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) != (low, high):
            store.update(HPA, namespace, hpa_name, lambda o: _bounds(o, low, high), MANAGER)
        return hpa_name


def _bounds(hpa: Object, low: int, high: int) -> Object:
    hpa["spec"] |= {"minReplicas": low, "maxReplicas": high}
    return hpa


def _target(scaled: Object) -> Object:
    ref = scaled["spec"]["scaleTargetRef"]
    return {"apiVersion": ref.get("apiVersion", "apps/v1"), "kind": ref.get("kind", "Deployment"), "name": ref["name"]}


def _hpa(scaled: Object, name: str, low: int, high: int) -> Object:
    meta = scaled["metadata"]
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": meta["name"], "uid": meta["uid"],
             "controller": True}  # fmt: skip
    return {
        "metadata": {"name": name, "labels": {"scaledobject.keda.sh/name": meta["name"]}, "ownerReferences": [owner]},
        "spec": {"scaleTargetRef": _target(scaled), "minReplicas": low, "maxReplicas": high},
    }


def _hold(store: Store, scaled: Object, namespace: str, at: str | None, served: tuple[Resource, ...]) -> None:
    resource = target_of({"spec": {"scaleTargetRef": _target(scaled)}}, served)
    found = store.find(resource, namespace, _target(scaled)["name"]) if resource else None
    if resource and found and at is not None and found["spec"]["replicas"] != int(at):
        scale(store, resource, namespace, _target(scaled)["name"], int(at), MANAGER)
