"""Defaults, number coercion and validation: what kube-apiserver fills in and what it refuses, in its words."""

from __future__ import annotations

import copy
from typing import Any

from demo.kubernetes_api.resources import DEPLOYMENT, HPA, REPLICA_SET, SCALED_OBJECT, STATEFUL_SET, Resource
from demo.kubernetes_api.status import ApiError, Cause, bad_patch, invalid

INTEGERS = {
    HPA: ("minReplicas", "maxReplicas"),
    DEPLOYMENT: ("replicas", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"),
    STATEFUL_SET: ("replicas",),
    REPLICA_SET: ("replicas",),
    SCALED_OBJECT: ("minReplicaCount", "maxReplicaCount", "idleReplicaCount", "pollingInterval", "cooldownPeriod"),
}
SPEC_FIELDS = {
    HPA: {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"},
    DEPLOYMENT: {
        "replicas", "selector", "template", "strategy", "minReadySeconds", "revisionHistoryLimit", "paused",
        "progressDeadlineSeconds",
    },
}  # fmt: skip
TOP_FIELDS = {"apiVersion", "kind", "metadata", "spec", "status"}
CPU_80 = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
DEFAULT_METRICS = [{"type": "Resource", "resource": CPU_80}]


def unknown_fields(resource: Resource, body: dict[str, Any]) -> list[str]:
    """Paths of fields that the schema does not have (top level and spec only)."""
    found = [key for key in body if key not in TOP_FIELDS]
    known = SPEC_FIELDS.get(resource)
    spec = body.get("spec")
    if known and isinstance(spec, dict):
        found += [f"spec.{key}" for key in spec if key not in known]
    return found


def drop_unknown(resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    result = {key: value for key, value in obj.items() if key in TOP_FIELDS}
    known = SPEC_FIELDS.get(resource)
    if known and isinstance(result.get("spec"), dict):
        result["spec"] = {key: value for key, value in result["spec"].items() if key in known}
    return result


def coerce(resource: Resource, obj: dict[str, Any], patch: Any) -> dict[str, Any]:
    """Integers as integers: 5.0 is 5, "5" and 5.5 are refused with the patch that brought them."""
    result = copy.deepcopy(obj)
    spec = result.get("spec")
    if not isinstance(spec, dict):
        return result
    for name in INTEGERS.get(resource, ()):
        value = spec.get(name)
        if value is None:
            spec.pop(name, None)
        elif isinstance(value, str | bool | dict | list):
            raise bad_patch(patch, "unrecognized type: int32")
        elif isinstance(value, float):
            if value != int(value):
                raise bad_patch(patch, "cannot convert float64 to int32")
            spec[name] = int(value)
    return result


def defaulted(resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(obj)
    spec = result.setdefault("spec", {})
    if resource == HPA:
        spec.setdefault("minReplicas", 1)
        if not spec.get("metrics"):
            spec["metrics"] = copy.deepcopy(DEFAULT_METRICS)
        spec["metrics"] = [_normal_quantities(metric) for metric in spec["metrics"]]
        result.setdefault("status", {"desiredReplicas": 0, "currentMetrics": None})
    elif resource.scalable and resource.group == DEPLOYMENT.group:  # a custom resource has what its author gave it
        spec.setdefault("replicas", 1)
    if resource == DEPLOYMENT:
        spec.setdefault("progressDeadlineSeconds", 600)
        spec.setdefault("revisionHistoryLimit", 10)
    return result


def check(resource: Resource, name: str, obj: dict[str, Any]) -> None:
    """Raises 422 with every cause."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if resource == HPA:
        causes = _check_hpa(spec)
    elif resource.scalable and isinstance(spec.get("replicas"), int) and spec["replicas"] < 0:
        causes = [_invalid("spec.replicas", spec["replicas"], "must be greater than or equal to 0")]
    if causes:
        raise invalid(resource, name, causes)


def check_applied(resource: Resource, name: str, body: Any) -> None:
    """A manifest that is applied stands on its own: an HPA without maxReplicas is refused (422), whoever set it."""
    spec = (body.get("spec") or {}) if isinstance(body, dict) else {}
    if resource == HPA and "maxReplicas" not in spec:
        raise invalid(resource, name, [_invalid("spec.maxReplicas", 0, "must be greater than 0")])


def check_scale(resource: Resource, name: str, replicas: int) -> None:
    if replicas < 0:
        cause = _invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid(Resource("autoscaling", "v1", "scales", "Scale"), name, [cause])


def immutable(resource: Resource, name: str, uid: str) -> ApiError:
    return invalid(resource, name, [_invalid("metadata.uid", f'"{uid}"', "field is immutable")])


def _check_hpa(spec: dict[str, Any]) -> list[Cause]:
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    causes: list[Cause] = []
    external = any(metric.get("type") in ("Object", "External") for metric in spec.get("metrics", []))
    if low < 0 or (low == 0 and not external):
        causes.append(_invalid("spec.minReplicas", low, "must be greater than or equal to 1"))
    if high < 1:
        causes.append(_invalid("spec.maxReplicas", high, "must be greater than 0"))
    if high < low:
        causes.append(_invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`"))
    if low == 0 and not external:
        words = "must specify at least one Object or External metric to support scaling to zero replicas"
        causes.append(("FieldValueForbidden", "spec.metrics", f"Forbidden: {words}"))
    return causes


def _invalid(field: str, value: object, words: str) -> Cause:
    return ("FieldValueInvalid", field, f"Invalid value: {value}: {words}")


def _normal_quantities(metric: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(metric)
    for source in result.values():
        target = source.get("target") if isinstance(source, dict) else None
        for key in ("averageValue", "value"):
            value = target.get(key) if isinstance(target, dict) else None
            if value is not None and isinstance(target, dict):
                target[key] = _quantity(value)
    return result


def _quantity(value: Any) -> str:
    text = str(value)
    return f"{text[:-3]}k" if text.isdigit() and text.endswith("000") and len(text) > 3 else text
