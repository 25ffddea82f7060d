"""From the bytes of an answer to a Kubernetes object whose parts have the types that the rest of the code relies on.

A real API server keeps these types; whatever else listens at the address (a proxy, a login page, a broken aggregator)
need not. Checked here once, so that nothing behind the border has to ask again. null means absent, as in Kubernetes.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

Object = dict[str, Any]
INT_DIGITS = 19
"""Kubernetes' integers are int64 at most."""
REPLICAS_MAX = 2**31 - 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")


class Malformed(ValueError):
    """The answer is no Kubernetes object; the message says where it is not."""


class _Count:
    """A number of things: an integer from 0 to the largest int32."""


TEXTS = {"*": str}
META = {
    "name": str,
    "namespace": str,
    "uid": str,
    "resourceVersion": str,
    "generation": int,
    "creationTimestamp": str,
    "deletionTimestamp": str,
    "labels": TEXTS,
    "annotations": TEXTS,
    "ownerReferences": [{"apiVersion": str, "kind": str, "name": str, "uid": str, "controller": bool}],
    "managedFields": [
        {"manager": str, "operation": str, "time": str, "subresource": str, "fieldsV1": {"f:spec": {}}},
    ],
}
CONDITIONS = [{"type": str, "status": str, "reason": str, "message": str, "lastTransitionTime": str}]
ENDED = {"reason": str, "message": str, "exitCode": int}
STATES = [{
    "name": str,
    "restartCount": int,
    "state": {"waiting": {"reason": str, "message": str}, "terminated": ENDED, "running": {}},
    "lastState": {"terminated": ENDED},
}]  # fmt: skip
CONTAINERS = [{
    "name": str,
    "command": [str],
    "args": [str],
    "env": [{"name": str, "value": str, "valueFrom": {}}],
    "envFrom": [{}],
}]  # fmt: skip
SPEC = {
    "replicas": _Count,
    "minReplicas": _Count,
    "maxReplicas": _Count,
    "minReplicaCount": _Count,
    "maxReplicaCount": _Count,
    "scaleTargetRef": {"apiVersion": str, "kind": str, "name": str},
    "paused": bool,
    "selector": {"matchLabels": TEXTS},
    "strategy": {"type": str},
    "updateStrategy": {"type": str, "rollingUpdate": {"partition": _Count}},
    "template": {"metadata": {}, "spec": {"containers": CONTAINERS, "initContainers": CONTAINERS}},
    "containers": CONTAINERS,
}
STATUS = {
    "selector": str,
    "phase": str,
    "reason": str,
    "message": str,
    "podIP": str,
    "allowed": bool,
    "replicas": _Count,
    "readyReplicas": _Count,
    "updatedReplicas": _Count,
    "observedGeneration": int,
    "conditions": CONDITIONS,
    "containerStatuses": STATES,
    "initContainerStatuses": STATES,
}
ANY = {"kind": str, "apiVersion": str, "metadata": META}
"""What every object has; a custom resource is free in the rest."""
KNOWN = {**ANY, "spec": SPEC, "status": STATUS}


def decode(data: bytes) -> Any:
    """The JSON value, with finite numbers of bounded size; Malformed otherwise."""
    try:
        value = json.loads(data, parse_int=_integer, parse_float=_number, parse_constant=_constant)
        if b"\\u" in data:  # half a surrogate pair is text that cannot be written anywhere
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise Malformed("is nested too deeply") from None
    except Malformed:
        raise
    except ValueError:
        raise Malformed("is not JSON") from None


def one(value: Any, *, known: bool) -> Object:
    """An object, with metadata ({} where it has none). known: a kind whose spec and status are Kubernetes' own.

    Raises Malformed.
    """
    if not isinstance(value, dict):
        raise Malformed("is not a Kubernetes object")
    _check(value, KNOWN if known else ANY, "")
    meta = value.get("metadata") or {}
    if meta.get("name") is not None and not NAME.fullmatch(meta["name"]):
        raise Malformed("has a name that is none")
    return {**value, "metadata": meta}


def many(value: Any, *, known: bool) -> list[Object]:
    """The objects of a list. Raises Malformed."""
    if not isinstance(value, dict) or "items" not in value:
        raise Malformed("is not a list of Kubernetes objects")
    items = value["items"]
    if items is not None and not isinstance(items, list):
        raise Malformed("has items that are no list")
    found = [one(item, known=known) for item in items or []]
    if not all(item["metadata"].get("name") for item in found):
        raise Malformed("has an item without a name")
    return found


def whole(text: object) -> Object:
    """A JSON object that stands in an annotation, {} when it is none: anybody may write annotations."""
    try:
        found = decode(text.encode()) if isinstance(text, str) else None
    except (Malformed, UnicodeEncodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _check(value: Any, shape: Any, at: str) -> None:
    if value is None:
        return
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise Malformed(f"has {at or 'something'} that is no object")
        for key, inner in shape.items():
            for name in value if key == "*" else (key,):
                _check(value.get(name), inner, f"{at}.{key}" if at else key)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise Malformed(f"has {at} that is no list")
        for item in value:
            if item is None:
                raise Malformed(f"has an empty entry in {at}")
            _check(item, shape[0], f"{at}[]")
    elif shape is _Count:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= REPLICAS_MAX:
            raise Malformed(f"has {at} that is no number of replicas")
    elif not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
        raise Malformed(f"has {at} that is no {shape.__name__}")


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > INT_DIGITS:
        raise Malformed("has an integer that no field of Kubernetes can hold")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed("has a number that is not finite")
    return value


def _constant(text: str) -> float:
    raise Malformed(f"has {text}, which is no JSON")
