"""managedFields: who set which field. Paths are tuples of FieldsV1 segments ("f:spec", 'k:{"name":"web"}')."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

from demo.kubernetes_api.patches import MERGE_KEYS

Path = tuple[str, ...]
UNTRACKED = {("f:metadata", f"f:{n}") for n in (
    "managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "name", "namespace",
)} | {("f:apiVersion",), ("f:kind",)}  # fmt: skip


def leaves(value: Any, field: str = "", at: Path = ()) -> dict[Path, Any]:
    """Every tracked leaf with its value. A list without a merge key is one leaf."""
    if at in UNTRACKED:
        return {}
    if isinstance(value, dict) and value:
        found: dict[Path, Any] = {}
        for key, inner in value.items():
            found |= leaves(inner, key, (*at, f"f:{key}"))
        return found
    if isinstance(value, list) and value and field in MERGE_KEYS and all(isinstance(v, dict) for v in value):
        key = MERGE_KEYS[field]
        found = {}
        for item in value:
            found |= leaves(item, "", (*at, "k:" + json.dumps({key: item.get(key)}, separators=(",", ":"))))
        return found
    return {at: value} if at else {}


def to_tree(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for segment in path:
            node = node.setdefault(segment, {})
    return tree


def from_tree(tree: dict[str, Any], at: Path = ()) -> set[Path]:
    if not tree:
        return {at} if at else set()
    found: set[Path] = set()
    for segment, inner in tree.items():
        found |= from_tree(inner, (*at, segment))
    return found


def shown(path: Path) -> str:
    """The path as error messages show it: .spec.template.spec.containers[name="web"].image"""
    text = ""
    for segment in path:
        if segment.startswith("f:"):
            text += "." + segment[2:]
        else:
            keys = json.loads(segment[2:])
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in keys.items()) + "]"
    return text


def changed(before: dict[str, Any], after: dict[str, Any]) -> tuple[set[Path], set[Path]]:
    """(leaves that were set to another value, leaves that are gone)."""
    old, new = leaves(before), leaves(after)
    return {p for p in new if p not in old or old[p] != new[p]}, {p for p in old if p not in new}


def record_update(
    entries: list[dict[str, Any]], manager: str, version: str, now: str, set_: set[Path], gone: set[Path], sub: str = ""
) -> list[dict[str, Any]]:
    """The entries after `manager` wrote these fields: a written field belongs to its last writer alone."""
    result = []
    mine: set[Path] = set(set_)
    for entry in entries:
        owned = from_tree(entry["fieldsV1"]) - gone
        if _is(entry, manager, "Update", sub):
            mine |= owned
            continue
        owned -= set_
        if owned:
            result.append({**entry, "fieldsV1": to_tree(owned)})
    if mine:
        result.append(_entry(manager, "Update", version, now, mine, sub))
    return result


def conflicts(
    entries: list[dict[str, Any]], manager: str, wanted: dict[Path, Any], live: dict[Path, Any]
) -> list[tuple[str, str, str]]:
    """Fields that an apply of `wanted` would take from other managers, as (manager, apiVersion, path)."""
    found = []
    for entry in entries:
        if _is(entry, manager, "Apply", ""):
            continue
        found += [
            (entry["manager"], entry["apiVersion"], shown(path))
            for path in sorted(from_tree(entry["fieldsV1"]))
            if path in wanted and wanted[path] != live.get(path)
        ]
    return found


def record_apply(
    entries: list[dict[str, Any]], manager: str, version: str, now: str, wanted: dict[Path, Any], live: dict[Path, Any]
) -> list[dict[str, Any]]:
    """The entries after a (forced or unconflicting) apply: an equal value is shared, another one is taken."""
    taken = {path for path, value in wanted.items() if live.get(path) != value}
    result = []
    for entry in entries:
        if _is(entry, manager, "Apply", ""):
            continue
        owned = from_tree(entry["fieldsV1"]) - taken
        if owned:
            result.append({**entry, "fieldsV1": to_tree(owned)})
    result.append(_entry(manager, "Apply", version, now, set(wanted), ""))
    return result


def dropped(entries: list[dict[str, Any]], manager: str, wanted: dict[Path, Any]) -> set[Path]:
    """Fields that `manager` applied before, does not apply any more, and nobody else owns: they are removed."""
    before: set[Path] = set()
    others: set[Path] = set()
    for entry in entries:
        owned = from_tree(entry["fieldsV1"])
        if _is(entry, manager, "Apply", ""):
            before |= owned
        else:
            others |= owned
    return {path for path in before if path not in wanted and path not in others}


def remove(obj: dict[str, Any], path: Path) -> dict[str, Any]:
    """The object without a plain (not keyed) field."""
    result = copy.deepcopy(obj)
    node: Any = result
    for segment in path[:-1]:
        node = node.get(segment[2:]) if segment.startswith("f:") and isinstance(node, dict) else None
        if node is None:
            return result
    if isinstance(node, dict):
        node.pop(path[-1][2:], None)
    return result


def _is(entry: dict[str, Any], manager: str, operation: str, sub: str) -> bool:
    return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, operation, sub)


def _entry(manager: str, operation: str, version: str, now: str, paths: set[Path], sub: str) -> dict[str, Any]:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": to_tree(paths),
    }
    return {**entry, "subresource": sub} if sub else entry
