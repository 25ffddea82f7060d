"""Who owns the replicas of a workload: an HPA, a KEDA ScaledObject, or nobody; and whether slotune may write there.

A GitOps tool that sets the field, a pause, or a person's change after slotune's own means: stand down.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tuning.actuators._kubernetes_client import FIELD_MANAGER, Cluster, Object
from tuning.actuators._kubernetes_errors import Missing, Ref
from tuning.errors import ConfigError, ControlRefused, NotOwner
from tuning.model import Knob

LAST_SET = "slotune/last-set"
"""Annotation with the values that slotune set last: how it sees that somebody else changed them since."""
BUILT_IN = {"Deployment": ("apps", "v1", "deployments"), "StatefulSet": ("apps", "v1", "statefulsets")}
GITOPS_LABELS = {
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
GITOPS_ANNOTATIONS = {"argocd.argoproj.io/tracking-id": "Argo CD"}
GITOPS_MANAGERS = ("argocd-controller", "argocd-application-controller", "kustomize-controller", "helm-controller")
FLUX_OFF = {"kustomize.toolkit.fluxcd.io/reconcile": "disabled", "kustomize.toolkit.fluxcd.io/ssa": "ignore"}
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class Owner:
    """The object whose fields decide the replicas. fields: knob -> field of its spec. kind: hpa, keda or none."""

    kind: str
    ref: Ref
    fields: Mapping[str, str]
    defaults: Mapping[str, int]
    obj: Object

    @property
    def name(self) -> str:
        return {"hpa": "HPA", "keda": "KEDA ScaledObject"}.get(self.kind, self.ref.resource) + f" {self.ref.name}"

    @property
    def version(self) -> str:
        return str(self.obj.get("metadata", {}).get("resourceVersion", ""))

    def values(self) -> dict[str, Knob]:
        """The knobs that this owner holds. Raises ControlRefused for an object without usable numbers."""
        spec = self.obj.get("spec") or {}
        found: dict[str, Knob] = {}
        for knob, field in self.fields.items():
            value = spec.get(field, self.defaults.get(knob))
            if not isinstance(value, int) or isinstance(value, bool):
                raise ControlRefused(f"{self.ref} shows no usable spec.{field} ({value!r:.40})")
            found[knob] = value
        return found

    def body(self, values: Mapping[str, Knob], version: str) -> Object:
        """The merge patch that sets these knobs, under the optimistic lock of a resource version."""
        meta: Object = {"resourceVersion": version}
        mine = {knob: values[knob] for knob in self.fields if knob in values}
        if not self.ref.sub:
            meta["annotations"] = {LAST_SET: json.dumps(mine, sort_keys=True)}
        return {"metadata": meta, "spec": {self.fields[knob]: value for knob, value in mine.items()}}


def scale_ref(namespace: str, kind: str, target: str) -> Ref:
    """The /scale subresource of a workload; kind as in services.yaml (Deployment or group/version/plural)."""
    if kind in BUILT_IN:
        return Ref(*BUILT_IN[kind], namespace, target, "scale")
    parts = kind.split("/")
    if len(parts) != 3 or not all(parts):
        raise ConfigError(f"kind must be Deployment, StatefulSet or group/version/plural, not {kind!r}")
    return Ref(parts[0], parts[1], parts[2], namespace, target, "scale")


def find_owner(cluster: Cluster, scale: Ref, hpa: str | None) -> Owner:
    """The owner of a workload's replicas. hpa: its name where the user gave it (then nothing needs to be listed)."""
    hpas = Ref("autoscaling", "v2", "horizontalpodautoscalers", scale.namespace)
    if hpa:
        found = [cluster.get(_named(hpas, hpa))]
        if not _targets(found[0], scale):
            ref = found[0].get("spec", {}).get("scaleTargetRef", {})
            raise ConfigError(
                f"the HPA {hpa} in {scale.namespace} scales {ref.get('kind')} {ref.get('name')}, not {scale.name}"
            )
    else:
        found = [obj for obj in cluster.items(hpas) if _targets(obj, scale)]
    if len(found) > 1:
        names = ", ".join(sorted(obj["metadata"]["name"] for obj in found))
        raise NotOwner(f"{len(found)} HPAs scale {scale.name} in {scale.namespace} ({names}); slotune stands down")
    if found:
        return _hpa_or_keda(cluster, hpas, found[0])
    scaled = _scaled_object(cluster, scale)
    if scaled is not None:
        return _keda(scaled, scale.namespace)
    return Owner("none", scale, {"replicas": "replicas"}, {"replicas": 0}, cluster.get(scale))


def refetch(cluster: Cluster, owner: Owner) -> Owner:
    """The same owner, read again."""
    return Owner(owner.kind, owner.ref, owner.fields, owner.defaults, cluster.get(owner.ref))


def stand_down(owner: Owner, holder: Object, at_s: float, stand_down_s: float) -> str | None:
    """Why slotune may not write, None when it may.

    holder: the object with the metadata that tells (the owner itself, or the workload behind a scale subresource).
    """
    meta = holder.get("metadata") or {}
    notes, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    paused = notes.get("autoscaling.keda.sh/paused-replicas"), notes.get("autoscaling.keda.sh/paused")
    if owner.kind == "keda" and (paused[0] is not None or str(paused[1]).lower() == "true"):
        return f"{owner.name} is paused by an annotation"
    entries = [entry for entry in meta.get("managedFields") or [] if isinstance(entry, dict)]
    applier = next(
        (e for e in entries if e.get("operation") == "Apply" and _mine_not(e) and _holds(e, owner.fields.values())),
        None,
    )
    if applier is not None:
        return f"{applier.get('manager')} applies {_field_list(owner)} of {owner.name} (server-side apply)"
    tool = gitops_tool(labels, notes)
    if tool and _manifest_sets(owner, entries, notes):
        return f"{owner.name} is managed by {tool}, which would undo or fight the change"
    return _changed_by_other(owner, entries, notes, at_s, stand_down_s)


def writer_of(owner: Owner, holder: Object) -> str:
    """The manager that wrote the owner's fields last, "" when managedFields do not tell."""
    entries = (holder.get("metadata") or {}).get("managedFields") or []
    held = [e for e in entries if isinstance(e, dict) and _holds(e, owner.fields.values())]
    return str(max(held, key=lambda e: str(e.get("time", "")))["manager"]) if held else ""


def _named(ref: Ref, name: str) -> Ref:
    return Ref(ref.group, ref.version, ref.plural, ref.namespace, name, ref.sub)


def _targets(obj: Object, scale: Ref) -> bool:
    ref = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    group = str(ref.get("apiVersion") or "apps/v1").rpartition("/")[0]
    kind = next((k for k, (_, _, plural) in BUILT_IN.items() if plural == scale.plural), None)
    same_kind = kind is None or ref.get("kind", "Deployment") == kind
    return bool(ref.get("name") == scale.name and group == scale.group and same_kind)


def _hpa_or_keda(cluster: Cluster, hpas: Ref, obj: Object) -> Owner:
    meta = obj["metadata"]
    keda = next((o for o in meta.get("ownerReferences") or [] if o.get("kind") == "ScaledObject"), None)
    if keda is not None:
        scaled = cluster.get(Ref("keda.sh", "v1alpha1", "scaledobjects", hpas.namespace, str(keda["name"])))
        return _keda(scaled, hpas.namespace)
    fields = {"min_replicas": "minReplicas", "max_replicas": "maxReplicas"}
    return Owner("hpa", _named(hpas, meta["name"]), fields, {"min_replicas": 1}, obj)


def _keda(obj: Object, namespace: str) -> Owner:
    fields = {"min_replicas": "minReplicaCount", "max_replicas": "maxReplicaCount"}
    ref = Ref("keda.sh", "v1alpha1", "scaledobjects", namespace, obj["metadata"]["name"])
    return Owner("keda", ref, fields, {"min_replicas": 0, "max_replicas": 100}, obj)


def _scaled_object(cluster: Cluster, scale: Ref) -> Object | None:
    """The ScaledObject of a workload without an HPA (a paused one); None where KEDA is not installed."""
    try:
        found = cluster.items(Ref("keda.sh", "v1alpha1", "scaledobjects", scale.namespace))
    except Missing:
        return None
    return next((obj for obj in found if _targets(obj, scale)), None)


def gitops_tool(labels: Mapping[str, Any], notes: Mapping[str, Any]) -> str | None:
    """The GitOps tool that manages an object by its labels and annotations, None when none does (or it is off)."""
    if any(str(notes.get(key, "")).lower() == value for key, value in FLUX_OFF.items()):
        return None
    for known, given in ((GITOPS_LABELS, labels), (GITOPS_ANNOTATIONS, notes)):
        for key, tool in known.items():
            if key in given:
                return tool
    return None


def _manifest_sets(owner: Owner, entries: list[Object], notes: Mapping[str, Any]) -> bool:
    """Whether the tool's manifest sets our fields; unless there is evidence that it does not, it does."""
    tools = [e for e in entries if e.get("manager") in GITOPS_MANAGERS]
    if any(e.get("operation") == "Apply" for e in tools):
        return any(_holds(e, owner.fields.values()) for e in tools)
    try:
        spec = json.loads(notes.get(APPLIED) or "")["spec"]
    except (ValueError, TypeError, KeyError):
        return True
    return any(field in spec for field in owner.fields.values()) or any(_holds(e, owner.fields.values()) for e in tools)


def _changed_by_other(
    owner: Owner, entries: list[Object], notes: Mapping[str, Any], at_s: float, stand_down_s: float
) -> str | None:
    """Somebody changed what slotune had set: that stands for `stand_down_s`, then it is the new starting point."""
    try:
        last = json.loads(notes.get(LAST_SET) or "")
    except ValueError:
        return None
    values = owner.values()
    moved = [owner.fields[k] for k in values if k in last and values[k] != last[k]] if isinstance(last, dict) else []
    if not moved:
        return None
    others = [e for e in entries if _mine_not(e) and _holds(e, moved)]
    newest = max(others, key=lambda e: str(e.get("time", "")), default={"manager": "somebody else"})
    age_s = at_s - _epoch_s(str(newest.get("time", "")), at_s)
    if age_s >= stand_down_s:
        return None
    now = ", ".join(f"{knob} {value}" for knob, value in values.items())
    return (
        f"{newest['manager']} changed {owner.name} after slotune did ({now} now); "
        f"slotune leaves it alone for another {max(0.0, stand_down_s - age_s) / 60:.0f} minutes"
    )


def _mine_not(entry: Object) -> bool:
    return entry.get("manager") != FIELD_MANAGER and entry.get("subresource", "") != "status"


def _holds(entry: Object, fields: Iterable[str]) -> bool:
    spec = (entry.get("fieldsV1") or {}).get("f:spec") or {}
    return any(f"f:{field}" in spec for field in fields)


def _field_list(owner: Owner) -> str:
    return " and ".join(f"spec.{field}" for field in owner.fields.values())


def _epoch_s(text: str, default_s: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return default_s
