"""Where a container holds its batch size, and which of several places counts. Pure.

What counts is what the process gets: of an environment variable that is named twice the last one (the kubelet), of
command and args the one list that they make, of a repeated flag the last one (argparse), written with dashes or with
underscores, with "=" or as two words; in `sh -c SCRIPT` the text of the script; through $(NAME) the variable's place.
"""

from __future__ import annotations

import copy
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tuning.actuators._options import bounded
from tuning.errors import ConfigError, ControlRefused

Workload = dict[str, Any]
Container = dict[str, Any]
SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh", "busybox")
NUMBER = re.compile(r"[0-9]{1,9}")
KUBERNETES_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
SHELL_REFERENCE = re.compile(r"\$(?:\(([A-Za-z_]\w*)\)|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
VALUE = r"\$\(\w+\)|[^\s;&|)]+"
"""A word of a shell script, as far as a number or a variable goes."""
SEPARATOR = re.compile(r"[;|&]|(?<!\\)\n")


@dataclass(frozen=True)
class Place:
    """Where the number stands in a pod template: a JSON pointer, its text, and the text around the number.

    owned: the path below the containers by which managedFields name it.
    """

    pointer: str
    text: str
    prefix: str
    owned: tuple[str, ...]
    suffix: str = ""

    @property
    def number(self) -> str:
        return self.text[len(self.prefix) : len(self.text) - len(self.suffix)]

    @property
    def value(self) -> int:
        return int(self.number)

    def with_value(self, value: int) -> str:
        return f"{self.prefix}{value}{self.suffix}"


def find_place(workload: Workload, container: str, env: str, arg: str) -> Place:
    """The place of an environment variable or a command-line argument in a workload's pod template.

    Raises ConfigError for a container that is not there, ControlRefused for a value that is not a plain number or
    whose place cannot be told.
    """
    pod = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    return _found(pod, container, env, arg, "/spec/template/spec/containers")


@dataclass(frozen=True)
class Spot:
    """How one knob is found: the knob's name, and the environment variable or argument that holds it."""

    knob: str
    container: str
    env: str
    arg: str

    def in_workload(self, workload: Workload) -> Place:
        return find_place(workload, self.container, self.env, self.arg)

    def in_pod(self, pod: Workload) -> int:
        return value_in_pod(pod, self.container, self.env, self.arg)


def with_values(workload: Workload, spots: Sequence[Spot], new: Mapping[str, float | str]) -> list[dict[str, object]]:
    """The JSON patch that sets every knob: two of them may stand in one text (a script), so that each is found in what
    the one before left."""
    left = copy.deepcopy(workload)
    patch: list[dict[str, object]] = []
    for spot in spots:
        place = spot.in_workload(left)
        text = place.with_value(int(new[spot.knob]))
        if text == place.text:
            continue
        patch.append({"op": "replace", "path": place.pointer, "value": text})
        node: Any = left
        *path, last = place.pointer.strip("/").split("/")
        for step in path:
            node = node[int(step)] if isinstance(node, list) else node[step]
        node[int(last) if isinstance(node, list) else last] = text
    return patch


def value_in_pod(pod: Workload, container: str, env: str, arg: str) -> int:
    """The value that a running pod was started with. Raises as find_place."""
    return _found(pod.get("spec") or {}, container, env, arg, "/spec/containers").value


def _found(pod: Workload, container: str, env: str, arg: str, at: str) -> Place:
    containers: list[Container] = pod.get("containers") or []
    names = [bounded(str(c.get("name")), 80) for c in containers]
    if not container and len(names) != 1:
        raise ConfigError(f"the workload has {len(names)} containers ({bounded(', '.join(names))}): name one of them")
    if container and container not in names:
        raise ConfigError(f"the workload has no container {container}; it has {bounded(', '.join(names)) or 'none'}")
    index = names.index(container) if container else 0
    reader = _Reader(containers[index], f"{at}/{index}")
    found = reader.env(env) if env else reader.arg(arg)
    if not NUMBER.fullmatch(found.number):
        raise ControlRefused(f"{env or arg} of container {names[index]} is no number ({bounded(found.number, 60)!r})")
    return found


class _Reader:
    """Reads one container. at: its JSON pointer."""

    def __init__(self, container: Container, at: str) -> None:
        self._container, self._at = container, at
        self._name = bounded(str(container.get("name")), 80)
        self._key = "k:" + json.dumps({"name": container.get("name")}, separators=(",", ":"))

    def env(self, name: str, *, before: int | None = None, hops: int = 0) -> Place:
        """The last entry of that name (the last before an index, for a reference from there)."""
        entries = (self._container.get("env") or [])[:before]
        at = max((i for i, entry in enumerate(entries) if entry.get("name") == name), default=-1)
        assigned = self._assignment(name)
        if assigned is not None:
            return assigned
        if at < 0:
            more = " (its envFrom may, which this lever does not change)" if self._container.get("envFrom") else ""
            raise self._refusal(f"has no environment variable {name}{more}: set it once by hand")
        if "value" not in entries[at]:
            raise ControlRefused(f"{name} comes from a Secret, ConfigMap or field, which this lever does not change")
        owned = (self._key, "f:env", "k:" + json.dumps({"name": name}, separators=(",", ":")))
        place = Place(f"{self._at}/env/{at}/value", str(entries[at]["value"]), "", owned)
        reference = KUBERNETES_REFERENCE.fullmatch(place.text)
        return place if reference is None else self._follow(reference[1], name, hops, before=at)

    def arg(self, name: str) -> Place:
        """The last occurrence in command and args, or in the script of a shell."""
        words = self._words()
        script = _script(words)
        if script is not None:
            return self._in_script(name, *script)
        place: Place | None = None
        for n, (field, i, word) in enumerate(words):
            owned = (self._key, f"f:{field}")
            flag, equals, _ = word.partition("=")
            if _same_flag(flag, name) and equals:
                place = Place(f"{self._at}/{field}/{i}", word, f"{flag}=", owned)
            elif _same_flag(word, name) and n + 1 < len(words):
                field, i, value = words[n + 1]
                place = Place(f"{self._at}/{field}/{i}", value, "", (self._key, f"f:{field}"))
        if place is None:
            raise self._refusal(f"has no argument {name}: set it once by hand")
        reference = KUBERNETES_REFERENCE.fullmatch(place.number)
        return place if reference is None else self._follow(reference[1], name, 0)

    def _words(self) -> list[tuple[str, int, str]]:
        """The one list that command and args make, as (field, index, word)."""
        lists = {field: self._container.get(field) or [] for field in ("command", "args")}
        return [(field, i, str(word)) for field, words in lists.items() for i, word in enumerate(words)]

    def _refusal(self, what: str) -> ControlRefused:
        return ControlRefused(f"container {self._name} {what}")

    def _follow(self, variable: str, name: str, hops: int, before: int | None = None) -> Place:
        """The place of a variable that holds the number for somebody else; only where nobody else uses it."""
        texts = [word for _, _, word in self._words()]
        texts += [str(entry.get("value") or "") for entry in self._container.get("env") or []]
        used = sum(len(re.findall(_REFERENCES.format(re.escape(variable)), text)) for text in texts)
        if hops > 4:
            raise self._refusal(f"has {name} refer to itself")
        if used > 1:
            raise self._refusal(f"has {name} from {bounded(variable, 80)}, which {used} places use: change it by hand")
        return self.env(variable, before=before, hops=hops + 1)

    def _assignment(self, name: str) -> Place | None:
        """An assignment in the container's script, which hides the container's own variable."""
        words = self._words()
        script = _script(words)
        if script is None:
            return None
        field, index, text = script
        found = _matches(rf"(?<![\w-]){re.escape(name)}=({VALUE})", text)
        if not found:
            return None
        if len(found) > 1:
            raise self._refusal(f"sets {name} {len(found)} times in its script: change it by hand")
        return self._cut(field, index, text, *found[0].span(1))

    def _in_script(self, name: str, field: str, index: int, text: str) -> Place:
        flag = "[-_]".join(re.escape(part) for part in re.split("[-_]", name.lstrip("-")))
        dashes = name[: len(name) - len(name.lstrip("-"))]
        found = _matches(rf"(?<![\w-]){dashes}{flag}(?:=|(?:\s|\\\n)+)({VALUE})", text)
        if not found:
            raise self._refusal(f"has no argument {name} in its script: set it once by hand")
        if any(SEPARATOR.search(text, first.end(), then.start()) for first, then in pairwise(found)):
            raise self._refusal(f"has {name} in several commands of its script: change it by hand")
        place = self._cut(field, index, text, *found[-1].span(1))
        reference = SHELL_REFERENCE.fullmatch(place.number)
        return place if reference is None else self._follow(next(filter(None, reference.groups())), name, 0)

    def _cut(self, field: str, index: int, text: str, start: int, end: int) -> Place:
        """The part of a script from start to end, without the quotes around it."""
        while end - start >= 2 and text[start] in "'\"" and text[end - 1] == text[start]:
            start, end = start + 1, end - 1
        place = Place(f"{self._at}/{field}/{index}", text, text[:start], (self._key, f"f:{field}"))
        return replace(place, suffix=text[end:])


_REFERENCES = r"\$(?:\({0}\)|\{{{0}\b|{0}\b)"


def _same_flag(word: str, name: str) -> bool:
    """Whether two spellings are one flag: argparse and vLLM's own parser take _ for - in long ones."""
    long = name.startswith("--")
    return word == name or (long and word.startswith("--") and word.replace("_", "-") == name.replace("_", "-"))


def _script(words: list[tuple[str, int, str]]) -> tuple[str, int, str] | None:
    """(field, index, text) of the script in `sh -c SCRIPT` (also `bash -lc`, `env sh -c`, `tini -- sh -c`)."""
    for n, (_, _, word) in enumerate(words):
        if posixpath.basename(word) not in SHELLS:
            continue
        for at in range(n + 1, len(words) - 1):
            option = words[at][2]
            if re.fullmatch(r"-[a-z]*c[a-z]*", option):
                return words[at + 1]
            if not option.startswith(("-", "+")) and option not in ("sh", "ash", "pipefail"):
                break
    return None


def _matches(pattern: str, text: str) -> list[re.Match[str]]:
    return [found for found in re.finditer(pattern, text) if not _commented(text, found.start())]


def _commented(text: str, at: int) -> bool:
    """Whether the position lies behind a # that begins a comment on its line."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return re.search(r"(?:^|\s)#", line) is not None
