"""The HPA controller of kube-controller-manager: floors are absolute, metric recommendations are stabilised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo.kubernetes_api.resources import EVENT, HPA, Resource
from demo.kubernetes_api.status import ApiError
from demo.kubernetes_api.store import Object, Store, now_text

MANAGER = "kube-controller-manager"
Metric = Callable[[int], int | None]
"""Current replicas -> replicas that the metric wants; None: the metric is missing."""


@dataclass
class HpaState:
    """What the controller remembers of one HPA between two syncs."""

    sync_s: float
    metric: Metric | None = None
    next_s: float = 0.0
    recommendations: list[tuple[float, int]] = field(default_factory=list)
    moves: list[tuple[float, int]] = field(default_factory=list)


def target_of(hpa: Object, served: tuple[Resource, ...]) -> Resource | None:
    ref = hpa["spec"].get("scaleTargetRef", {})
    for resource in served:
        if resource.scalable and resource.kind == ref.get("kind"):
            return resource
    return None


def sync(store: Store, state: HpaState, namespace: str, name: str, now_s: float, served: tuple[Resource, ...]) -> None:
    """One pass over one HPA."""
    with store.lock:
        hpa = store.find(HPA, namespace, name)
        if hpa is None:
            return
        ref = hpa["spec"].get("scaleTargetRef", {})
        resource = target_of(hpa, served)
        target = store.find(resource, namespace, ref.get("name", "")) if resource else None
        if resource is None or target is None:
            _set_status(store, namespace, hpa, _no_target(ref, resource), None, None)
            return
        current = target["spec"]["replicas"]
        desired, conditions, reason = decide(hpa["spec"], state, current, now_s)
        if desired != current:
            state.moves.append((now_s, desired - current))
            scale(store, resource, namespace, ref["name"], desired, MANAGER)
            _event(store, namespace, name, f"New size: {desired}; reason: {reason}")
        _set_status(store, namespace, hpa, conditions, current, desired)


def decide(spec: Object, state: HpaState, current: int, now_s: float) -> tuple[int, list[dict[str, Any]], str]:
    """(replicas wanted, conditions, the reason of a rescale). Floors and ceilings come first and need no metric."""
    low, high = spec.get("minReplicas", 1), spec["maxReplicas"]
    able = _condition("AbleToScale", True, "ReadyForNewScale", "recommended size matches current size")
    if current == 0:
        words = "scaling is disabled since the replica count of the target is zero"
        return 0, [able, _condition("ScalingActive", False, "ScalingDisabled", words)], ""
    wanted = state.metric(current) if state.metric else None
    if wanted is not None:
        state.recommendations.append((now_s, wanted))
    active = (
        _condition(
            "ScalingActive", True, "ValidMetricFound", "the HPA was able to successfully calculate a replica count"
        )
        if wanted is not None
        else _condition(
            "ScalingActive", False, _missing(spec), "the HPA was unable to compute the replica count"
        )
    )
    if current > high:
        return high, [able, active, _limited(high, low, high)], "Current number of replicas above Spec.MaxReplicas"
    if current < low:
        return low, [able, active, _limited(low - 1, low, high)], "Current number of replicas below Spec.MinReplicas"
    if wanted is None:
        return current, [able, active], ""
    stabilised = _stabilise(spec, state, current, wanted, now_s)
    stepped = _limit_rate(spec, state, current, stabilised, now_s)
    desired = max(low, min(high, stepped))
    return (
        desired,
        [able, active, _limited(stabilised, low, high)],
        "pods metric above target" if desired > current else "All metrics below target",
    )


def _missing(spec: Object) -> str:
    """FailedGetPodsMetric, FailedGetResourceMetric, ...: after the kind of the first metric."""
    metrics = spec.get("metrics") or [{"type": "Resource"}]
    return f"FailedGet{metrics[0].get('type', 'Resource')}Metric"


def _stabilise(spec: Object, state: HpaState, current: int, wanted: int, now_s: float) -> int:
    """Scaling down follows the highest recommendation of the window (300 s by default)."""
    window_s = spec.get("behavior", {}).get("scaleDown", {}).get("stabilizationWindowSeconds", 300)
    state.recommendations = [(t, n) for t, n in state.recommendations if now_s - t <= max(window_s, 1)]
    return wanted if wanted >= current else min(current, max(n for _, n in state.recommendations))


def _limit_rate(spec: Object, state: HpaState, current: int, wanted: int, now_s: float) -> int:
    up = wanted > current
    rules = spec.get("behavior", {}).get("scaleUp" if up else "scaleDown", {})
    if rules.get("selectPolicy") == "Disabled":
        return current
    default: list[Object] = [{"type": "Percent", "value": 100, "periodSeconds": 15}]
    if up:
        default = [{"type": "Pods", "value": 4, "periodSeconds": 15}, *default]
    limits: list[int] = []
    for policy in rules.get("policies") or default:
        moved = sum(n for t, n in state.moves if now_s - t < policy["periodSeconds"] and (n > 0) == up)
        start = current - moved
        step = policy["value"] if policy["type"] == "Pods" else -(-start * policy["value"] // 100)
        limits.append(start + step if up else start - step)
    least = rules.get("selectPolicy") == "Min"
    if up:
        return max(current, min(wanted, min(limits) if least else max(limits)))
    return min(current, max(wanted, max(limits) if least else min(limits)))


def scale(store: Store, resource: Resource, namespace: str, name: str, replicas: int, manager: str) -> Object:
    def change(obj: Object) -> Object:
        obj["spec"]["replicas"] = replicas
        return obj

    return store.update(resource, namespace, name, change, manager, sub="scale")


def _set_status(
    store: Store,
    namespace: str,
    hpa: Object,
    conditions: list[dict[str, Any]],
    current: int | None,
    desired: int | None,
) -> None:
    old = {c["type"]: c for c in hpa.get("status", {}).get("conditions", [])}
    for condition in conditions:
        before = old.get(condition["type"], {})
        same = before.get("status") == condition["status"] and before.get("reason") == condition["reason"]
        condition["lastTransitionTime"] = before["lastTransitionTime"] if same else now_text()

    def change(obj: Object) -> Object:
        obj["status"] = {
            "conditions": conditions,
            "currentMetrics": None,
            "currentReplicas": current or 0,
            "desiredReplicas": desired or 0,
        }
        if desired is not None and desired != current:
            obj["status"]["lastScaleTime"] = now_text()
        elif "lastScaleTime" in hpa.get("status", {}):
            obj["status"]["lastScaleTime"] = hpa["status"]["lastScaleTime"]
        return obj

    store.update(HPA, namespace, hpa["metadata"]["name"], change, MANAGER, sub="status")


def _no_target(ref: Object, resource: Resource | None) -> list[dict[str, Any]]:
    group = ref.get("apiVersion", "").rpartition("/")[0]
    if resource is None:
        problem = f'no matches for kind "{ref.get("kind")}" in group "{group}"'
    else:
        problem = f'{resource.qualified} "{ref.get("name")}" not found'
    words = f"the HPA controller was unable to get the target's current scale: {problem}"
    return [_condition("AbleToScale", False, "FailedGetScale", words)]


def _limited(wanted: int, low: int, high: int) -> dict[str, Any]:
    if wanted < low:
        words = "the desired replica count is less than the minimum replica count"
        return _condition("ScalingLimited", True, "TooFewReplicas", words)
    if wanted > high:
        words = "the desired replica count is more than the maximum replica count"
        return _condition("ScalingLimited", True, "TooManyReplicas", words)
    return _condition("ScalingLimited", False, "DesiredWithinRange", "the desired count is within the acceptable range")


def _condition(kind: str, status: bool, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": str(status), "reason": reason, "message": message}


def _event(store: Store, namespace: str, name: str, message: str) -> None:
    event = {
        "metadata": {"name": f"{name}.{store.version:x}"},
        "involvedObject": {"kind": "HorizontalPodAutoscaler", "namespace": namespace, "name": name},
        "reason": "SuccessfulRescale",
        "type": "Normal",
        "message": message,
    }
    try:
        store.create(EVENT, namespace, event, MANAGER)
    except ApiError:
        return
