"""Rollouts: who would undo a change of a pod template, whether one can happen at all, and how far it has come. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from tuning.actuators._kubernetes_places import Place
from tuning.actuators._options import bounded

Workload = dict[str, Any]
Progress = Literal["done", "going", "failed"]


def appliers(entries: Iterable[Any], place: Place) -> list[str]:
    """Managers that hold the place by server-side apply, and would put it back."""
    path = ("f:spec", "f:template", "f:spec", "f:containers", *place.owned)
    found = []
    for entry in entries:
        if entry.get("operation") != "Apply":
            continue
        node: Any = entry.get("fieldsV1") or {}
        for segment in path:
            node = node.get(segment) if isinstance(node, dict) else None
        if node is not None:
            found.append(str(entry.get("manager")))
    return found


def hindrance(workload: Workload) -> str:
    """Why a changed template would reach no pod, or not all of them; "" when a rollout can happen."""
    spec = workload.get("spec") or {}
    if spec.get("paused"):
        return "its rollout is paused (spec.paused): the template would change and no pod would"
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return "its updateStrategy is OnDelete: no pod gets the template until somebody deletes it"
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    if partition:
        return f"its rollingUpdate has partition {partition}: pods below that number keep the old template"
    return ""


def progress(workload: Workload) -> tuple[Progress, str]:
    """How far the rollout of the newest template is, with the controller's words."""
    state, wanted = workload.get("status") or {}, int((workload.get("spec") or {}).get("replicas") or 0)
    if int(state.get("observedGeneration") or 0) < int((workload.get("metadata") or {}).get("generation") or 0):
        return "going", "the controller has not looked yet"
    failure = ""
    for condition in state.get("conditions") or []:
        said = bounded(f"{condition.get('reason')}: {condition.get('message')}")
        if condition.get("type") == "Progressing" and condition.get("status") == "False":
            return "failed", said
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            failure = f"; {said}"
    updated, ready = int(state.get("updatedReplicas") or 0), int(state.get("readyReplicas") or 0)
    left = int(state.get("replicas") or 0) - updated
    if updated >= wanted and ready >= wanted and left <= 0:
        return "done", f"{updated} of {wanted} pods have the new template and are ready"
    return "going", (
        f"{updated} of {wanted} pods have the new template, {ready} are ready, {max(0, left)} old ones remain{failure}"
    )
