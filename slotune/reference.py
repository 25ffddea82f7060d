"""Writes the configuration reference from the settings' own docstrings: `python -m slotune.reference FILE`."""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tuning.settings import Settings

_INTRO = """# Configuration reference

Generated from the settings' own definitions by `make docs`; a test compares the two.

Durations are written with their unit (`100ms`, `30s`, `5m`, `1h`, `7d`), shares as `1%` or `0.01`. Unknown keys are
errors. Addresses and secrets are never written here: name a connection, and define it in Airflow (Admin >
Connections) or as the environment variable `SLOTUNE_CONN_<NAME>`.
"""


def reference() -> str:
    """The whole page, Markdown."""
    lines = [_INTRO]
    seen: set[type[BaseModel]] = set()
    _section(Settings, "", lines, seen)
    return "\n".join(lines).rstrip() + "\n"


def _section(cls: type[BaseModel], path: str, lines: list[str], seen: set[type[BaseModel]]) -> None:
    seen.add(cls)
    inner: list[tuple[type[BaseModel], str]] = []
    doc = (cls.__doc__ or "").strip()
    lines += [f"## {path or 'services.yaml'}", "", doc, "", "| key | default | meaning |", "|---|---|---|"]
    for name, info in cls.model_fields.items():
        key = _key(name, info)
        models, many = _models(info.annotation)
        text = " ".join((info.description or "").split())
        lines.append(f"| `{key}` | {_default(name, info, bool(models))} | {_cell(text)} |")
        for model in models:
            which = f" (actuator: {model.model_fields['actuator'].default})" if len(models) > 1 else ""
            inner.append((model, f"{path}.{key}{'[]' if many else ''}{which}".lstrip(".")))
    lines.append("")
    for model, where in inner:
        if model not in seen:
            _section(model, where, lines, seen)


def _key(name: str, info: FieldInfo) -> str:
    if info.alias:
        return info.alias
    return name.removesuffix("_ms") if name.endswith("_ms") else name.removesuffix("_s")


def _default(name: str, info: FieldInfo, is_section: bool) -> str:
    if info.is_required():
        return "required"
    if is_section or info.default is PydanticUndefined:
        return ""
    value = info.default
    if value is None or value == () or value == {} or value == "":
        return ""
    if isinstance(value, float) and name.endswith("_s"):
        return f"`{_duration(value)}`"
    if isinstance(value, float) and name.endswith("_ms"):
        return f"`{value:g}ms`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _models(annotation: Any) -> tuple[list[type[BaseModel]], bool]:
    """(the sections that may stand behind a field, whether it is a list of them)."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _models(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType, tuple, list):
        found = [model for part in typing.get_args(annotation) for model in _models(part)[0]]
        return found, bool(found) and origin in (tuple, list)
    if origin is dict:
        return _models(typing.get_args(annotation)[1])[0], False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], False
    return [], False


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
