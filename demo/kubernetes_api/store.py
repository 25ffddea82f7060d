"""The objects, their resource versions and managed fields, and what a write to them means."""

from __future__ import annotations

import copy
import threading
import uuid
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from demo.kubernetes_api import admission, fields, status, validation
from demo.kubernetes_api.resources import HPA, NAMESPACE, POD, Resource

Object = dict[str, Any]
Policy = Callable[[Object], str | None]


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Every object of the cluster behind one lock. Answers and takes deep copies; raises ApiError."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 100
        self.oldest_watchable = 1
        self.events: deque[tuple[int, str, Resource, Object]] = deque(maxlen=2000)
        self.policies: dict[str, tuple[Resource, Policy]] = {}
        self.terminating: set[str] = set()
        self.quotas: dict[str, tuple[str, int]] = {}
        """By namespace: the name of a ResourceQuota and the pods that it allows."""
        self.logs: dict[tuple[str, str], str] = {}
        """Pod logs by (namespace, name)."""
        self._objects: dict[tuple[Resource, str, str], Object] = {}

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        with self.lock:
            found = self._objects.get((resource, namespace, name))
            return copy.deepcopy(found) if found is not None else None

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        found = self.find(resource, namespace, name)
        if found is None:
            raise status.not_found(resource, name)
        return found

    def list(
        self, resource: Resource, namespace: str | None = None, labels: dict[str, str] | None = None
    ) -> list[Object]:
        with self.lock:
            return [
                copy.deepcopy(obj)
                for (kind, space, _), obj in sorted(self._objects.items(), key=lambda item: item[0][1:])
                if kind == resource
                and namespace in (None, space)
                and (labels or {}).items() <= obj["metadata"].get("labels", {}).items()
            ]

    def create(self, resource: Resource, namespace: str, obj: Object, manager: str, *, dry: bool = False) -> Object:
        name = obj.get("metadata", {}).get("name", "")
        with self.lock:
            if (resource, namespace, name) in self._objects:
                raise status.exists(resource, name)
            if namespace in self.terminating:
                raise status.terminating(resource, name, namespace)
            if resource.namespaced and (NAMESPACE, "", namespace) not in self._objects:
                raise status.not_found(NAMESPACE, namespace)
            new = validation.defaulted(resource, validation.coerce(resource, obj, obj))
            validation.check(resource, name, new)
            self._admit(resource, name, new)
            self._admit_pod(resource, namespace, name, new)
            meta = new["metadata"]
            meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now_text()}
            if resource.namespaced:
                meta["namespace"] = namespace
            if resource != HPA:  # an HPA has no generation
                meta["generation"] = 1
            new |= {"apiVersion": resource.api_version, "kind": resource.kind}
            set_, _ = fields.changed({}, {k: v for k, v in obj.items() if k != "status"})
            meta["managedFields"] = fields.record_update([], manager, resource.api_version, now_text(), set_, set())
            return copy.deepcopy(new) if dry else self._put(resource, namespace, name, new, "ADDED")

    def update(self, resource: Resource, namespace: str, name: str, change: Callable[[Object], Object], manager: str, *,
               sub: str = "", dry: bool = False, patch: Any = None) -> Object:  # fmt: skip
        """Read, change, check, write under the lock. A change that changes nothing keeps the resource version."""
        with self.lock:
            old = self.get(resource, namespace, name)
            new = change(copy.deepcopy(old))
            self._check_identity(resource, name, old, new)
            new = validation.defaulted(resource, validation.coerce(resource, new, patch))
            if not sub:
                new["status"] = old.get("status", {})
            validation.check(resource, name, new)
            if sub != "status":
                self._admit(resource, name, new)
            set_, gone = fields.changed(old, new)
            if not set_ and not gone:
                return old
            new["metadata"]["managedFields"] = fields.record_update(
                old["metadata"].get("managedFields", []), manager, resource.api_version, now_text(), set_, gone, sub
            )
            return self._commit(resource, namespace, name, old, new, dry)

    def apply(self, resource: Resource, namespace: str, name: str, wanted: Object, manager: str, *,
              force: bool = False, dry: bool = False) -> Object:  # fmt: skip
        """Server-side apply: fields of other managers conflict unless forced; fields no longer applied go."""
        wanted = copy.deepcopy(wanted)
        meta = wanted.setdefault("metadata", {})
        version = meta.pop("resourceVersion", None)
        mine = fields.leaves(wanted)
        with self.lock:
            old = self.find(resource, namespace, name)
            if old is None:
                meta["name"] = name
                created = self.create(resource, namespace, wanted, manager, dry=dry)
                if not dry:
                    stored = self._objects[(resource, namespace, name)]
                    stored["metadata"]["managedFields"][0]["operation"] = "Apply"
                return created
            if version is not None and version != old["metadata"]["resourceVersion"]:
                raise status.modified(resource, name)
            live, entries = fields.leaves(old), old["metadata"].get("managedFields", [])
            clashes = fields.conflicts(entries, manager, mine, live)
            if clashes and not force:
                raise status.field_conflict(clashes)
            new = old
            for path in fields.dropped(entries, manager, mine):
                new = fields.remove(new, path)
            new = validation.coerce(resource, _strategic(new, wanted), wanted)
            new = validation.defaulted(resource, new)
            new["status"] = old.get("status", {})
            validation.check(resource, name, new)
            self._admit(resource, name, new)
            new["metadata"]["managedFields"] = fields.record_apply(
                entries, manager, resource.api_version, now_text(), mine, live
            )
            return self._commit(resource, namespace, name, old, new, dry)

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        with self.lock:
            gone = self.get(resource, namespace, name)
            del self._objects[(resource, namespace, name)]
            self._tell("DELETED", resource, gone)

    def compact(self) -> None:
        """Forget the past: a watch from an older resource version answers 410 from now on."""
        with self.lock:
            self.oldest_watchable = self.version
            self.events.clear()

    def _check_identity(self, resource: Resource, name: str, old: Object, new: Object) -> None:
        meta, was = new.setdefault("metadata", {}), old["metadata"]
        if meta.get("resourceVersion") not in (None, "", was["resourceVersion"]):
            raise status.modified(resource, name)
        if meta.get("uid", was["uid"]) != was["uid"]:
            raise validation.immutable(resource, name, meta["uid"])
        for key in ("resourceVersion", "uid", "creationTimestamp", "name", "namespace", "managedFields", "generation"):
            if key in was:
                meta[key] = copy.deepcopy(was[key])
        new |= {"apiVersion": old["apiVersion"], "kind": old["kind"]}

    def _admit(self, resource: Resource, name: str, obj: Object) -> None:
        for policy, (kind, rule) in self.policies.items():
            words = rule(obj) if kind == resource else None
            if words:
                raise status.policy_denied(resource, name, policy, words)

    def _admit_pod(self, resource: Resource, namespace: str, name: str, obj: Object) -> None:
        if resource != POD:
            return
        quota, limit = self.quotas.get(namespace, ("", 1_000_000))
        phases = [(pod.get("status") or {}).get("phase") for pod in self.list(POD, namespace)]
        live = [phase for phase in phases if phase not in ("Succeeded", "Failed")]
        labels = self.get(NAMESPACE, "", namespace)["metadata"].get("labels", {})
        words = admission.pod_security(labels, obj.get("spec") or {}) or admission.over_quota(quota, limit, len(live))
        if words:
            raise status.not_admitted(resource, name, words)

    def _commit(self, resource: Resource, namespace: str, name: str, old: Object, new: Object, dry: bool) -> Object:
        if "generation" in old["metadata"] and old.get("spec") != new.get("spec"):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return copy.deepcopy(new) if dry else self._put(resource, namespace, name, new, "MODIFIED")

    def _put(self, resource: Resource, namespace: str, name: str, obj: Object, event: str) -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._objects[(resource, namespace, name)] = copy.deepcopy(obj)
        self._tell(event, resource, obj)
        return copy.deepcopy(obj)

    def _tell(self, event: str, resource: Resource, obj: Object) -> None:
        self.events.append((self.version, event, resource, copy.deepcopy(obj)))
        self.changed.notify_all()


def _strategic(target: Object, patch: Object) -> Object:
    from demo.kubernetes_api.patches import strategic_patch

    return dict(strategic_patch(target, patch))
