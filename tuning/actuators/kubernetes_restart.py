"""One replica of a workload restarted: its pod is evicted, its owner makes the next one.

The Eviction API respects PodDisruptionBudgets and lets the pod end as any eviction does (removed from its Services,
preStop, SIGTERM, its grace period), so that it finishes what it has begun. Only a pod that the workload itself has made
is evicted, by its uid: another pod of the same name is another process. Nothing else is written anywhere, so that no
owner of the replicas (an HPA, KEDA, GitOps) notices more than a pod that comes and goes.

Options: settings.restart.KubernetesRestartOptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators import _restarts as restarts
from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster, Clusters
from tuning.actuators._kubernetes_endpoints import is_ready, own_pods, place, rights_to_find
from tuning.actuators._kubernetes_errors import Disallowed, Missing, Ref
from tuning.actuators._kubernetes_owners import scale_ref, workload_ref
from tuning.actuators._kubernetes_pods import age_s
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._kubernetes_writes import until_read
from tuning.actuators._restarts import GONE, LEVER, UP
from tuning.actuators.settings.restart import KubernetesRestartOptions
from tuning.errors import Conflict, ControlRefused, NotOwner, OutcomeUnknown, SlotuneError
from tuning.model import Change, Receipt, ReplicaSeen, Setting
from tuning.ports import Connections

LOOK_EVERY_S = 1.0
TRY_EVERY_S = 5.0
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class _Pods:
    """The workload's own pods that are there and not leaving, and the names of others that carry its labels."""

    own: Sequence[Object]
    strangers: frozenset[str]

    def ready(self, but: str = "") -> list[str]:
        """The names of those that take requests, without the one of this uid."""
        return [_name(pod) for pod in self.own if is_ready(pod) and _uid(pod) != but]

    def waiting(self, but: str) -> list[str]:
        return [_name(pod) for pod in self.own if not is_ready(pod) and _uid(pod) != but]

    def find(self, name: str, uid: str) -> Object | None:
        return next((pod for pod in self.own if (_name(pod), _uid(pod)) == (name, uid)), None)


class KubernetesRestart:
    """The restart lever of a Deployment, a StatefulSet or another workload with a scale."""

    name = "kubernetes_restart"
    lever = LEVER

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._clusters = Clusters(connections)

    def read(self, service: Service) -> Setting:
        """The pods of the workload; one that is leaving is gone."""
        given, pods = self._given(service), self._read(service)
        knobs = {_uid(pod): restarts.knob(_name(pod), _uid(pod)) for pod in pods.own}
        return Setting(
            lever=self.lever,
            values=dict.fromkeys(knobs.values(), UP),
            absent=GONE,
            replicas=tuple(
                ReplicaSeen(
                    name=_name(pod),
                    knob=knobs[_uid(pod)],
                    place=place(pod, str(given.port)) if (pod.get("status") or {}).get("podIP") else "",
                    age_s=age_s(pod["metadata"], self._clock()),
                    ready=is_ready(pod),
                )
                for pod in pods.own
            ),
            version=",".join(sorted(knobs)),
            owner=str(workload_ref(self._scale(service))),
        )

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for this lever."""
        namespace = self._given(service).namespace
        return [*rights_to_find(self._scale(service)), ("create", Ref("", "v1", "pods", namespace, "", "eviction"))]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether it does."""
        return self._cluster(service).may(verb, ref)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Evict the pod that `change.new` names, and wait until as many are ready as before.

        Raises ControlUnreachable, ControlRefused (too few others are ready, or a PodDisruptionBudget did not allow it
        in time: nothing was changed), NotOwner (the pod is not the workload's), OutcomeUnknown.
        """
        if change.undoes:
            return restarts.nothing_to_undo(service, change, key, self._clock())
        started_s = self._clock()
        name, uid = restarts.target(change)
        pods = self._read(service)
        if name in pods.strangers:
            raise NotOwner(f"pod {name} carries the labels of {self._scale(service).name}, which has not made it")
        there = pods.find(name, uid) is not None
        wanted = len(pods.ready()) if there else 0
        if there:
            self._check(service, name, uid, pods)
            self._evict(service, name, uid)
        words = self._until_ready(service, uid, wanted)
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before={next(iter(change.new)): UP if there else GONE},
            after=dict(change.new),
            changed=there,
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"pod {name} was evicted: {words}" if there else f"pod {name} of this uid has gone already: {words}",
            evidence={"workload": str(workload_ref(self._scale(service))), "replica": name},
        )

    def _check(self, service: Service, name: str, uid: str, pods: _Pods) -> None:
        waiting = pods.waiting(uid)
        if waiting:
            raise ControlRefused(
                f"{name} is not restarted: {options.bounded(', '.join(waiting))} is not ready, and one at a time is "
                "restarted; nothing was changed"
            )
        restarts.check_others(service, name, len(pods.ready(uid)))

    def _evict(self, service: Service, name: str, uid: str) -> None:
        """Ask for the eviction until it is granted, or the pod has gone; a budget is waited for a while."""
        given = self._given(service)
        ref = Ref("", "v1", "pods", given.namespace, name, "eviction")
        until_s = self._clock() + given.budget_timeout_s
        lost = ""
        while True:
            try:
                self._cluster(service).evict(ref, _eviction(given, name, uid))
                return
            except Missing:
                return
            except Disallowed as error:
                if self._clock() >= until_s:
                    waited = f"for {given.budget_timeout_s:g} s" if given.budget_timeout_s else "now"
                    raise ControlRefused(f"{error}; waited {waited}, and nothing was changed") from error
            except Conflict:
                pass  # the uid is another one's by now, or the budget was being counted
            except Unanswered as error:
                lost = str(error)
            shown = until_read(lambda: self._read(service), self._sleep, lost or f"{ref} was asked for")
            if shown.find(name, uid) is None:
                return
            if lost and self._clock() >= until_s:
                raise OutcomeUnknown(f"{lost}; the pod is still there, and may still be evicted")
            self._sleep(TRY_EVERY_S)

    def _until_ready(self, service: Service, uid: str, wanted: int) -> str:
        """What came in its place. That the old one has gone is the change; a next one that does not come up is told."""
        given, last = self._given(service), ""
        until_s = self._clock() + given.ready_timeout_s
        while True:
            try:
                pods = self._read(service)
                ready, waiting = pods.ready(uid), pods.waiting(uid)
                if len(ready) >= max(wanted, 1) and not waiting:
                    return f"{len(ready)} are ready"
                last = f"{len(ready)} are ready, {options.bounded(', '.join(waiting)) or 'no other'} is on its way"
            except SlotuneError as error:
                last = str(error)
            if self._clock() >= until_s:
                return f"after {given.ready_timeout_s:g} s its place is not filled ({last})"
            self._sleep(LOOK_EVERY_S)

    def _given(self, service: Service) -> KubernetesRestartOptions:
        """The lever's options. Raises ConfigError."""
        return options.of(service, self.lever, KubernetesRestartOptions)

    def _cluster(self, service: Service) -> Cluster:
        given = self._given(service)
        return self._clusters.of(given.connection, given.request_timeout_s)

    def _scale(self, service: Service) -> Ref:
        given = self._given(service)
        return scale_ref(given.namespace, given.kind, given.target)

    def _read(self, service: Service) -> _Pods:
        own, strangers = own_pods(self._cluster(service), self._scale(service))
        return _Pods([pod for pod in own if _stays(pod)], frozenset(_name(pod) for pod in strangers))


def _eviction(given: KubernetesRestartOptions, name: str, uid: str) -> Object:
    wishes: Object = {"preconditions": {"uid": uid}}
    if given.grace_s is not None:
        wishes["gracePeriodSeconds"] = int(given.grace_s)
    meta = {"name": name, "namespace": given.namespace}
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta, "deleteOptions": wishes}


def _stays(pod: Object) -> bool:
    """Whether it is there, and neither ends nor has ended."""
    return not pod["metadata"].get("deletionTimestamp") and (pod.get("status") or {}).get("phase") not in ENDED


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def _uid(pod: Object) -> str:
    return str(pod["metadata"].get("uid") or "")
