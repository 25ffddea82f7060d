"""The pod templates that a Deployment has had, by its ReplicaSets: which one is in force, and how two differ. Pure.

A ReplicaSet keeps the template that it was made from, with the label `pod-template-hash` added; the Deployment keeps as
many old ones as its revisionHistoryLimit says.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuning.actuators._kubernetes_pods import controller
from tuning.actuators._options import bounded

Object = dict[str, Any]
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
MOST_DIFFERENCES = 5


@dataclass(frozen=True)
class Template:
    """One template. version: its hash, by which it is named. revision: the Deployment's number for it. made_s: when its
    ReplicaSet was made (epoch seconds), 0 where that cannot be read."""

    version: str
    revision: int
    made_s: float
    body: Object

    @property
    def images(self) -> str:
        """The images of its containers."""
        found = [str(one.get("image")) for one in (self.body.get("spec") or {}).get("containers") or []]
        return bounded(", ".join(found), 200)


def templates(replica_sets: Sequence[Object], deployment: str) -> list[Template]:
    """Those of a Deployment, newest revision first; what somebody else labelled like them is none."""
    found = []
    for one in replica_sets:
        meta, above = one.get("metadata") or {}, controller(one)
        version = str((meta.get("labels") or {}).get(HASH) or "")
        if above.get("kind") != "Deployment" or above.get("name") != deployment or not version:
            continue
        body = bare((one.get("spec") or {}).get("template") or {})
        found.append(Template(version, _revision(meta), _epoch_s(meta.get("creationTimestamp")), body))
    return sorted(found, key=lambda template: -template.revision)


def bare(template: Object) -> Object:
    """A template without the label that a ReplicaSet adds."""
    found = copy.deepcopy(template)
    labels = (found.get("metadata") or {}).get("labels")
    if isinstance(labels, dict):
        labels.pop(HASH, None)
    return found


def in_force(workload: Object, known: Sequence[Template]) -> Template | None:
    """The template that the Deployment asks for now; None while no ReplicaSet of it has been made."""
    wanted = _text(bare((workload.get("spec") or {}).get("template") or {}))
    return next((template for template in known if _text(template.body) == wanted), None)


def differences(old: Object, new: Object) -> list[str]:
    """What another template says otherwise, as "path: old -> new", at most MOST_DIFFERENCES of them."""
    found = [f"{path}: {_short(one)} -> {_short(other)}" for path, one, other in _differing(old, new, "spec.template")]
    more = len(found) - MOST_DIFFERENCES
    return found if more <= 0 else [*found[:MOST_DIFFERENCES], f"and {more} more"]


def _differing(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differing(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            name = one.get("name") if isinstance(one, dict) else None
            yield from _differing(one, other, f"{path}[{name or index}]")
    elif old != new:
        yield path, old, new


def _short(value: Any) -> str:
    return "nothing" if value is None else bounded(value if isinstance(value, str) else json.dumps(value), 80)


def _text(template: Object) -> str:
    """Equal templates give equal texts; null and absent are one, as in Kubernetes."""
    return json.dumps(_pruned(template), sort_keys=True)


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _pruned(part) for key, part in value.items()}
        return {key: part for key, part in kept.items() if part not in (None, {}, [])}
    return [_pruned(part) for part in value] if isinstance(value, list) else value


def _revision(meta: Object) -> int:
    text = str((meta.get("annotations") or {}).get(REVISION) or "")
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _epoch_s(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
