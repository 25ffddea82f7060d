"""A restart as a change: that one process be gone. Absolute, readable back, and idempotent: what has ended stays so.

Each process of each replica is a knob of the setting, named REPLICA@INCARNATION, where the incarnation (a pod's uid, a
start time) is made anew by every start. It is "up" while it is there and "gone" ever after.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _options as options
from tuning.errors import ConfigError, ControlRefused
from tuning.model import Change, Receipt

LEVER = "restart"
UP, GONE = "up", "gone"


def knob(name: str, incarnation: str) -> str:
    """The name of one process of a replica among the setting's values."""
    return f"{name}@{incarnation}"


def target(change: Change) -> tuple[str, str]:
    """(replica, incarnation) of the one process that a change ends. Raises ConfigError for any other change."""
    if len(change.new) != 1 or set(change.new.values()) != {GONE}:
        wishes = ", ".join(f"{name} {value}" for name, value in change.new.items()) or "nothing"
        raise ConfigError(f"a restart ends exactly one process (REPLICA@INCARNATION {GONE}), not {wishes}")
    name, at, incarnation = next(iter(change.new)).rpartition("@")
    if not (name and at and incarnation):
        raise ConfigError(f"{next(iter(change.new))!r} names no process: it must be REPLICA@INCARNATION")
    return name, incarnation


def check_others(service: Service, name: str, ready: int) -> None:
    """ControlRefused where too few other replicas are ready for this one to restart."""
    least = max(1, int(options.lever_of(service, LEVER).minimum))
    if ready < least:
        others = "no other replica is" if not ready else f"only {ready} other replica{'s are' if ready > 1 else ' is'}"
        raise ControlRefused(
            f"{name} is not restarted: {others} ready, and {least} must be (min_ready); nothing was changed"
        )


def nothing_to_undo(service: Service, change: Change, key: str, at_s: float) -> Receipt:
    """The receipt of the way back from a restart, which there is none."""
    return options.receipt(
        service,
        change,
        key,
        before=dict(change.old),
        after=dict(change.old),
        changed=False,
        at_s=at_s,
        reason="there is nothing to undo: a process that has ended is not brought back, and the next one serves",
    )
