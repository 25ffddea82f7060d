"""Replicas through whoever owns them: the bounds of an HPA or a KEDA ScaledObject, or the scale subresource.

Options of the lever: connection, namespace, kind (Deployment, StatefulSet or group/version/plural), target, hpa
(optional: its name, so that nothing has to be listed), unschedulable_after_s (300), stand_down_s (3600: how long a
person's change after slotune's own is left alone), request_timeout_s (10).

Knobs: with an HPA or KEDA min_replicas and max_replicas (and replicas, to read only); with nobody replicas.
"""

from __future__ import annotations

from collections.abc import Callable

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import Owner, find_owner, scale_ref, stand_down, writer_of
from tuning.actuators._kubernetes_pods import Pods, read_pods
from tuning.actuators._kubernetes_writes import check_old, check_owner, holder_of, show, write
from tuning.errors import ConfigError, NoCapacity, SlotuneError, StillStarting, Temporary
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
        self._connections = connections
        self._clock = clock
        self._sleep = sleep
        self._clusters: dict[tuple[str, float], Cluster] = {}

    def read(self, service: Service) -> Setting:
        """Bounds and replicas as they stand. A stand-down shows in `note` (and `apply` refuses with it).

        Raises ControlUnreachable, ControlRefused, NotOwner (several HPAs for one workload), ConfigError.
        """
        cluster, scale = self._cluster(service), self._scale(service)
        owner = find_owner(cluster, scale, options.optional_text(service, self.lever, "hpa"))
        view = owner.obj if owner.kind == "none" else cluster.get(scale)
        pods = self._pods(cluster, scale, view)
        holder = holder_of(cluster, owner)
        wait_s = options.number(service, self.lever, "stand_down_s", 3600.0)
        reason = stand_down(owner, holder, self._clock(), wait_s)
        return Setting(
            lever=self.lever,
            values={**owner.values(), "replicas": _replicas(view)},
            version=owner.version,
            owner=f"{owner.name} ({writer_of(owner, holder) or 'manager unknown'})",
            note="; ".join(filter(None, [f"slotune stands down: {reason}" if reason else "", f"pods: {pods.text()}"])),
        )

    def pods(self, service: Service) -> Pods:
        """Ready, starting and unschedulable pods of the workload."""
        cluster, scale = self._cluster(service), self._scale(service)
        return self._pods(cluster, scale, cluster.get(scale))

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for this lever, as (verb, object), found by looking at the owner.

        Raises what `read` raises; ControlRefused when the right to look is missing already.
        """
        scale = self._scale(service)
        hpa = options.optional_text(service, self.lever, "hpa")
        hpas = Ref("autoscaling", "v2", "horizontalpodautoscalers", scale.namespace, hpa or "")
        first = [("get", scale), ("list", Ref("", "v1", "pods", scale.namespace)), ("get" if hpa else "list", hpas)]
        if not all(self.may(service, verb, ref) for verb, ref in first):
            return first
        owner = find_owner(self._cluster(service), scale, hpa)
        if owner.kind == "none":
            whole = Ref(scale.group, scale.version, scale.plural, scale.namespace, scale.name)
            scaled = Ref("keda.sh", "v1alpha1", "scaledobjects", scale.namespace)
            return [*first, ("list", scaled), ("get", whole), ("patch", scale)]
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
        owner = find_owner(cluster, scale, options.optional_text(service, self.lever, "hpa"))
        change = _for_owner(owner, change)
        before = owner.values()
        if options.agrees(before, change.new):
            return self._receipt(service, change, key, before, owner, started_s, changed=False, reason="already there")
        check_owner(cluster, owner, started_s, options.number(service, self.lever, "stand_down_s", 3600.0))
        check_old(owner, change)
        up = _floor(change.new) > _floor(change.old)
        if up:
            _check_bounds(service, self.lever, change)
            self._check_settled(cluster, scale)
        owner = write(cluster, owner, change, self._sleep)
        pods = self._placed(service, cluster, scale, owner, change) if up else None
        reason = f"{owner.name}: {change.text()}" + (f"; pods: {pods.text()}" if pods else "")
        return self._receipt(service, change, key, before, owner, started_s, changed=True, reason=reason)

    def _cluster(self, service: Service) -> Cluster:
        """One client per connection: its sockets and its token serve all calls."""
        name = options.text(service, self.lever, "connection")
        timeout_s = options.number(service, self.lever, "request_timeout_s", 10.0)
        return self._clusters.setdefault((name, timeout_s), Cluster(self._connections, name, timeout_s=timeout_s))

    def _scale(self, service: Service) -> Ref:
        return scale_ref(
            options.text(service, self.lever, "namespace"),
            options.text(service, self.lever, "kind", "Deployment"),
            options.text(service, self.lever, "target"),
        )

    def _pods(self, cluster: Cluster, scale: Ref, view: dict[str, object]) -> Pods:
        status = view.get("status")
        selector = str(status.get("selector") or "") if isinstance(status, dict) else ""
        if not selector:
            return Pods()
        return read_pods(cluster.items(Ref("", "v1", "pods", scale.namespace), selector), self._clock())

    def _check_settled(self, cluster: Cluster, scale: Ref) -> None:
        pods = self._pods(cluster, scale, cluster.get(scale))
        if pods.waiting:
            raise StillStarting(
                f"{scale.namespace}/{scale.name} has pods that are not ready yet ({pods.text()}): no further scale-up"
            )

    def _placed(self, service: Service, cluster: Cluster, scale: Ref, owner: Owner, change: Change) -> Pods | None:
        """Waits until enough pods exist and none is unschedulable; undoes the change at the deadline.

        No answer while waiting is no reason to undo: None, and the caller's verification sees what happened.
        """
        started_s = self._clock()
        deadline_s = options.number(service, self.lever, "unschedulable_after_s", 300.0)
        pods: Pods | None = None
        while True:
            try:
                pods = self._pods(cluster, scale, cluster.get(scale))
            except Temporary:
                pods = None
            waited_s = self._clock() - started_s
            stuck = pods is not None and bool(pods.unschedulable)
            enough = pods is not None and pods.total >= _floor(change.new)
            if not stuck and (enough or waited_s >= CONTROLLER_WAIT_S):
                return pods
            if stuck and pods is not None and waited_s >= deadline_s:
                self._undo(cluster, owner, change, pods, waited_s)
            self._sleep(LOOK_EVERY_S)

    def _undo(self, cluster: Cluster, owner: Owner, change: Change, pods: Pods, waited_s: float) -> None:
        said = f"no capacity: after {waited_s:.0f} s {pods.text()}"
        try:
            write(cluster, owner, change.inverse(), self._sleep)
        except SlotuneError as error:
            raise type(error)(f"{said}; undoing it failed: {error}") from error
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


def _replicas(view: dict[str, object]) -> int:
    spec = view.get("spec")
    value = spec.get("replicas") if isinstance(spec, dict) else None
    return value if isinstance(value, int) else 0


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
