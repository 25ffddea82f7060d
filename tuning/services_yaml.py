"""Reads services.yaml: YAML with units -> Settings, and every mistake with its line, what is wrong and what is right.

Units are written into the value: `p95: 100ms`, `watch_every: 5m`, `error_rate: 1%`. A field whose name ends in
`_ms` or `_s` may be written without that ending, and then needs a unit; written with it, it is a plain number.
All mistakes of a file are reported at once.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from detection import own_signals, pipeline
from detection.errors import ConfigError
from detection.outside_text import printable
from tuning.service_settings import NO_PROMISE
from tuning.services_checks import mistakes
from tuning.settings import Settings
from tuning.yaml_sentences import nearest, sentence
from tuning.yaml_tree import NotReadable, compose, merged

_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "min": 60e3, "h": 3600e3, "d": 86400e3, "w": 7 * 86400e3}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*$")
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")
_MAX_BYTES = 4_000_000
_YEAR_MS = 366 * 86400e3
_LARGEST = 10**12


@dataclass(frozen=True)
class Problem:
    """One mistake: line (1-based), path of the setting, and the sentence."""

    line: int
    path: str
    message: str


class ServicesFileError(ConfigError):
    """Everything that is wrong with a file; `problems` in the file's order."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=lambda p: (p.line, p.path))
        lines = [f"{file}:{p.line}: {p.path + ': ' if p.path else ''}{p.message}" for p in self.problems]
        super().__init__("\n".join(lines))


def load(
    path: str | Path, *, thorough: bool = False, known: Mapping[str, Sequence[str]] | None = None
) -> Settings:
    """Settings from a file; raises ServicesFileError (all mistakes) or ConfigError (no such file).

    thorough: also what would leave one service unwatched while all others are (tuning.services_checks). known: the
    names of registries by the setting that names one of them.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"the file is larger than {_MAX_BYTES} bytes; is it the right one?", where=str(path))
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=str(path)) from error
    return loads(text, name=str(path), thorough=thorough, known=known)


def loads(
    text: str,
    name: str = "services.yaml",
    *,
    thorough: bool = False,
    known: Mapping[str, Sequence[str]] | None = None,
) -> Settings:
    """Settings from text; `name` stands in the messages. thorough, known: as for `load`."""
    try:
        root = compose(text)
    except NotReadable as error:
        raise ServicesFileError(name, [Problem(error.line, "", str(error))]) from error
    reader = _Reader()
    data = reader.model(root, Settings, ())
    problems = [*reader.problems, *_twins(data, reader.lines)]
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        seen = {problem.path for problem in problems}
        found = [reader.problem(dict(e)) for e in error.errors() if not _told(e, reader, problems)]
        # The class as a whole complains of what was already found at its place.
        problems += [p for p in found if p.path not in seen and (p.path or not problems)]
        raise ServicesFileError(name, problems) from error
    problems += _unknown_names(settings, reader)
    problems += [reader.at(path, message) for path, message in (mistakes(settings, known or {}) if thorough else ())]
    if problems:
        raise ServicesFileError(name, problems)
    return settings.completed()


class _Reader:
    """Walks the YAML tree beside the settings classes; remembers the line of every path."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.spelt: dict[tuple[str | int, ...], str] = {}
        self.tags: dict[tuple[str | int, ...], str] = {}

    def model(
        self,
        node: yaml.Node,
        cls: type[BaseModel],
        path: tuple[str | int, ...],
        others: Mapping[str, type[BaseModel]] | None = None,
    ) -> Any:
        """others: what else could stand here, by the name of the actuator that it is for."""
        self._note(node, path)
        if not isinstance(node, yaml.MappingNode):
            self._wrong(node, path, "must be a mapping of keys to values")
            return {}
        data: dict[str, Any] = {}
        for key_node, value_node in merged(node):
            key = printable(key_node.value, 80) if isinstance(key_node, yaml.ScalarNode) else "?"
            field = _field(cls, key)
            if field is None:
                self._wrong(key_node, (*path, key), _unknown(key, cls, others))
            elif field in data:
                self._wrong(key_node, (*path, key), "is given twice")
            else:
                here = (*path, field)
                self.spelt[here] = key
                data[field] = self._value(value_node, cls.model_fields[field], field, key, here)
                self.lines[here] = key_node.start_mark.line + 1
        return data

    def _value(self, node: yaml.Node, info: FieldInfo, field: str, key: str, path: tuple[str | int, ...]) -> Any:
        inner = _model_of(info.annotation)
        variants = _variants(info.annotation)
        if len(variants) > 1 and isinstance(node, yaml.MappingNode):
            return self._variant(node, variants, path)
        if inner is not None and isinstance(node, yaml.SequenceNode):
            return [self.model(item, inner, (*path, i)) for i, item in enumerate(node.value)]
        if inner is not None and not _is_null(node):
            return self.model(node, inner, path)
        if (of_each := _model_of_values(info.annotation)) is not None and isinstance(node, yaml.MappingNode):
            return self._values(node, of_each, path)
        raw = self._plain(node, path)
        if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
            return raw
        if isinstance(raw, (int, float)) and _LARGEST < abs(raw) != math.inf:
            self._wrong(node, path, f"must be at most {_LARGEST:,}: no setting means a number as large as that")
            return None
        for suffix, factor in (("_ms", 1.0), ("_s", 1e-3)):
            if field.endswith(suffix) and _holds_number(info.annotation):
                return self._duration(raw, node, factor, exact=key == field, path=path, key=key)
        if isinstance(raw, str) and _holds_number(info.annotation) and (match := _PERCENT.match(raw)):
            return float(match[1]) / 100.0
        return raw

    def _values(self, node: yaml.MappingNode, cls: type[BaseModel], path: tuple[str | int, ...]) -> dict[str, Any]:
        """A mapping of which each value is a class, or plain."""
        found: dict[str, Any] = {}
        for key_node, value_node in merged(node):
            key = printable(key_node.value, 80) if isinstance(key_node, yaml.ScalarNode) else "?"
            here = (*path, key)
            if key in found:
                self._wrong(key_node, here, "is given twice")
            elif isinstance(value_node, yaml.MappingNode):
                self.tags[here] = cls.__name__
                found[key] = self.model(value_node, cls, here)
            else:
                found[key] = self._plain(value_node, here)
        return found

    def _variant(
        self, node: yaml.MappingNode, variants: Mapping[str, type[BaseModel]], path: tuple[str | int, ...]
    ) -> Any:
        """The class of the actuator that is named reads the node; the first one where none is."""
        named = [value for key, value in node.value if key.value == "actuator"]
        tag = str(getattr(named[0], "value", "")) if named else next(iter(variants))
        if tag not in variants:
            known = ", ".join(variants)
            self._note(node, path)
            message = f"{printable(tag, 60)!r} is not one of {known}{nearest(tag, list(variants), say_known=False)}"
            self._wrong(named[0], (*path, "actuator"), message)
            return None
        self.tags[path] = tag
        return self.model(node, variants[tag], path, variants)

    def _duration(
        self, raw: str | float, node: yaml.Node, factor: float, *, exact: bool, path: tuple[str | int, ...], key: str
    ) -> float | None:
        if isinstance(raw, (int, float)):
            if exact or raw == 0:
                return self._within(float(raw), node, factor, path)
            self._wrong(node, path, f"{raw:g} has no unit: write {raw:g}ms, {raw:g}s or {raw:g}m")
            return None
        match = _DURATION.match(raw)
        if match and match[2] in _UNITS_MS:
            return self._within(float(match[1]) * _UNITS_MS[match[2]] * factor, node, factor, path)
        hint = nearest(match[2], list(_UNITS_MS), say_known=False) if match else ""
        shown = printable(raw, 60)
        self._wrong(node, path, f"{shown!r} is not a duration (units: {', '.join(_UNITS_MS)}){hint}")
        return None

    def _within(self, value: float, node: yaml.Node, factor: float, path: tuple[str | int, ...]) -> float | None:
        """A duration of at most a year, in the field's unit; None (with the mistake noted) beyond that."""
        if abs(value) <= _YEAR_MS * factor or value != value:
            return value
        self._wrong(node, path, "is longer than a year: write a number with one of " + ", ".join(_UNITS_MS))
        return None

    def _plain(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self._note(node, path)
        for index, part in enumerate(node.value if isinstance(node, yaml.SequenceNode) else []):
            self._note(part, (*path, index))
        for part, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            if isinstance(part, yaml.ScalarNode):
                self._note(part, (*path, part.value))
        try:
            return yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError):
            self._wrong(node, path, "cannot be read as a plain value: write a text in quotes, a number or a list")
            return None

    def _note(self, node: yaml.Node, path: tuple[str | int, ...]) -> None:
        self.lines.setdefault(path, node.start_mark.line + 1)

    def _wrong(self, node: yaml.Node, path: tuple[str | int, ...], message: str) -> None:
        self.problems.append(Problem(node.start_mark.line + 1, self._text(path), message))

    def _text(self, path: Sequence[str | int]) -> str:
        text = ""
        for i, part in enumerate(path):
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += ("." if text else "") + self.spelt.get(tuple(path[: i + 1]), part)
        return text

    def problem(self, error: Mapping[str, Any]) -> Problem:
        """A pydantic error as a Problem at the line of the nearest known path."""
        path = self._untagged(error["loc"])
        if error["type"] == NO_PROMISE:
            path = (*path, "p95")
        found = self.at(path, sentence(error))
        if path not in self.spelt and error["type"] == "missing":
            return replace(found, path=re.sub(r"_m?s$", "", found.path))
        return found

    def at(self, path: tuple[str | int, ...], message: str) -> Problem:
        """A mistake at the line of the nearest known path."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return Problem(self.lines.get(known, 1), self._text(path), message)

    def _untagged(self, loc: Sequence[str | int]) -> tuple[str | int, ...]:
        """pydantic names the class that it chose as a step of the path; the file has no such step."""
        path: tuple[str | int, ...] = ()
        for part in loc:
            if self.tags.get(path) != part:
                path = (*path, part)
        return path


def _told(error: Mapping[str, Any], reader: _Reader, problems: Sequence[Problem]) -> bool:
    """Whether an SLO without a promise has one that is written wrongly: that mistake is the one to mend."""
    within = reader.at(tuple(error["loc"]), "").path
    return error["type"] == NO_PROMISE and any(problem.path.startswith(f"{within}.") for problem in problems)


def _twins(data: Mapping[str, Any], lines: Mapping[tuple[str | int, ...], int]) -> list[Problem]:
    """Services of one name, each with the line of the second."""
    seen: dict[object, int] = {}
    problems = []
    services = data.get("services")
    for index, service in enumerate(services if isinstance(services, list) else []):
        name = service.get("name") if isinstance(service, dict) else None
        if isinstance(name, str) and name in seen:
            line = lines.get(("services", index, "name"), 1)
            message = f"two services are named {name!r} (the first is services[{seen[name]}]): give each its own name"
            problems.append(Problem(line, f"services[{index}].name", message))
        elif isinstance(name, str):
            seen[name] = index
    return problems


def _unknown_names(settings: Settings, reader: _Reader) -> list[Problem]:
    """Detectors, rules and series below `detection` that nothing here knows, each with its line."""
    wrong = pipeline.unknown_names(settings.detection, own=own_signals.names(settings.service_values()))
    services = sorted(service.name for service in settings.services)
    for index, series in enumerate(settings.detection.dynamic_series):
        if series.rpartition("/")[0] not in services:
            wrong["dynamic_series", index] = f"{series!r} names no service and signal; services: {', '.join(services)}"
    for index, limit in enumerate(settings.detection.limits):
        for place, name in enumerate(limit.services):
            if name not in services:
                wrong["limits", index, "services", place] = f"{name!r} is no service; services: {', '.join(services)}"
    return [reader.at(("detection", *path), message) for path, message in wrong.items()]


def _unknown(key: str, cls: type[BaseModel], others: Mapping[str, type[BaseModel]] | None) -> str:
    elsewhere = [tag for tag, other in (others or {}).items() if _field(other, key) is not None]
    if elsewhere:
        ours = next(tag for tag, other in (others or {}).items() if other is cls)
        return f"is a key of the actuator {' and '.join(elsewhere)}, not of {ours}; known: {', '.join(_spellings(cls))}"
    return f"unknown key{nearest(key, _spellings(cls))}"


def _field(cls: type[BaseModel], key: str) -> str | None:
    for name, info in cls.model_fields.items():
        if key in _names(name, info):
            return name
    return None


def _names(name: str, info: FieldInfo) -> list[str]:
    if info.alias:
        return [info.alias]
    for suffix in ("_ms", "_s"):
        if name.endswith(suffix) and _holds_number(info.annotation):
            return [name.removesuffix(suffix), name]
    return [name]


def _spellings(cls: type[BaseModel]) -> list[str]:
    return [_names(name, info)[0] for name, info in cls.model_fields.items()]


def _arguments(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _arguments(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType, tuple, list):
        return [part for arg in typing.get_args(annotation) for part in _arguments(arg)]
    return [annotation]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for part in _arguments(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _model_of_values(annotation: Any) -> type[BaseModel] | None:
    """The class that the values of a mapping may be; None where they are plain, or it is no mapping."""
    if typing.get_origin(annotation) is not dict:
        return None
    return _model_of(typing.get_args(annotation)[1])


def _variants(annotation: Any) -> dict[str, type[BaseModel]]:
    """The classes that a key may hold, by the actuator that each is for; {} where there is no such choice."""
    found = {}
    for part in _arguments(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel) and "actuator" in part.model_fields:
            found[str(part.model_fields["actuator"].default)] = part
    return found


def _holds_number(annotation: Any) -> bool:
    return any(part in (int, float) for part in _arguments(annotation))


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
