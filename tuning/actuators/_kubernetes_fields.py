"""One field of any object: how the object is named, and whose the field is by the object's own metadata. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tuning.actuators import _kubernetes_shape as shape
from tuning.actuators._kubernetes_client import FIELD_MANAGER
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import BUILT_IN
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._kubernetes_stand_down import APPLIED, controller_of, gitops_tool
from tuning.actuators._options import bounded
from tuning.errors import ConfigError

_INDEX = re.compile(r"[0-9]+")


def object_ref(namespace: str, kind: str, name: str) -> Ref:
    """An object by its kind: Deployment, StatefulSet, group/version/plural, or version/plural of the core group."""
    if kind in BUILT_IN:
        return Ref(*BUILT_IN[kind], namespace, name)
    parts = kind.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ConfigError(f"kind must be Deployment, StatefulSet, group/version/plural or v1/configmaps, not {kind!r}")
    group, version, plural = parts if len(parts) == 3 else ("", *parts)
    return Ref(group, version, plural, namespace, name)


def reason_to_stand_down(obj: Object, places: Sequence[Sequence[str]]) -> str:
    """Why slotune must not write these places (steps of pointers), "" when it may."""
    above = controller_of(obj)
    if above:
        return f"it belongs to {above} (ownerReferences), whose controller puts its own values back: set it there"
    meta = obj.get("metadata") or {}
    for entry in meta.get("managedFields") or []:
        ours = entry.get("manager") == FIELD_MANAGER
        if entry.get("operation") == "Apply" and not ours and any(_holds(entry, steps) for steps in places):
            return f"{bounded(str(entry.get('manager')), 128)} applies this field (server-side apply)"
    notes = meta.get("annotations") or {}
    tool = gitops_tool(meta.get("labels") or {}, notes)
    if tool is None or not _in_manifest(notes.get(APPLIED), places):
        return ""
    return f"managed by {tool}, whose manifest sets this field (or nothing shows that it leaves it alone)"


def _holds(entry: Object, steps: Sequence[str]) -> bool:
    """Whether a manager's entry holds the place; where it lies within a list, whether it holds anything of the list."""
    node: Any = entry.get("fieldsV1") or {}
    for step in steps:
        if not isinstance(node, dict):
            return False
        if "." in node and len(node) == 1:
            return True  # the whole below here, as of an atomic map
        if _INDEX.fullmatch(step) and f"f:{step}" not in node:
            return bool(node)
        if f"f:{step}" not in node:
            return False
        node = node[f"f:{step}"]
        if node == {}:
            return True
    return True


def _in_manifest(applied: object, places: Sequence[Sequence[str]]) -> bool:
    """Whether the manifest that was applied last sets a place; True as well where there is none to look at."""
    manifest: Any = shape.whole(applied)
    if not manifest:
        return True
    return any(_has(manifest, steps) for steps in places)


def _has(document: Any, steps: Sequence[str]) -> bool:
    for step in steps:
        if isinstance(document, list):
            return True  # its entries may have another order by now
        if not isinstance(document, dict) or step not in document:
            return False
        document = document[step]
    return json.dumps(document) != "null"
