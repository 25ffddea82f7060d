"""Stop means stop: whether anything may be changed at this service now, apart from the way back to an old value.

`stopped` is asked wherever slotune is about to change something: before a lever is pulled (as a guard), before the
other replicas follow the first, before a lease is handed back, before a task that waited long. It needs no plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detection.model import Mode, Service
from tuning.guards.freeze import frozen_until, parse_freeze, zone
from tuning.guards.settings import SafetySettings

MODES: tuple[Mode, ...] = ("observe", "approve", "act")


@dataclass(frozen=True, slots=True)
class Stop:
    """Why nothing may be changed now. name: "dry_run", "mode" or "freeze". until_s: when that ends by itself
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
) -> Stop | None:
    """None when these levers of the service may be moved at `at_s`.

    planned, dry_run: of the plan that is being carried out, where there is one. A way back to the old value asks
    nobody: whoever takes it does not call this, and says so.
    """
    if safety.dry_run or dry_run:
        return Stop("dry_run", "Dry run: nothing is changed.")
    if effective_mode(service, levers, planned) == "observe":
        return Stop(
            "mode",
            f"{service.name} is in mode observe: slotune plans and reports, and changes nothing. "
            "Set mode: approve or act to let it.",
        )
    frozen = frozen_until(at_s, [parse_freeze(text) for text in safety.freeze], zone(safety.timezone))
    if frozen is None:
        return None
    return Stop("freeze", f"Changes are frozen ({frozen[0].text}, {safety.timezone}).", frozen[1])


def effective_mode(service: Service, levers: Iterable[str], planned: Mode) -> Mode:
    """The most careful of the plan's mode and each lever's own (which goes before the service's)."""
    modes = [planned]
    for name in levers:
        lever = service.levers.get(name)
        modes.append((lever.mode if lever is not None else None) or service.mode)
    return min(modes, key=MODES.index)
