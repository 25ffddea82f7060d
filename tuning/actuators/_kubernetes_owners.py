"""Who decides the replicas of a workload: an HPA, a KEDA ScaledObject, or nobody but the workload itself.

Whether slotune may write there is another question: see _kubernetes_stand_down.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Missing, Ref
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._options import bounded
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotOwner
from tuning.model import Knob

LAST_SET = "slotune/last-set"
"""Annotation with the values that slotune set last: how it sees that somebody else changed them since."""
BUILT_IN = {"Deployment": ("apps", "v1", "deployments"), "StatefulSet": ("apps", "v1", "statefulsets")}


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
        kind = {"hpa": "HPA", "keda": "KEDA ScaledObject"}.get(self.kind, self.ref.resource)
        return bounded(f"{kind} {self.ref.name}")

    @property
    def version(self) -> str:
        return str(self.obj.get("metadata", {}).get("resourceVersion", ""))

    @property
    def floor(self) -> str:
        """The knob by which replicas are raised."""
        return "replicas" if self.kind == "none" else "min_replicas"

    def values(self) -> dict[str, Knob]:
        """The knobs that this owner holds. Raises ControlRefused for an object without usable numbers.

        A Scale of zero replicas leaves the number out; anything that is no Scale and has no number tells nothing.
        """
        spec = self.obj.get("spec") or {}
        if self.kind == "none" and "replicas" not in spec and self.obj.get("kind") != "Scale":
            raise ControlRefused(f"{self.ref} shows no spec.replicas: the answer is no Scale")
        found: dict[str, Knob] = {}
        for knob, field in self.fields.items():
            value = spec.get(field, self.defaults.get(knob))
            if not isinstance(value, int) or isinstance(value, bool):
                raise ControlRefused(f"{self.ref} shows no usable spec.{field} ({value!r:.40})")
            found[knob] = value
        return found

    def body(self, values: Mapping[str, Knob], version: str) -> Object:
        """The merge patch that sets these knobs and no other field, under the optimistic lock of a resource version."""
        meta: Object = {"resourceVersion": version}
        mine = {knob: values[knob] for knob in self.fields if knob in values}
        if not self.ref.sub:
            meta["annotations"] = {LAST_SET: json.dumps({**self.values(), **mine}, sort_keys=True)}
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
        found[0]["metadata"].setdefault("name", hpa)
        if not _targets(found[0], scale):
            ref = (found[0].get("spec") or {}).get("scaleTargetRef") or {}
            target = bounded(f"{ref.get('kind')} {ref.get('name')}", 160)
            raise ConfigError(f"the HPA {hpa} in {scale.namespace} scales {target}, not {scale.name}")
    else:
        found = [obj for obj in cluster.items(hpas) if _targets(obj, scale)]
    if len(found) > 1:
        names = bounded(", ".join(sorted(obj["metadata"]["name"] for obj in found)))
        raise NotOwner(f"{len(found)} HPAs scale {scale.name} in {scale.namespace} ({names}); slotune stands down")
    if found:
        return _hpa_or_keda(cluster, hpas, found[0])
    scaled = _scaled_object(cluster, scale)
    if scaled is not None:
        return _keda(scaled, scale.namespace)
    return Owner("none", scale, {"replicas": "replicas"}, {"replicas": 0}, scale_view(cluster, scale))


def scale_view(cluster: Cluster, scale: Ref) -> Object:
    """The Scale of a workload. Raises what Cluster.get does; ControlRefused for a custom resource without replicas,
    whose /scale an API server answers with 500."""
    try:
        return cluster.get(scale)
    except ControlUnreachable:
        if (scale.group, scale.version, scale.plural) in BUILT_IN.values():
            raise
        whole = cluster.get(workload_ref(scale))
        if (whole.get("spec") or {}).get("replicas") is None:
            said = f"{workload_ref(scale)} sets no spec.replicas, so its /scale fails: set it once"
            raise ControlRefused(said) from None
        raise


def workload_ref(scale: Ref) -> Ref:
    """The workload behind a scale subresource."""
    return Ref(scale.group, scale.version, scale.plural, scale.namespace, scale.name)


def refetch(cluster: Cluster, owner: Owner) -> Owner:
    """The same owner, read again."""
    return Owner(owner.kind, owner.ref, owner.fields, owner.defaults, cluster.get(owner.ref))


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
        name = str(keda.get("name") or "")
        scaled = cluster.get(Ref("keda.sh", "v1alpha1", "scaledobjects", hpas.namespace, name))
        scaled["metadata"].setdefault("name", name)
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


