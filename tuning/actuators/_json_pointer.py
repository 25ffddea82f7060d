"""JSON pointers (RFC 6901): where in a document a value stands. Pure."""

from __future__ import annotations

import re
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_BAD_ESCAPE = re.compile(r"~(?![01])")


class NoSuchPlace(LookupError):
    """A pointer leads nowhere in a document; the text says at which step, and quotes the pointer's own words only."""


def check(pointer: str) -> str:
    """The pointer itself; ValueError (a sentence) where it is none."""
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"a JSON pointer begins with a slash: write /{pointer}")
    if _BAD_ESCAPE.search(pointer):
        raise ValueError("in a JSON pointer ~ is written ~0, and / inside a name ~1")
    return pointer


def steps(pointer: str) -> list[str]:
    """The names and indexes of a pointer, unescaped; [] for the whole document."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def below(pointer: str, top: str) -> list[str] | None:
    """The steps of `pointer` from `top` on, None where it does not lie at or below it."""
    inner, outer = steps(pointer), steps(top)
    return inner[len(outer) :] if inner[: len(outer)] == outer else None


def find(document: Any, path: list[str]) -> Any:
    """The value at a place. Raises NoSuchPlace."""
    for depth, step in enumerate(path):
        document = document[_key(document, step, path[: depth + 1])]
    return document


def replaced(document: Any, path: list[str], value: Any) -> Any:
    """The document with another value at a place that it has; the given one stays as it is. Raises NoSuchPlace."""
    if not path:
        return value
    key = _key(document, path[0], path[:1])
    copied = dict(document) if isinstance(document, dict) else list(document)
    copied[key] = replaced(document[key], path[1:], value)
    return copied


def _key(document: Any, step: str, path: list[str]) -> Any:
    at = "/" + "/".join(path)
    if isinstance(document, dict):
        if step not in document:
            raise NoSuchPlace(f"nothing stands at {at}")
        return step
    if not isinstance(document, list):
        raise NoSuchPlace(f"nothing stands at {at}")
    if not _INDEX.fullmatch(step) or int(step) >= len(document):
        raise NoSuchPlace(f"nothing stands at {at}: the list there has {len(document)} entries")
    return int(step)
