"""Whether a workload can grow: its own pods beside what it asks for, and an HPA that does nothing."""

from __future__ import annotations

from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import BUILT_IN, Owner, workload_ref
from tuning.actuators._kubernetes_pods import Pods, creation_failure, own_pods, read_pods, with_wanted
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._options import bounded
from tuning.errors import ControlRefused, SlotuneError

HPA_OFF = ("ScalingDisabled", "AmbiguousSelector")
"""Reasons of ScalingActive False with which an HPA does not act, or fights another one."""


def replicas_of(view: Object, scale: Ref) -> int:
    """Replicas that a Scale asks for (zero is left out of its JSON). Raises ControlRefused for what is no Scale."""
    value = (view.get("spec") or {}).get("replicas")
    if value is None and view.get("kind") != "Scale":
        raise ControlRefused(f"{scale} shows no spec.replicas: the answer is no Scale")
    return int(value or 0)


def pods_of(cluster: Cluster, scale: Ref, view: Object, at_s: float) -> Pods:
    """The workload's own pods, what it asks for (unknown for a custom resource, and before any controller has looked),
    and why its controller cannot create more. Raises what Cluster.items does."""
    selector = str((view.get("status") or {}).get("selector") or "")
    if not selector:
        return Pods()
    kind = next((k for k, known in BUILT_IN.items() if known == (scale.group, scale.version, scale.plural)), "")
    found = own_pods(cluster.items(Ref("", "v1", "pods", scale.namespace), selector), kind, scale.name)
    pods = read_pods(found, at_s)
    if not kind:
        return pods
    pods = with_wanted(pods, replicas_of(view, scale))
    if not pods.missing:
        return pods
    try:
        workload = cluster.get(workload_ref(scale))
    except SlotuneError:
        return pods
    seen, made = (workload.get("status") or {}).get("observedGeneration"), workload["metadata"].get("generation")
    if int(seen or 0) < int(made or 0):
        return with_wanted(pods, None)
    return with_wanted(pods, pods.wanted, creation_failure(workload))


def switched_off(owner: Owner, view: Object) -> str | None:
    """Why raising the floor would have no effect, or would switch on what somebody switched off."""
    trouble = hpa_trouble(owner)
    if owner.kind != "keda" and not (view.get("spec") or {}).get("replicas"):
        why = trouble or ("at zero an HPA does nothing" if owner.kind == "hpa" else "somebody switched it off")
        return f"the workload of {owner.name} stands at 0 replicas ({why})"
    return trouble


def hpa_trouble(owner: Owner) -> str | None:
    """The HPA controller's own words where it does nothing at all. Missing metrics are no trouble: the floor still
    rules; nor is an HPA without conditions, which its controller has not seen yet."""
    for condition in (owner.obj.get("status") or {}).get("conditions") or [] if owner.kind == "hpa" else []:
        kind, reason = condition.get("type"), condition.get("reason")
        idle = kind == "AbleToScale" or (kind == "ScalingActive" and reason in HPA_OFF)
        if idle and condition.get("status") == "False":
            return bounded(f"{owner.name} says {kind} False, {reason}: {condition.get('message')}")
    return None
