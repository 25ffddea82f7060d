"""Levers whose knobs are numbers, over control endpoints. A replica that shows neither value is set as well.

Shared by the implementations, which say how one endpoint is read and set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from detection.model import Service, make_id
from tuning.actuators import _options as options
from tuning.actuators._replica_endpoints import ReplicaEndpoints
from tuning.actuators._swap import Knobs, show
from tuning.errors import NotOwner
from tuning.model import Change, Setting

READ_BACKS = 3
_TITLES = {"batch_size": "batch setting", "admission": "admission limit"}


class KnobEndpoints(ReplicaEndpoints):
    """Reads and changes the numbers of every endpoint of a service."""

    looks = READ_BACKS

    def setting(self, shown: Mapping[str, Knobs]) -> Setting:
        return setting_of(shown, self.lever)

    def check_owner(self, service: Service, change: Change, shown: Mapping[str, Knobs]) -> None:
        check_owner(service, change, shown)


def setting_of(shown: Mapping[str, Knobs], lever: str) -> Setting:
    """The setting that most places show, with the others beside it."""
    common = Counter(tuple(sorted(values.items())) for values in shown.values()).most_common(1)[0][0]
    others = {name: dict(v) for name, v in shown.items() if tuple(sorted(v.items())) != common}
    return Setting(
        lever=lever,
        values=dict(common),
        others=others,
        version=make_id(*sorted((name, tuple(sorted(v.items()))) for name, v in shown.items())),
        note=f"replicas differ: {'; '.join(f'{name} has {show(v)}' for name, v in others.items())}" if others else "",
    )


def check_owner(service: Service, change: Change, shown: Mapping[str, Knobs]) -> None:
    """A replica that restarted shows neither value and is set; when none shows either, somebody else was here."""
    if not any(options.agrees(v, change.old) or options.agrees(v, change.new) for v in shown.values()):
        raise NotOwner(
            f"{service.name}: the {_TITLES.get(change.lever, change.lever)} is "
            f"{show(setting_of(shown, change.lever).values)}, neither {show(change.old)} nor "
            f"{show(change.new)}: somebody else changed it; slotune stands down"
        )
