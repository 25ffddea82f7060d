"""Knobs in fields of any Kubernetes object, by JSON pointer: what an operator, or a gateway's controller, reads.

Written by a JSON patch under the object's resource version, with slotune as field manager, and read back. Not by
server-side apply: an apply takes a field from whoever owns it for good, and takes back what an earlier apply of ours
set elsewhere in the object. Owners are respected all the same: a controller above the object, whoever applies the
field, GitOps.

Shared by the implementations, which say where the knobs stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from detection.model import Service
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.actuators._knob_endpoints import READ_BACKS, check_owner, setting_of
from tuning.actuators._kubernetes_client import Cluster, Clusters
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_fields import object_ref, reason_to_stand_down
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._swap import Knobs, swap
from tuning.errors import Conflict, NotOwner
from tuning.model import Change, Knob, Receipt, Setting
from tuning.ports import Connections

TRIES = 6
FIRST_PAUSE_S = 0.05


class Places(Protocol):
    """Where knobs stand in a document. pointers: JSON pointers to them."""

    @property
    def pointers(self) -> tuple[str, ...]: ...

    def knobs(self, document: Any, at: str) -> dict[str, Knob]:
        """What a document shows. Raises ControlRefused."""
        ...

    def replacements(self, document: Any, wanted: Mapping[str, Knob], at: str) -> dict[str, Any]:
        """Pointer -> what is to stand there. Raises ControlRefused."""
        ...


@dataclass(frozen=True)
class Target:
    """An object with knobs. kind: group/version/plural or a known one."""

    connection: str
    namespace: str
    kind: str
    name: str
    timeout_s: float
    places: Places


class KubernetesFields:
    """Reads and changes the knobs of one object. A value given is absolute; a repeat changes nothing."""

    name = ""
    lever = ""

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._clusters = Clusters(connections)

    def target(self, service: Service) -> Target:
        """The object of a service's lever. Raises ConfigError."""
        raise NotImplementedError

    def read(self, service: Service) -> Setting:
        """The knobs in the object; `note`: why slotune would stand down. Raises ControlUnreachable, ControlRefused."""
        field = self._field(service)
        obj = field.get()
        shown = setting_of({str(field.ref): field.knobs(obj)}, self.lever)
        why = field.taken(obj)
        note = f"slotune stands down: {why}" if why else ""
        version = str(obj["metadata"].get("resourceVersion", ""))
        return shown.model_copy(update={"owner": str(field.ref), "note": note, "version": version})

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for this lever."""
        ref = self._field(service).ref
        return [("get", ref), ("patch", ref)]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether it does."""
        return self._field(service).cluster.may(verb, ref)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Write the fields unless they hold the values already, and read back.

        Raises ControlUnreachable, ControlRefused, NotOwner, Conflict (nothing changed), NotApplied, OutcomeUnknown.
        """
        started_s, field = self._clock(), self._field(service)
        name = str(field.ref)
        obj = field.get()
        before = {name: field.knobs(obj)}
        check_owner(service, change, before)
        if not options.agrees(before[name], change.new) and (why := field.taken(obj)):
            raise NotOwner(f"{name}: {why}; slotune stands down")
        field.expect(before[name])
        made = swap({name: field}, before, change.new, sleep=self._sleep, looks=READ_BACKS, undoes=change.undoes)
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=dict(before[name]),
            after=dict((before | made)[name]),
            changed=bool(made),
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"{name} patched and read back" if made else "already there",
        )

    def _field(self, service: Service) -> _Field:
        target = self.target(service)
        return _Field(self._clusters.of(target.connection, target.timeout_s), target, self._sleep)


class _Field:
    """The object of a lever, as `swap` needs it."""

    def __init__(self, cluster: Cluster, target: Target, sleep: Callable[[float], None]) -> None:
        self.cluster, self._sleep = cluster, sleep
        self.ref = object_ref(target.namespace, target.kind, target.name)
        self.shown = str(self.ref)
        self._expected: Knobs | None = None
        self._where = target.places

    def expect(self, knobs: Knobs) -> None:
        """What the first write has to find; anything else there is somebody's decision since."""
        self._expected = knobs

    def get(self) -> Object:
        return self.cluster.get(self.ref)

    def knobs(self, obj: Object) -> Knobs:
        return self._where.knobs(obj, self.shown)

    def taken(self, obj: Object) -> str:
        """Why the fields are somebody else's, "" when they are nobody's."""
        return reason_to_stand_down(obj, [pointers.steps(place) for place in self._where.pointers])

    def read(self) -> Knobs:
        return self.knobs(self.get())

    def send(self, wanted: Knobs) -> None:
        """One JSON patch under the resource version; where only something else in the object moved, again."""
        expected, self._expected = self._expected, None
        for attempt in range(TRIES):
            if attempt:
                self._sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            obj = self.get()
            shown = self.knobs(obj)
            if shown != (expected := expected or shown):
                raise NotOwner(f"{self.shown} was changed by somebody else meanwhile; slotune stands down")
            lock = {
                "op": "replace",
                "path": "/metadata/resourceVersion",
                "value": obj["metadata"].get("resourceVersion"),
            }
            new = self._where.replacements(obj, wanted, self.shown)
            patch: list[Any] = [lock, *({"op": "replace", "path": at, "value": value} for at, value in new.items())]
            try:
                self.cluster.patch(self.ref, patch)
            except Conflict:
                continue
            return
        raise Conflict(f"{self.shown} changes faster than slotune can write it", delay_s=15.0)
