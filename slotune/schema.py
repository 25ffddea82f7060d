"""The JSON schema of services.yaml, as a person writes it: keys without their unit's ending, durations with a unit."""

from __future__ import annotations

from typing import Any

from detection import presets
from tuning.settings import Settings

_DURATION = {
    "type": "string",
    "pattern": r"^\s*\d+(\.\d+)?\s*(us|ms|s|m|min|h|d|w)\s*$",
    "description": "a number and its unit: us, ms, s, m, h, d or w",
}
_PERCENT = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}


def services_schema() -> dict[str, Any]:
    """Draft 2020-12, made from the settings' own classes."""
    schema = Settings.model_json_schema(by_alias=True)
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object" and "properties" in part:
            _as_written(part)
    serving = schema["$defs"]["ServiceSettings"]["properties"]["serving"]
    # a preset of one's own has any name; an editor proposes ours, and a file that brings none has no other
    ours = {"enum": sorted(presets.OURS)}
    serving["anyOf"] = [ours, {"type": serving.pop("type")}]
    schema["if"] = {"not": {"required": ["presets"]}}
    schema["then"] = {"properties": {"services": {"items": {"properties": {"serving": ours}}}}}
    _name_actuators(schema, schema["$defs"])
    told = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "slotune services.yaml"}
    return {**told, **{key: value for key, value in schema.items() if key != "title"}}


def _name_actuators(part: Any, definitions: dict[str, Any]) -> None:
    """A lever that names no actuator is of the first kind; the others have to name theirs."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _name_actuators(inner, definitions)
    for choice in part.get("oneOf", [])[1:] if isinstance(part, dict) else []:
        lever = definitions.get(str(choice.get("$ref", "")).rpartition("/")[2], {})
        if "actuator" in lever.get("properties", {}):
            lever["required"] = sorted({*lever.get("required", ()), "actuator"})


def _as_written(part: dict[str, Any]) -> None:
    properties: dict[str, Any] = {}
    required = set(part.get("required", ()))
    for name, value in part["properties"].items():
        ending = next((e for e in ("_ms", "_s") if name.endswith(e) and _is_number(value)), "")
        if not ending:
            properties[name] = _share(value) if _is_number(value) else value
            continue
        word = name.removesuffix(ending)
        said = {"description": value["description"]} if "description" in value else {}
        properties[word] = {"anyOf": [_DURATION, {"const": 0}], **said}
        properties[name] = value
        if name in required:
            required.remove(name)
            part.setdefault("allOf", []).append({"anyOf": [{"required": [word]}, {"required": [name]}]})
    part["properties"] = properties
    if "required" in part:
        part["required"] = sorted(required)


def _is_number(value: dict[str, Any]) -> bool:
    kinds = [value, *value.get("anyOf", ())]
    return any(kind.get("type") in ("number", "integer") for kind in kinds)


def _share(value: dict[str, Any]) -> dict[str, Any]:
    """Numbers may also be written as a percentage."""
    if value.get("type") != "number":
        return value
    outer: dict[str, Any] = {key: value[key] for key in ("description", "default", "title") if key in value}
    inner = {key: inner for key, inner in value.items() if key not in outer}
    return {**outer, "anyOf": [inner, _PERCENT]}
