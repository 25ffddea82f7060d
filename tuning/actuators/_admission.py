"""Limits of what a server or a gateway takes in: their names as knobs, where they stand, and when one is no ground for
a plan. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuning.actuators import _answers as answers
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.errors import ConfigError, ControlRefused
from tuning.model import Change, Knob, Setting

LEVER = "admission"
KNOBS = {"queue": "queue_limit", "concurrency": "concurrency_limit", "rate": "rate_limit"}
"""The knob by what a limit counts."""


@dataclass(frozen=True)
class LimitAt:
    """A limit in a document. pointer: a JSON pointer to it; knob: its name. As `_kubernetes_knobs.Places`."""

    pointer: str
    knob: str

    @property
    def pointers(self) -> tuple[str, ...]:
        return (self.pointer,)

    def knobs(self, document: Any, at: str) -> dict[str, Knob]:
        """The limit as a whole number, -1 and 0 included. ControlRefused with what stands there instead."""
        found = self._found(document, at)
        return {self.knob: limit_of(found, f"{at} shows no usable limit at {self.pointer or 'its top'}")}

    def replacements(self, document: Any, wanted: Mapping[str, Knob], at: str) -> dict[str, Any]:
        """The pointer with the limit, of the kind that stands there now (a text stays a text)."""
        value = int(float(wanted[self.knob]))
        return {self.pointer: str(value) if isinstance(self._found(document, at), str) else value}

    def _found(self, document: Any, at: str) -> Any:
        try:
            return pointers.find(document, pointers.steps(self.pointer))
        except pointers.NoSuchPlace as error:
            raise ControlRefused(f"{at}: in the answer {error}") from error


def limit_of(found: object, words: str) -> int:
    """A limit as it is shown, a text of digits included. ControlRefused, with `words` and what was found, else."""
    text = found.strip() if isinstance(found, str) else ""
    value = int(text) if text.removeprefix("-").isdecimal() and len(text) <= 15 else found
    limit = answers.whole(value, low=-1)
    if limit is None:
        shown = str(found) if isinstance(found, int | float) else repr(found)
        raise ControlRefused(f"{words} ({options.bounded(shown, 60)})")
    return limit


def checked(change: Change, knob: str) -> None:
    """ConfigError where a change names no limit that could be set."""
    wanted = change.new.get(knob)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < -1:
        raise ConfigError(f"the change names no {knob} ({wanted!r})")


def usable(setting: Setting, knob: str, unlimited: int | None) -> Setting:
    """The setting, with why nothing can be planned from it where its limit is none."""
    now = setting.values[knob]
    if setting.useless or (isinstance(now, int) and now > 0) or now == unlimited:
        return setting
    why = (
        f"the limit shows {now}: whether that is no limit at all or takes nothing in is not known; where it means that "
        f"there is none, say so (unlimited: {now})"
    )
    return setting.model_copy(update={"useless": why})
