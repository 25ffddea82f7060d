"""Pod templates and rollouts: where a container holds its batch size, and how far a rollout has come. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tuning.actuators._options import bounded
from tuning.errors import ConfigError, ControlRefused

Workload = dict[str, Any]
Progress = Literal["done", "going", "failed"]


@dataclass(frozen=True)
class Place:
    """Where the number stands in a pod template: a JSON pointer, its text, and the text around the number."""

    pointer: str
    text: str
    prefix: str
    owned: tuple[str, ...]

    @property
    def value(self) -> int:
        return int(self.text.removeprefix(self.prefix))

    def with_value(self, value: int) -> str:
        return f"{self.prefix}{value}"


def find_place(workload: Workload, container: str, env: str, arg: str) -> Place:
    """The place of an environment variable or a command-line argument (`--name=8`, or `--name` and `8`).

    Raises ConfigError for a container that is not there, ControlRefused for a value that is not a plain number.
    """
    pod = workload.get("spec", {}).get("template", {}).get("spec", {})
    containers = [c for c in pod.get("containers") or [] if isinstance(c, dict)]
    names = [str(c.get("name")) for c in containers]
    if not container and len(names) != 1:
        raise ConfigError(f"the workload has {len(names)} containers ({', '.join(names)}): name one of them")
    if container and container not in names:
        raise ConfigError(f"the workload has no container {container}; it has {', '.join(names) or 'none'}")
    index = names.index(container) if container else 0
    found = _in_env(containers[index], index, env) if env else _in_args(containers[index], index, arg)
    if not found.text.removeprefix(found.prefix).isdigit():
        raise ControlRefused(f"{env or arg} of container {names[index]} is no number ({bounded(found.text, 60)!r})")
    return found


def _in_env(container: dict[str, Any], index: int, env: str) -> Place:
    for at, entry in enumerate(container.get("env") or []):
        if entry.get("name") == env:
            if "value" not in entry:
                raise ControlRefused(f"{env} comes from a Secret, ConfigMap or field, which this lever does not change")
            owned = (_key(container), "f:env", "k:" + json.dumps({"name": env}, separators=(",", ":")))
            pointer = f"/spec/template/spec/containers/{index}/env/{at}/value"
            return Place(pointer, str(entry["value"]), "", owned)
    raise ControlRefused(f"container {container.get('name')} has no environment variable {env}: set it once by hand")


def _in_args(container: dict[str, Any], index: int, arg: str) -> Place:
    for field in ("args", "command"):
        words = [str(word) for word in container.get(field) or []]
        for at, word in enumerate(words):
            pointer = f"/spec/template/spec/containers/{index}/{field}/"
            if word.startswith(f"{arg}="):
                return Place(f"{pointer}{at}", word, f"{arg}=", (_key(container), f"f:{field}"))
            if word == arg and at + 1 < len(words):
                return Place(f"{pointer}{at + 1}", words[at + 1], "", (_key(container), f"f:{field}"))
    raise ControlRefused(f"container {container.get('name')} has no argument {arg}: set it once by hand")


def _key(container: dict[str, Any]) -> str:
    return "k:" + json.dumps({"name": container.get("name")}, separators=(",", ":"))


def appliers(entries: Iterable[Any], place: Place) -> list[str]:
    """Managers that hold the place by server-side apply, and would put it back."""
    path = ("f:spec", "f:template", "f:spec", "f:containers", *place.owned)
    found = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("operation") != "Apply":
            continue
        node: Any = entry.get("fieldsV1") or {}
        for segment in path:
            node = node.get(segment) if isinstance(node, dict) else None
        if node is not None:
            found.append(str(entry.get("manager")))
    return found


def progress(workload: Workload) -> tuple[Progress, str]:
    """How far the rollout of the newest template is, with the controller's words."""
    state, wanted = workload.get("status") or {}, int(workload.get("spec", {}).get("replicas") or 0)
    if int(state.get("observedGeneration") or 0) < int(workload["metadata"].get("generation") or 0):
        return "going", "the controller has not looked yet"
    for condition in state.get("conditions") or []:
        if condition.get("type") == "Progressing" and condition.get("status") == "False":
            return "failed", bounded(f"{condition.get('reason')}: {condition.get('message')}")
    updated, ready = int(state.get("updatedReplicas") or 0), int(state.get("readyReplicas") or 0)
    left = int(state.get("replicas") or 0) - updated
    if updated >= wanted and ready >= wanted and left <= 0:
        return "done", f"{updated} of {wanted} pods have the new template and are ready"
    return (
        "going",
        f"{updated} of {wanted} pods have the new template, {ready} are ready, {max(0, left)} old ones remain",
    )
