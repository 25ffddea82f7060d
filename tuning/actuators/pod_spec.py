"""Batch size through the pod template, for servers that read it only at start (vLLM's --max-num-seqs and the like).

A rollout is an expensive change: it replaces every pod, so give this lever a cool-down of its own (30 minutes or more).
A rollout that fails or does not finish in time is rolled back: the old value makes the old template again, and the
Deployment controller goes back to the old ReplicaSet. A StatefulSet whose first new pod never gets ready may need that
pod to be deleted by hand (Kubernetes does not replace it by itself); the message says so.

Options of the lever: connection (of the cluster), namespace, kind (Deployment or StatefulSet), target, container
(default: the only one), env or arg, rollout_timeout_s (600), request_timeout_s (10).
"""

from __future__ import annotations

from collections.abc import Callable

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import BUILT_IN, gitops_tool
from tuning.actuators._kubernetes_rollouts import Place, Workload, appliers, find_place, progress
from tuning.errors import ConfigError, Conflict, ControlUnreachable, NotApplied, NotOwner, OutcomeUnknown, Temporary
from tuning.model import Change, Receipt, Setting
from tuning.ports import Connections

LOOK_EVERY_S = 2.0
TRIES = 6


class PodSpec:
    """The batch lever of a server that has to be started again."""

    name = "pod_spec"
    lever = "batch_size"

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._connections = connections
        self._clock = clock
        self._sleep = sleep
        self._clusters: dict[tuple[str, float], Cluster] = {}

    def read(self, service: Service) -> Setting:
        """The batch size in the pod template (which a rollout may still be bringing to the pods: see `note`)."""
        workload, place = self._read(service)
        _, words = progress(workload)
        return Setting(
            lever=self.lever,
            values={"batch_size": place.value},
            version=str(workload["metadata"].get("resourceVersion", "")),
            owner=f"{self._ref(service)}",
            note="; ".join(filter(None, [_stand_down(workload, place), words])),
        )

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for this lever."""
        return [(verb, self._ref(service)) for verb in ("get", "patch")]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether it does."""
        return self._cluster(service).may(verb, ref)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Change the template, wait for the rollout, and put the old value back when it fails or takes too long.

        Raises ControlUnreachable, ControlRefused, NotOwner, Conflict, OutcomeUnknown, NotApplied (rolled back).
        """
        started_s = self._clock()
        new, old = _size(change, change.new), _size(change, change.old)
        workload, place = self._read(service)
        changed = place.value != new
        if changed:
            reason = _stand_down(workload, place)
            if reason:
                raise NotOwner(f"{self._ref(service)}: {reason}; slotune stands down")
            self._write(service, old, new)
        words = self._roll_out(service, old, new)
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before={"batch_size": old if changed else new},
            after={"batch_size": new},
            changed=changed,
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"rollout finished: {words}" if changed else f"already there: {words}",
            evidence={"expensive": True, "workload": str(self._ref(service)), "took_s": round(at_s - started_s, 1)},
        )

    def _cluster(self, service: Service) -> Cluster:
        """One client per connection: its sockets and its token serve all calls."""
        name = options.text(service, self.lever, "connection")
        timeout_s = options.number(service, self.lever, "request_timeout_s", 10.0)
        return self._clusters.setdefault((name, timeout_s), Cluster(self._connections, name, timeout_s=timeout_s))

    def _ref(self, service: Service) -> Ref:
        kind = options.text(service, self.lever, "kind", "Deployment")
        if kind not in BUILT_IN:
            raise ConfigError(f"pod_spec changes a Deployment or a StatefulSet, not {kind!r}")
        namespace = options.text(service, self.lever, "namespace")
        return Ref(*BUILT_IN[kind], namespace, options.text(service, self.lever, "target"))

    def _read(self, service: Service) -> tuple[Workload, Place]:
        env = options.optional_text(service, self.lever, "env") or ""
        arg = options.optional_text(service, self.lever, "arg") or ""
        if not env and not arg:
            raise ConfigError(f"pod_spec of {service.name} needs env or arg: where the batch size stands")
        workload = self._cluster(service).get(self._ref(service))
        container = options.optional_text(service, self.lever, "container") or ""
        return workload, find_place(workload, container, env, arg)

    def _write(self, service: Service, old: int, new: int) -> None:
        """One JSON patch under the resource version; a conflict or a lost answer is re-read and tried again."""
        lost: Unanswered | None = None
        for attempt in range(TRIES):
            if attempt:
                self._sleep(0.05 * 2 ** (attempt - 1))
            try:
                workload, place = self._read(service)
            except ControlUnreachable as error:
                if lost is None:
                    raise
                raise OutcomeUnknown(f"{lost}; the read-back got no answer either ({error})") from error
            if place.value == new:
                return
            if place.value != old:
                raise NotOwner(
                    f"{self._ref(service)} shows {place.value}, neither {old} nor {new}: somebody else changed it"
                )
            version = workload["metadata"]["resourceVersion"]
            patch = [
                {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
                {"op": "replace", "path": place.pointer, "value": place.with_value(new)},
            ]
            try:
                self._cluster(service).patch(self._ref(service), patch)
            except Conflict:
                continue
            except Unanswered as error:
                lost = error
        _, place = self._read(service)
        if place.value == new:
            return
        if lost is not None:
            raise OutcomeUnknown(f"{lost}; reading back shows {place.value}, and it may still land") from lost
        raise Conflict(f"{self._ref(service)} changes faster than slotune can write it", delay_s=15.0)

    def _roll_out(self, service: Service, old: int, new: int) -> str:
        state, words = self._watch(service)
        if state == "done":
            return words
        problem = (
            f"the rollout of batch size {new} {'failed' if state == 'failed' else 'did not finish in time'} ({words})"
        )
        if old == new:
            raise NotApplied(problem)
        self._write(service, new, old)
        back, after = self._watch(service)
        if back == "done":
            raise NotApplied(f"{problem}; the old pod template with batch size {old} is back and ready")
        raise NotApplied(
            f"{problem}; batch size {old} is back in the pod template, but its rollout is not finished ({after}); "
            "a StatefulSet may need its broken pod deleted by hand"
        )

    def _watch(self, service: Service) -> tuple[str, str]:
        """("done", "failed" or "slow", the words). No answer while watching is waited out."""
        until_s = self._clock() + options.number(service, self.lever, "rollout_timeout_s", 600.0)
        words = ""
        while True:
            try:
                state, words = progress(self._cluster(service).get(self._ref(service)))
            except Temporary as error:
                state, words = "going", str(error)
            if state != "going":
                return state, words
            if self._clock() >= until_s:
                return "slow", words
            self._sleep(LOOK_EVERY_S)


def _size(change: Change, values: dict[str, int | float | str]) -> int:
    """The batch size of a change; other knobs have no place in a pod template and must not move."""
    for knob in values:
        if knob != "batch_size" and change.new.get(knob) != change.old.get(knob):
            raise ConfigError(f"pod_spec changes the batch size only, not {knob}")
    size = values.get("batch_size")
    if not isinstance(size, int | float) or size < 1:
        raise ConfigError(f"the change names no usable batch_size ({size!r})")
    return int(size)


def _stand_down(workload: Workload, place: Place) -> str:
    meta = workload.get("metadata") or {}
    by = appliers(meta.get("managedFields") or [], place)
    if by:
        return f"{', '.join(by)} applies this field (server-side apply)"
    tool = gitops_tool(meta.get("labels") or {}, meta.get("annotations") or {})
    return f"managed by {tool}, which would undo the change" if tool else ""
