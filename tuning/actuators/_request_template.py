"""Requests as services.yaml writes them: a path, headers and a body with places for the knobs. Pure.

A place is `{batch_size}`, `{batch_timeout}` or `{current}`. A text of a body that is nothing but one place becomes the
value itself (a number stays a number); within a longer text, and in a path, the value is written into it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

PLACES = ("batch_size", "batch_timeout", "current")
_PLACE = re.compile(r"\{([A-Za-z0-9_.-]*)\}")
_PATH = re.compile(r"/[!-~]*")


def places(template: Any) -> set[str]:
    """The places in a path or body, known or not."""
    if isinstance(template, str):
        return set(_PLACE.findall(template))
    if isinstance(template, Mapping):
        template = [*template.keys(), *template.values()]
    return {place for part in template for place in places(part)} if isinstance(template, list) else set()


def unquoted(template: Any) -> str | None:
    """A place that somebody wrote without quotes, which YAML reads as a mapping of one key to nothing."""
    if isinstance(template, Mapping):
        if len(template) == 1 and (key := str(next(iter(template)))) in PLACES and template[key] is None:
            return key
        template = list(template.values())
    found = [unquoted(part) for part in template] if isinstance(template, list) else []
    return next(filter(None, found), None)


def check_path(template: str) -> str:
    """The path itself; ValueError (a sentence) where it is no path below the connection's address."""
    if not _PATH.fullmatch(template) or "#" in template:
        raise ValueError(
            "must be a path below the connection's address, such as /admin/batching?size={batch_size}: it begins "
            "with a slash and has no blanks (write %20)"
        )
    return template


def path(template: str, values: Mapping[str, Any]) -> str:
    """The path with its places filled; what is filled in cannot lead to another path."""
    return _PLACE.sub(lambda match: quote(_text(values[match.group(1)]), safe=""), template)


def text(template: str, values: Mapping[str, Any]) -> str:
    """A text with those of its places filled that there is a value for."""
    return _PLACE.sub(lambda found: _text(values[found[1]]) if found[1] in values else found[0], template)


def body(template: Any, values: Mapping[str, Any]) -> Any:
    """The body with its places filled, as what JSON will be made of."""
    if isinstance(template, str):
        alone = _PLACE.fullmatch(template)
        if alone:
            return values[alone.group(1)]
        return _PLACE.sub(lambda match: _text(values[match.group(1)]), template)
    if isinstance(template, Mapping):
        return {str(body(str(key), values)): body(value, values) for key, value in template.items()}
    return [body(part, values) for part in template] if isinstance(template, list) else template


def _text(value: Any) -> str:
    """Without an exponent where a short form says the same number: not every server reads 1e-05."""
    return f"{value:.12f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
