"""What is wrong with a value of services.yaml, in a sentence that says what to write instead.

A suggestion is never more dangerous than what was written: who wrote an unknown mode is told what the modes do, and is
not led to `act`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from detection.outside_text import printable

_MODES = "observe (plans and mails, changes nothing), approve (asks a person first) or act (changes things by itself)"
_KINDS = {
    "string_type": "must be a text: put it in quotes",
    "tuple_type": "must be a list: write [a, b], or a line with `- ` for each",
    "list_type": "must be a list: write [a, b], or a line with `- ` for each",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number, and not as large",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "extra_forbidden": "unknown key",
}
_LIMITS = {
    "greater_than": ("gt", "must be larger than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be smaller than"),
    "less_than_equal": ("le", "must be at most"),
}


def sentence(error: Mapping[str, Any]) -> str:
    """A pydantic error in words. `loc`, `type`, `ctx`, `input` and `msg` as pydantic has them."""
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    found = f" (found {_shown(given)})"
    if kind == "missing":
        if error["loc"][-1] == "connection":
            return "is missing: a lever needs an address; name an Airflow connection (connection: my_server)"
        return "is missing"
    if kind == "literal_error":
        return _not_one_of(given, re.findall(r"'([^']*)'", str(context.get("expected", ""))))
    if kind == "string_pattern_mismatch":
        return f"must be of letters, digits, dots and dashes, at most 63, beginning with a letter or digit{found}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        limit = context.get(key)
        return f"{words} {f'{limit:.12g}' if isinstance(limit, float) else limit}{found}"
    if kind in _KINDS:
        return _KINDS[kind] + ("" if kind in ("too_short", "string_too_short") else found)
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    message = str(error["msg"])
    return f"{message[0].lower()}{message[1:]}{found}"


def _not_one_of(given: object, known: Sequence[str]) -> str:
    if set(known) == {"observe", "approve", "act"}:
        careful = difflib.get_close_matches(str(given), ["observe", "approve"], n=1, cutoff=0.75)
        near = f"; did you mean {careful[0]!r}?" if careful else ""
        return f"{_shown(given)} is not a mode: write {_MODES}{near}"
    yaml_word = "; YAML reads on, off, yes and no as true and false: put it in quotes" if given in (True, False) else ""
    close = nearest(str(given)[:80], known, say_known=False) if isinstance(given, str) else ""
    return f"{_shown(given)} is not one of {', '.join(known)}{close}{yaml_word}"


def _shown(given: object) -> str:
    """What stands in the file, short and harmless; of a list or mapping only its kind (it may be large)."""
    if isinstance(given, Mapping):
        return "a mapping"
    if isinstance(given, (list, tuple)):
        return "a list"
    if given is None:
        return "nothing"
    if isinstance(given, bool):
        return str(given).lower()
    return printable(repr(given) if not isinstance(given, str) else f"'{given}'", 80)


def nearest(word: str, known: Sequence[str], *, say_known: bool = True) -> str:
    """ "; did you mean 'x'?", else the known words where they are wanted."""
    close = difflib.get_close_matches(word[:80], known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known and say_known else ""
