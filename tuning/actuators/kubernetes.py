"""Replicas through whoever owns them: the bounds of an HPA or a KEDA ScaledObject, or the scale subresource.

Options: settings.replicas.KubernetesOptions.

Knobs: with an HPA or KEDA min_replicas and max_replicas (and replicas, to read only); with nobody replicas.
"""

from __future__ import annotations

from collections.abc import Callable

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._kubernetes_capacity import hpa_trouble, pods_of, replicas_of, switched_off
from tuning.actuators._kubernetes_client import Cluster, Clusters
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import (
    Owner,
    find_owner,
    refetch,
    scale_ref,
    scale_view,
    workload_ref,
)
from tuning.actuators._kubernetes_pods import Pods
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._kubernetes_stand_down import stand_down, writer_of
from tuning.actuators._kubernetes_writes import check_old, check_owner, holder_of, moved, show, write
from tuning.actuators.settings.replicas import KubernetesOptions
from tuning.errors import ConfigError, NoCapacity, NotOwner, OutcomeUnknown, SlotuneError, StillStarting
from tuning.model import Change, Knob, Receipt, Setting
from tuning.ports import Connections

LOOK_EVERY_S = 1.0
CONTROLLER_WAIT_S = 20.0
"""An HPA acts once every 15 s by default: how long to wait for its pods to appear."""


class KubernetesReplicas:
    """The replica lever. One patch under an optimistic lock; what stays unschedulable is undone."""

    name = "kubernetes"
    lever = "replicas"

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._clusters = Clusters(connections)

    def read(self, service: Service) -> Setting:
        """Bounds and replicas as they stand. A stand-down shows in `note` (and `apply` refuses with it).

        Raises ControlUnreachable, ControlRefused, NotOwner (several HPAs for one workload), ConfigError.
        """
        cluster, scale = self._cluster(service), self._scale(service)
        owner = find_owner(cluster, scale, self._given(service).hpa)
        view = owner.obj if owner.kind == "none" else scale_view(cluster, scale)
        pods = self._pods(cluster, scale, view)
        holder = holder_of(cluster, owner)
        return Setting(
            lever=self.lever,
            values={**owner.values(), "replicas": replicas_of(view, scale)},
            version=owner.version,
            owner=f"{owner.name} ({writer_of(owner, holder) or 'manager unknown'})",
            note="; ".join([*self._hands_off(service, owner, holder, view), f"pods: {pods.text()}"]),
        )

    def pods(self, service: Service) -> Pods:
        """Ready, starting and unschedulable pods of the workload."""
        cluster, scale = self._cluster(service), self._scale(service)
        return self._pods(cluster, scale, scale_view(cluster, scale))

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for this lever, as (verb, object), found by looking at the owner.

        Raises what `read` raises; ControlRefused when the right to look is missing already.
        """
        scale = self._scale(service)
        hpa = self._given(service).hpa
        hpas = Ref("autoscaling", "v2", "horizontalpodautoscalers", scale.namespace, hpa or "")
        whole, pods = workload_ref(scale), Ref("", "v1", "pods", scale.namespace)
        first = [("get", scale), ("get", whole), ("list", pods), ("get" if hpa else "list", hpas)]
        if not all(self.may(service, verb, ref) for verb, ref in first):
            return first
        owner = find_owner(self._cluster(service), scale, hpa)
        if owner.kind == "none":
            scaled = Ref("keda.sh", "v1alpha1", "scaledobjects", scale.namespace)
            return [*first, ("list", scaled), ("patch", scale)]
        return [*first, *(right for right in (("get", owner.ref), ("patch", owner.ref)) if right not in first)]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether these credentials have one right (asks the API server, changes nothing)."""
        return self._cluster(service).may(verb, ref)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Patch the owner's fields and wait until the pods have found a place.

        Raises ControlUnreachable, ControlRefused, NotOwner (stand down), Conflict, OutcomeUnknown, NotApplied,
        StillStarting (earlier pods first), NoCapacity (undone: the pods stayed unschedulable for their deadline).
        """
        started_s = self._clock()
        cluster, scale = self._cluster(service), self._scale(service)
        owner = find_owner(cluster, scale, self._given(service).hpa)
        change = _for_owner(owner, change)
        before = owner.values()
        if options.agrees(before, moved(owner, change)):
            return self._receipt(service, change, key, before, owner, started_s, changed=False, reason="already there")
        wait_s = self._given(service).stand_down_s
        check_owner(cluster, owner, change, started_s, wait_s)
        check_old(owner, change)
        up, earlier = _floor(change.new) > _floor(change.old), Pods()
        if up:
            _check_bounds(service, self.lever, change)
            earlier = self._check_can_grow(service, cluster, scale, owner)
        owner = write(cluster, owner, change, self._sleep)
        pods = self._placed(service, cluster, scale, owner, change, earlier) if up else None
        reason = f"{owner.name}: {change.text()}" + (f"; pods: {pods.text()}" if pods else "")
        return self._receipt(service, change, key, before, owner, started_s, changed=True, reason=reason)

    def _hands_off(self, service: Service, owner: Owner, holder: Object, view: Object) -> list[str]:
        """Why the lever would refuse as things stand: for the knob that raises replicas, else for the other one."""
        wait_s = self._given(service).stand_down_s
        reason = stand_down(owner, holder, self._clock(), wait_s, [owner.floor]) or switched_off(owner, view)
        if reason:
            return [f"slotune stands down: {reason}"]
        others = [knob for knob in owner.fields if knob != owner.floor]
        reason = stand_down(owner, holder, self._clock(), wait_s, others) if others else None
        return [f"slotune leaves {' and '.join(others)} alone: {reason}"] if reason else []

    def _cluster(self, service: Service) -> Cluster:
        given = self._given(service)
        return self._clusters.of(given.connection, given.request_timeout_s)

    def _scale(self, service: Service) -> Ref:
        given = self._given(service)
        return scale_ref(given.namespace, given.kind, given.target)

    def _given(self, service: Service) -> KubernetesOptions:
        """The lever's options. Raises ConfigError."""
        return options.of(service, self.lever, KubernetesOptions)

    def _pods(self, cluster: Cluster, scale: Ref, view: Object) -> Pods:
        return pods_of(cluster, scale, view, self._clock())

    def _check_can_grow(self, service: Service, cluster: Cluster, scale: Ref, owner: Owner) -> Pods:
        """The pods before a scale-up. NotOwner: it is switched off; StillStarting, NoCapacity: earlier pods first."""
        view = owner.obj if owner.kind == "none" else scale_view(cluster, scale)
        reason = switched_off(owner, view)
        if reason:
            raise NotOwner(f"{reason}; slotune stands down")
        cluster.get(workload_ref(scale))  # what it says is needed when pods do not come: no change without that right
        pods = self._pods(cluster, scale, view)
        where, deadline_s = f"{scale.namespace}/{scale.name}", self._deadline_s(service)
        if pods.failure or (pods.blocked and pods.stuck_s >= deadline_s):
            raise NoCapacity(f"{where} has pods that do not come ({pods.text()}): nothing was changed")
        if pods.waiting or pods.missing:
            raise StillStarting(f"{where} has pods that are not ready yet ({pods.text()}): no further scale-up")
        return pods

    def _deadline_s(self, service: Service) -> float:
        return self._given(service).unschedulable_after_s

    def _placed(
        self, service: Service, cluster: Cluster, scale: Ref, owner: Owner, change: Change, earlier: Pods
    ) -> Pods | None:
        """Waits until enough pods run, or are on their way for CONTROLLER_WAIT_S without being kept from coming (an
        image that cannot be pulled shows within seconds); undoes the change at the deadline.

        No answer while waiting is no reason to undo: None, and the caller's verification sees what happened.
        """
        started_s, deadline_s = self._clock(), self._deadline_s(service)
        while True:
            waited_s = self._clock() - started_s
            try:
                pods = self._pods(cluster, scale, scale_view(cluster, scale))
            except SlotuneError:
                if waited_s >= CONTROLLER_WAIT_S:
                    return None
            else:
                crashing = set(pods.crashing) - set(earlier.crashing)
                blocked = pods.blocked or crashing or pods.failure or (pods.missing and not pods.waiting)
                if not blocked and pods.total - pods.waiting >= _floor(change.new):
                    return pods
                if not blocked and waited_s >= CONTROLLER_WAIT_S:
                    return self._unless_off(cluster, owner, change, pods, waited_s)
                if blocked and waited_s >= deadline_s:
                    self._undo(cluster, owner, change, f"no capacity: after {waited_s:.0f} s {pods.text()}")
            self._sleep(LOOK_EVERY_S)

    def _unless_off(self, cluster: Cluster, owner: Owner, change: Change, pods: Pods, waited_s: float) -> Pods:
        """The controller has not acted: undone when it says why it will not."""
        if owner.kind != "hpa":
            return pods
        try:
            reason = hpa_trouble(refetch(cluster, owner))
        except SlotuneError:
            return pods
        if reason:
            self._undo(cluster, owner, change, f"no effect after {waited_s:.0f} s: {reason}")
        return pods

    def _undo(self, cluster: Cluster, owner: Owner, change: Change, said: str) -> None:
        """Put the old values back and raise NoCapacity; NotOwner or OutcomeUnknown when that could not be done."""
        try:
            write(cluster, owner, change.inverse(), self._sleep)
        except NotOwner as error:
            raise NotOwner(f"{said}; {error}") from error
        except SlotuneError as error:
            raise OutcomeUnknown(f"{said}; undoing it failed: {error}") from error
        raise NoCapacity(f"{said}; {owner.name} is back at {show(change.old)}")

    def _receipt(
        self,
        service: Service,
        change: Change,
        key: str,
        before: dict[str, Knob],
        owner: Owner,
        started_s: float,
        *,
        changed: bool,
        reason: str,
    ) -> Receipt:
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=before,
            after=owner.values(),
            changed=changed,
            at_s=at_s,
            took_s=at_s - started_s,
            reason=reason,
            evidence={"owner": owner.name, "namespace": owner.ref.namespace, "resource_version": owner.version},
        )


def _for_owner(owner: Owner, change: Change) -> Change:
    """The change reduced to the knobs that this owner has; ConfigError when none is left."""
    new = {knob: value for knob, value in change.new.items() if knob in owner.fields}
    old = {knob: value for knob, value in change.old.items() if knob in new}
    if not new or set(old) != set(new):
        raise ConfigError(
            f"{owner.name} decides {', '.join(owner.fields)}, but the change names {', '.join(change.new)}: plan again"
        )
    return Change(lever=change.lever, old=old, new=new)


def _floor(values: dict[str, Knob]) -> int:
    return int(values.get("min_replicas", values.get("replicas", values.get("max_replicas", 0))))


def _check_bounds(service: Service, lever: str, change: Change) -> None:
    highest = options.lever_of(service, lever).maximum
    if max(int(value) for value in change.new.values()) > max([highest, *(int(v) for v in change.old.values())]):
        raise ConfigError(f"{change.text()} goes beyond the lever's maximum of {highest:g} for {service.name}")
