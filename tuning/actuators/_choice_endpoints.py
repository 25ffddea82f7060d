"""Levers that choose what serves (a version, a variant) over control endpoints: one per replica, each read back.

Shared by the implementations, which say how one endpoint shows its choice and takes another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from detection.model import Service, make_id
from tuning.actuators._replica_endpoints import ReplicaEndpoints
from tuning.actuators._swap import Knobs, show
from tuning.errors import ConfigError, NotOwner
from tuning.model import Change, Setting


class ChoiceEndpoints(ReplicaEndpoints):
    """Reads and changes what every endpoint of a service serves: the one knob of a lever, a text."""

    knob = ""
    looks = 5

    def wanted_of(self, change: Change) -> Knobs:
        wanted = change.new.get(self.knob)
        if not isinstance(wanted, str) or not wanted:
            raise ConfigError(f"the change names no {self.knob} ({wanted!r})")
        return {self.knob: wanted}

    def made(self, wanted: Knobs, changed: int, of: int) -> str:
        told = f"serves on {changed} of {of} replicas" if changed else "serves already"
        return f"{self.knob} {wanted[self.knob]} {told}"

    def setting(self, shown: Mapping[str, Knobs]) -> Setting:
        common = Counter(str(knobs[self.knob]) for knobs in shown.values()).most_common(1)[0][0]
        others = {name: dict(knobs) for name, knobs in shown.items() if knobs[self.knob] != common}
        words = "; ".join(f"{name} serves {show(knobs)}" for name, knobs in others.items())
        return Setting(
            lever=self.lever,
            values={self.knob: common},
            others=others,
            version=make_id(*sorted((name, knobs[self.knob]) for name, knobs in shown.items())),
            note=f"replicas differ: {words}" if others else "",
        )

    def check_owner(self, service: Service, change: Change, shown: Mapping[str, Knobs]) -> None:
        """Another one than the two that are known came into service meanwhile: its owner is at work."""
        known = {change.old.get(self.knob), change.new.get(self.knob)}
        strange = sorted({str(knobs[self.knob]) for knobs in shown.values()} - {str(v) for v in known if v is not None})
        if strange:
            raise NotOwner(
                f"{service.name} serves {self.knob} {', '.join(strange)}, neither {change.old.get(self.knob)} nor "
                f"{change.new.get(self.knob)}: somebody else brought it into service; slotune stands down"
            )
