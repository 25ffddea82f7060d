"""The batch knobs in a document of somebody else's, by JSON pointers and in units of its own. Pure.

A number that is written as a text is one, and stays a text when it is changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuning.actuators import _answers as answers
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.errors import ControlRefused
from tuning.model import Knob

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
UNITS_PER_MS = {"us": 1e3, "ms": 1.0, "s": 1e-3}


@dataclass(frozen=True)
class Where:
    """Pointers to the knobs; batch_timeout None: it is never changed. unit: of the timeout, as it is written there."""

    batch_size: str
    batch_timeout: str | None
    unit: str

    @property
    def pointers(self) -> tuple[str, ...]:
        return (self.batch_size,) if self.batch_timeout is None else (self.batch_size, self.batch_timeout)

    def named(self, knobs: Mapping[str, Knob]) -> dict[str, Knob]:
        """Given knobs by the names of their places, in the document's own units."""
        found: dict[str, Knob] = {}
        if knobs.get("batch_size") is not None:
            found["batch_size"] = int(float(knobs["batch_size"] or 0))
        if knobs.get("batch_timeout_ms") is not None and self.batch_timeout is not None:
            rounded = round(float(knobs["batch_timeout_ms"] or 0) * UNITS_PER_MS[self.unit], 9)
            found["batch_timeout"] = int(rounded) if rounded.is_integer() else rounded
        return found

    def knobs(self, document: Any, at: str) -> dict[str, Knob]:
        """What a document shows. ControlRefused with the pointer that leads nowhere or to nothing usable."""
        size = answers.whole(_shown(document, self.batch_size, at), low=1)
        if size is None:
            found = _quoted(_shown(document, self.batch_size, at))
            raise ControlRefused(f"{at} shows no usable batch size at {self.batch_size or 'its top'} ({found})")
        values: dict[str, Knob] = {"batch_size": size}
        if self.batch_timeout is not None:
            shown = answers.number(_shown(document, self.batch_timeout, at))
            if shown is None:
                found = _quoted(_shown(document, self.batch_timeout, at))
                raise ControlRefused(f"{at} shows no usable batch timeout at {self.batch_timeout} ({found})")
            values["batch_timeout_ms"] = round(shown / UNITS_PER_MS[self.unit], 9)
        return values

    def replacements(self, document: Any, wanted: Mapping[str, Knob], at: str) -> dict[str, Any]:
        """Pointer -> what is to stand there, of the kind that stands there now. ControlRefused: a pointer is none."""
        found: dict[str, Any] = {}
        named = self.named(wanted)
        for name, pointer in (("batch_size", self.batch_size), ("batch_timeout", self.batch_timeout)):
            if pointer is not None and (value := named.get(name)) is not None:
                found[pointer] = str(value) if isinstance(_found(document, pointer, at), str) else value
        return found


def _found(document: Any, pointer: str, at: str) -> Any:
    try:
        return pointers.find(document, pointers.steps(pointer))
    except pointers.NoSuchPlace as error:
        raise ControlRefused(f"{at}: in the answer {error}") from error


def _shown(document: Any, pointer: str, at: str) -> Any:
    found = _found(document, pointer, at)
    if isinstance(found, str) and _NUMBER.fullmatch(found.strip()):
        return float(found) if "." in found else int(found)
    return found


def _quoted(value: object) -> str:
    return options.bounded(str(value) if isinstance(value, int | float) else repr(value), 60)
