"""Whether slotune may write an owner's fields: pure functions of what the objects' metadata show.

Asked in this order, about the fields that a change moves and no others: a controller above the object, a pause, a
manager that applies the fields, a GitOps tool whose manifest sets them, and somebody's change after slotune's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tuning.actuators import _kubernetes_shape as shape
from tuning.actuators._kubernetes_client import FIELD_MANAGER
from tuning.actuators._kubernetes_owners import LAST_SET, Owner
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._options import bounded

GITOPS_LABELS = {
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
GITOPS_ANNOTATIONS = {"argocd.argoproj.io/tracking-id": "Argo CD"}
GITOPS_MANAGERS = ("argocd-controller", "argocd-application-controller", "kustomize-controller", "helm-controller")
FLUX_OFF = {"kustomize.toolkit.fluxcd.io/reconcile": "disabled", "kustomize.toolkit.fluxcd.io/ssa": "ignore"}
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KEDA_PAUSES = tuple(f"autoscaling.keda.sh/{name}" for name in ("paused-replicas", "paused", "paused-scale-out"))
ROLLOUT_REF = "rollout.argoproj.io/workload-generation"
CONTROLLERS = ("kube-controller-manager", "keda-operator", "keda")
"""Managers that write replicas by rule; what any other one wrote through /scale is somebody's decision."""


def stand_down(
    owner: Owner, holder: Object, at_s: float, stand_down_s: float, knobs: Iterable[str] | None = None
) -> str | None:
    """Why slotune may not move these knobs (default: all that the owner has), None when it may.

    holder: the object with the metadata that tells (the owner itself, or the workload behind a scale subresource).
    """
    meta = holder.get("metadata") or {}
    notes, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    entries = meta.get("managedFields") or []
    moved = [knob for knob in owner.fields if knobs is None or knob in knobs]
    fields = [owner.fields[knob] for knob in moved]
    return (
        _commanded(owner, holder)
        or _paused(owner, notes)
        or _applied(owner, entries, fields)
        or _kept_by_gitops(owner, entries, labels, notes, fields)
        or (
            _scaled_by_hand(owner, entries, at_s, stand_down_s)
            if owner.ref.sub
            else _changed_by_other(owner, entries, notes, moved, at_s, stand_down_s)
        )
    )


def controller_of(obj: Object) -> str | None:
    """The controller that made an object and puts its own values back, as "Kind name"; None when there is none."""
    for ref in (obj.get("metadata") or {}).get("ownerReferences") or []:
        if ref.get("controller"):
            return bounded(f"{ref.get('kind')} {ref.get('name')}", 160)
    return None


def writer_of(owner: Owner, holder: Object) -> str:
    """The manager that wrote the owner's fields last, "" when managedFields do not tell."""
    entries = (holder.get("metadata") or {}).get("managedFields") or []
    held = [e for e in entries if _holds(e, owner.fields.values())]
    return _manager(max(held, key=_time)) if held else ""


def gitops_tool(labels: Mapping[str, Any], notes: Mapping[str, Any]) -> str | None:
    """The GitOps tool that manages an object by its labels and annotations, None when none does (or it is off)."""
    if any(str(notes.get(key, "")).lower() == value for key, value in FLUX_OFF.items()):
        return None
    for known, given in ((GITOPS_LABELS, labels), (GITOPS_ANNOTATIONS, notes)):
        for key, tool in known.items():
            if key in given:
                return f"{tool} (it has {key})"
    return None


def _commanded(owner: Owner, holder: Object) -> str | None:
    above = controller_of(holder)
    if above is not None:
        said = f"{owner.name} belongs to {above} (ownerReferences)"
        return f"{said}, whose controller puts its own values back: set them there"
    if owner.kind == "none" and ROLLOUT_REF in ((holder.get("metadata") or {}).get("annotations") or {}):
        return f"an Argo Rollout runs {owner.name} (workloadRef): name the Rollout as the target"
    return None


def _paused(owner: Owner, notes: Mapping[str, Any]) -> str | None:
    if owner.kind != "keda":
        return None
    for key in KEDA_PAUSES:
        value = notes.get(key)
        if value is not None and (key.endswith("paused-replicas") or str(value).lower() == "true"):
            return f"{owner.name} is paused by an annotation ({key}: {bounded(str(value), 40)})"
    return None


def _applied(owner: Owner, entries: Sequence[Object], fields: Sequence[str]) -> str | None:
    for entry in entries:
        held = [field for field in fields if _holds(entry, [field])]
        if held and entry.get("operation") == "Apply" and _foreign(entry):
            return f"{_manager(entry)} applies {_list(held)} of {owner.name} (server-side apply)"
    return None


def _kept_by_gitops(
    owner: Owner, entries: Sequence[Object], labels: Mapping[str, Any], notes: Mapping[str, Any], fields: Sequence[str]
) -> str | None:
    """A tool's manifest that sets these fields; unless there is evidence that it does not, it does."""
    tool = gitops_tool(labels, notes)
    if tool is None:
        return None
    said = f"{owner.name} is managed by {tool}, which would undo or fight the change"
    tools = [e for e in entries if e.get("manager") in GITOPS_MANAGERS]
    held = [field for field in fields if any(_holds(e, [field]) for e in tools)]
    if held:
        return f"{said}: its manager {_manager(tools[0])} set {_list(held)}"
    if any(e.get("operation") == "Apply" for e in tools):
        return None
    manifest = shape.whole(notes.get(APPLIED)).get("spec")
    if not isinstance(manifest, dict):
        return f"{said}: nothing shows that its manifest leaves {_list(fields)} alone"
    held = [field for field in fields if field in manifest]
    return f"{said}: its manifest sets {_list(held)} ({APPLIED})" if held else None


def _changed_by_other(
    owner: Owner, entries: Sequence[Object], notes: Mapping[str, Any], knobs: Sequence[str], at_s: float, wait_s: float
) -> str | None:
    """Somebody changed what slotune had set: that stands for wait_s, then it is the new starting point."""
    last, values = shape.whole(notes.get(LAST_SET)), owner.values()
    moved = [owner.fields[k] for k in knobs if k in last and values[k] != last[k]]
    if not moved:
        return None
    others = [e for e in entries if _foreign(e) and _holds(e, moved)]
    newest = max(others, key=_time, default={"manager": "somebody else"})
    left_s = wait_s - (at_s - _epoch_s(_time(newest), at_s))
    if left_s <= 0:
        return None
    return f"{_manager(newest)} changed {owner.name} after slotune did ({_now(owner)}); {_left(left_s)}"


def _scaled_by_hand(owner: Owner, entries: Sequence[Object], at_s: float, wait_s: float) -> str | None:
    """A scale subresource has no annotations: that somebody set the replicas shows in who holds the field. The entry
    of whoever deploys the workload (it holds the selector too) is no decision about its replicas."""
    held = [e for e in entries if _holds(e, ["replicas"]) and e.get("subresource", "") in ("", "scale")]
    if any(not _foreign(e) for e in held):
        return None
    hands = [e for e in held if not _holds(e, ["selector"]) and e.get("manager") not in CONTROLLERS]
    newest = max(hands, key=_time, default=None)
    left_s = wait_s - (at_s - _epoch_s(_time(newest), at_s)) if newest is not None else 0.0
    if newest is None or left_s <= 0:
        return None
    return f"{_manager(newest)} scaled {owner.ref.name} ({_now(owner)}), and that stands; {_left(left_s)}"


def _now(owner: Owner) -> str:
    return ", ".join(f"{knob} {value}" for knob, value in owner.values().items()) + " now"


def _left(left_s: float) -> str:
    return f"slotune leaves it alone for another {left_s / 60:.0f} minutes"


def _foreign(entry: Object) -> bool:
    return entry.get("manager") != FIELD_MANAGER and entry.get("subresource", "") != "status"


def _holds(entry: Object, fields: Iterable[str]) -> bool:
    spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
    return any(f"f:{field}" in spec for field in fields)


def _manager(entry: Object) -> str:
    return bounded(str(entry.get("manager") or "a manager without a name"), 128)


def _list(fields: Iterable[str]) -> str:
    return " and ".join(f"spec.{field}" for field in fields)


def _time(entry: Object) -> str:
    return str(entry.get("time") or "")


def _epoch_s(text: str, default_s: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return default_s
