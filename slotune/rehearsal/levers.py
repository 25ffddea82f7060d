"""The levers of a counterfactual service: absolute, idempotent and read back, like those of a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from detection.errors import ConfigError
from detection.model import Service
from slotune.rehearsal.counterfactual import Counterfactual
from tuning.model import Change, Knob, Receipt, Setting
from tuning.ports import Actuator

LENT = ("batch_size", "replicas", "precision")
"""Levers whose effect the model knows. A variant is another model with a speed of its own, a restart heals what the
history shows of one replica, a release changes everything: of none of them a history says what it would have done."""


def not_lent(service: Service) -> tuple[str, ...]:
    """The service's levers that no rehearsal can lend."""
    return tuple(sorted(set(service.levers) - set(LENT)))


class RehearsedLever:
    """One lever of the services of a rehearsal."""

    name = "rehearsed"

    def __init__(self, lever: str, worlds: Mapping[str, Counterfactual]) -> None:
        self.lever = lever
        self._worlds = worlds

    def read(self, service: Service) -> Setting:
        world = self._worlds[service.name]
        return Setting(lever=self.lever, values=_values(self.lever, world), owner="rehearsal")

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        world = self._worlds[service.name]
        before = {name: value for name, value in _values(self.lever, world).items() if name in change.new}
        if before != change.new:
            _set(self.lever, world, change.new)
        return Receipt(
            id=key, plan_id="", service=service.name, lever=self.lever, before=before, after=dict(change.new),
            applied=True, changed=before != change.new, at_s=world.now_s,
        )  # fmt: skip


def actuators(worlds: Mapping[str, Counterfactual]) -> Callable[[Service, str], Actuator]:
    """The actuator of a service's lever, as the loop asks for it."""

    def actuator(service: Service, lever: str) -> Actuator:
        if lever not in service.levers:
            raise ConfigError(f"service {service.name!r} has no lever {lever!r} in services.yaml")
        return RehearsedLever(lever, worlds)

    return actuator


def _values(lever: str, world: Counterfactual) -> dict[str, Knob]:
    knobs = world.knobs()
    if lever == "batch_size":
        waits: dict[str, Knob] = {"batch_timeout_ms": knobs.timeout_ms} if world.has_timeout else {}
        return {"batch_size": knobs.batch, **waits}
    if lever == "replicas":
        most = max(knobs.desired, int(world.service.levers["replicas"].maximum))
        return {"min_replicas": knobs.desired, "max_replicas": most, "replicas": world.running()}
    return {"version": "1", "precision": "int8" if knobs.int8 else "fp32"}


def _set(lever: str, world: Counterfactual, new: Mapping[str, Knob]) -> None:
    knobs = world.knobs()
    if lever == "batch_size":
        world.put(
            lever, (int(new.get("batch_size", knobs.batch)), float(new.get("batch_timeout_ms", knobs.timeout_ms)))
        )
    elif lever == "replicas":
        world.put(lever, int(new.get("min_replicas", knobs.desired)))
    else:
        world.put(lever, new.get("precision") == "int8")
