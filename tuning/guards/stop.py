"""Stop means stop: whether anything may be changed at this service now, apart from the way back to an old value.

`stopped` is asked wherever slotune is about to change something: before a lever is pulled (as a guard), before the
other replicas follow the first, before a lease is handed back, before a task that waited long. It needs no plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from detection.model import Mode, Service
from tuning.guards.freeze import frozen_until, parse_freeze, zone
from tuning.guards.settings import SafetySettings
from tuning.model import Change
from tuning.orders import Direction, Order, paused

MODES: tuple[Mode, ...] = ("observe", "approve", "act")


@dataclass(frozen=True, slots=True)
class Stop:
    """Why nothing may be changed now. name: "dry_run", "mode", "paused" or "freeze". until_s: when that ends by itself
    (epoch seconds), None when a person has to end it."""

    name: str
    reason: str
    until_s: float | None = None


def stopped(
    service: Service,
    levers: Iterable[str],
    safety: SafetySettings,
    at_s: float,
    *,
    planned: Mode = "act",
    dry_run: bool = False,
    orders: Sequence[Order] = (),
    changes: Sequence[Change] = (),
) -> Stop | None:
    """None when these levers of the service may be moved at `at_s`.

    planned, dry_run: of the plan that is being carried out, where there is one. orders: what people said about this
    service. changes: what is about to be done; without them a pause of one direction forbids both. A way back to the
    old value asks nobody: whoever takes it does not call this, and says so.
    """
    levers = tuple(levers)
    if safety.dry_run or dry_run:
        return Stop("dry_run", "Dry run: nothing is changed.")
    if effective_mode(service, levers, planned) == "observe":
        return Stop(
            "mode",
            f"{service.name} is in mode observe: slotune plans and reports, and changes nothing. "
            "Set mode: approve or act to let it.",
        )
    moves: dict[str, Direction] = dict.fromkeys(levers, "both")
    pause = paused(orders, service.name, moves | {c.lever: direction(c) for c in changes}, at_s)
    if pause is not None:
        why = f": {pause.why}" if pause.why else ""
        return Stop("paused", f"{pause.who} paused {_paused_words(pause)}{why}.", pause.until_s)
    frozen = frozen_until(at_s, [parse_freeze(text) for text in safety.freeze], zone(safety.timezone))
    if frozen is None:
        return None
    return Stop("freeze", f"Changes are frozen ({frozen[0].text}, {safety.timezone}).", frozen[1])


def _paused_words(pause: Order) -> str:
    what = pause.lever.replace("_", " ") or "every lever"
    way = "" if pause.direction == "both" else f" ({pause.direction})"
    return f"{what} of {pause.service or 'all services'}{way}"


def direction(change: Change) -> Direction:
    """Which way a change moves its lever; "both" where its knobs go different ways, or are no numbers."""
    found = set()
    for knob, new in change.new.items():
        old = change.old.get(knob)
        if isinstance(old, str) or isinstance(new, str) or old is None:
            return "both"
        if new != old:
            found.add("up" if new > old else "down")
    return "up" if found == {"up"} else "down" if found == {"down"} else "both"


def effective_mode(service: Service, levers: Iterable[str], planned: Mode) -> Mode:
    """The most careful of the plan's mode and each lever's own (which goes before the service's)."""
    modes = [planned]
    for name in levers:
        lever = service.levers.get(name)
        modes.append((lever.mode if lever is not None else None) or service.mode)
    return min(modes, key=MODES.index)
