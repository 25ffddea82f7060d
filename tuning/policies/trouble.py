"""Something that could not be looked after: when it is tried again, and when a person is told. Pure.

An item that fails is tried again after a growing pause; a person is told when it has failed twice, or at once where
trying again cannot help, then daily, until it works again or is gone.
"""

from __future__ import annotations

import json

import pydantic

from detection.model import Value

TROUBLE = "trouble"
"""Where sweeps keep what they could not look after, in the ledger's store."""
HALTED = "runs/halted"
"""The trouble that nothing is done about incidents."""
FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 900.0
TELL_AFTER = 2
TELL_AGAIN_S = 86_400.0
_DOUBLINGS = 16


class Trouble(Value):
    """One item that fails. times: in a row. what: for people. told_s: when a person was told last (None: not yet)."""

    key: str
    what: str
    reason: str
    since_s: float
    last_s: float
    times: int = 1
    told_s: float | None = None
    tellings: int = 0


def again(before: Trouble | None, key: str, what: str, reason: str, at_s: float) -> Trouble:
    """The trouble after one more failure."""
    if before is None:
        return Trouble(key=key, what=what, reason=reason, since_s=at_s, last_s=at_s)
    return before.model_copy(update={"what": what, "reason": reason, "last_s": at_s, "times": before.times + 1})


def due(trouble: Trouble | None, at_s: float) -> bool:
    """Whether to try now. A clock that stepped back is no reason to wait."""
    if trouble is None or trouble.times <= TELL_AFTER:
        return True
    pause_s = min(FIRST_PAUSE_S * 2.0 ** min(trouble.times - TELL_AFTER, _DOUBLINGS), LONGEST_PAUSE_S)
    return not 0.0 <= at_s - trouble.last_s < pause_s


def to_tell(trouble: Trouble, at_s: float) -> bool:
    if trouble.told_s is None:
        return trouble.times >= TELL_AFTER
    return abs(at_s - trouble.told_s) >= TELL_AGAIN_S


def stored(data: bytes | None) -> list[Trouble]:
    """What earlier sweeps left, by the bytes in the store; [] where there is nothing or it cannot be read."""
    try:
        return [Trouble.model_validate(body, extra="ignore") for body in json.loads(data)] if data else []
    except (ValueError, TypeError, pydantic.ValidationError):
        return []
