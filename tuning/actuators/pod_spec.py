"""Batch size through the pod template, for servers that read it only at start (vLLM's --max-num-seqs and the like).

A language model's engine may have two knobs: requests that run at once, and tokens of one iteration (`tokens_arg`).
A rollout is an expensive change: it replaces every pod, so give this lever a cool-down of its own (30 minutes or more).
Where a rollout cannot happen (paused, OnDelete, a partition) nothing is changed. One that fails or does not finish in
time is rolled back: the old value makes the old template again, and the Deployment controller goes back to the old
ReplicaSet. A StatefulSet whose first new pod never gets ready may need that pod to be deleted by hand (Kubernetes does
not replace it by itself); the message says so. After a rollout the template and the pods' own specs are read again:
both have to hold the value.

Options: settings.batch_size.PodSpecOptions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster, Clusters
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_owners import BUILT_IN
from tuning.actuators._kubernetes_places import Place, Spot, Workload, find_place, with_values
from tuning.actuators._kubernetes_pods import own_pods, read_pods
from tuning.actuators._kubernetes_rollouts import appliers, hindrance, progress
from tuning.actuators._kubernetes_stand_down import ROLLOUT_REF, controller_of, gitops_tool
from tuning.actuators._kubernetes_writes import until_read
from tuning.actuators._options import bounded
from tuning.actuators.settings.batch_size import PodSpecOptions
from tuning.errors import ConfigError, Conflict, ControlRefused, NotApplied, NotOwner, OutcomeUnknown, SlotuneError
from tuning.model import Change, Knob, Receipt, Setting
from tuning.ports import Connections

Places = dict[str, Place]
Numbers = Mapping[str, Knob]
FACTS = {
    "max_model_len": "--max-model-len",
    "block_size": "--block-size",
    "num_gpu_blocks": "--num-gpu-blocks-override",
}
"""What else of the template an engine's model can use, by the argument that says it."""
LOOK_EVERY_S = 2.0
TRIES = 6


class PodSpec:
    """The batch lever of a server that has to be started again."""

    name = "pod_spec"
    lever = "batch_size"

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._clusters = Clusters(connections)

    def read(self, service: Service) -> Setting:
        """The knobs in the pod template (which a rollout may still be bringing to the pods: see `note`)."""
        workload, places = self._read(service)
        reason, (_, words) = _stand_down(workload, places) or hindrance(workload), progress(workload)
        return Setting(
            lever=self.lever,
            values=_values(places),
            facts=_facts(workload, self._given(service)),
            version=str(workload["metadata"].get("resourceVersion", "")),
            owner=f"{self._ref(service)}",
            note="; ".join(filter(None, [f"slotune stands down: {reason}" if reason else "", words])),
        )

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for this lever."""
        ref = self._ref(service)
        return [("get", ref), ("patch", ref), ("list", Ref("", "v1", "pods", ref.namespace))]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether it does."""
        return self._cluster(service).may(verb, ref)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Change the template, wait for the rollout, and put the old value back when it fails or takes too long.

        Raises ControlUnreachable, ControlRefused (also for a rollout that cannot happen), NotOwner (also when somebody
        set another value while the rollout went on), Conflict, OutcomeUnknown, NotApplied (rolled back).
        """
        started_s = self._clock()
        names = [spot.knob for spot in self._spots(service)]
        new, old = _knobs(change, change.new, names), _knobs(change, change.old, names)
        workload, places = self._read(service)
        changed = _values(places) != new
        if changed:
            reason = _stand_down(workload, places)
            if reason:
                raise NotOwner(f"{self._ref(service)}: {reason}; slotune stands down")
            reason = hindrance(workload)
            if reason:
                raise ControlRefused(f"{self._ref(service)}: {reason}; nothing was changed")
            self._pods(service, workload)  # they are read after the rollout: no change without that right
            self._write(service, old, new)
        words = self._roll_out(service, old, new)
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=dict(old if changed else new),
            after=dict(new),
            changed=changed,
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"rollout finished: {words}" if changed else f"already there: {words}",
            evidence={"expensive": True, "workload": str(self._ref(service)), "took_s": round(at_s - started_s, 1)},
        )

    def _cluster(self, service: Service) -> Cluster:
        given = self._given(service)
        return self._clusters.of(given.connection, given.request_timeout_s)

    def _given(self, service: Service) -> PodSpecOptions:
        """The lever's options. Raises ConfigError."""
        return options.of(service, self.lever, PodSpecOptions)

    def _ref(self, service: Service) -> Ref:
        given = self._given(service)
        return Ref(*BUILT_IN[given.kind], given.namespace, given.target)

    def _spots(self, service: Service) -> list[Spot]:
        given = self._given(service)
        spots = [Spot(given.knob or "batch_size", given.container, given.env, given.arg)]
        if given.tokens_arg:
            spots.append(Spot("max_num_batched_tokens", given.container, "", given.tokens_arg))
        return spots

    def _read(self, service: Service) -> tuple[Workload, Places]:
        workload = self._cluster(service).get(self._ref(service))
        return workload, {spot.knob: spot.in_workload(workload) for spot in self._spots(service)}

    def _pods(self, service: Service, workload: Workload) -> list[Workload]:
        """The workload's own pods."""
        ref = self._ref(service)
        labels = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels")
        chosen = ",".join(f"{k}={v}" for k, v in labels.items()) if isinstance(labels, dict) else ""
        found = self._cluster(service).items(Ref("", "v1", "pods", ref.namespace), chosen)
        return own_pods(found, self._given(service).kind, ref.name)

    def _write(self, service: Service, old: Numbers, new: Numbers) -> None:
        """One JSON patch under the resource version; a conflict or a lost answer is re-read and tried again."""
        lost: Unanswered | None = None
        for attempt in range(TRIES):
            if attempt:
                self._sleep(0.05 * 2 ** (attempt - 1))
            workload, places = self._again(service, lost)
            if _values(places) == new:
                return
            self._check_old(service, places, old, new)
            version = workload["metadata"].get("resourceVersion")
            patch = [
                {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
                *with_values(workload, self._spots(service), new),
            ]
            try:
                self._cluster(service).patch(self._ref(service), patch)
                lost = Unanswered(f"{self._ref(service)} was patched")
            except Conflict:
                continue
            except Unanswered as error:
                lost = error
            except SlotuneError:
                if lost is None:
                    raise
        _, places = self._again(service, lost)
        if _values(places) == new:
            return
        if lost is not None:
            shown = _text(_values(places))
            raise OutcomeUnknown(f"{lost}; reading back shows {shown}, and it may still land") from lost
        raise Conflict(f"{self._ref(service)} changes faster than slotune can write it", delay_s=15.0)

    def _again(self, service: Service, lost: Unanswered | None) -> tuple[Workload, Places]:
        """The places read anew; once a patch may have landed, no refusal counts until it has been asked for a while."""
        if lost is None:
            return self._read(service)
        return until_read(lambda: self._read(service), self._sleep, str(lost))

    def _check_old(self, service: Service, places: Places, old: Numbers, new: Numbers) -> None:
        found = _values(places)
        if found != old:
            shown = f"{_text(found)}, neither {_text(old)} nor {_text(new)}"
            raise NotOwner(f"{self._ref(service)} shows {shown}: somebody else changed it")

    def _roll_out(self, service: Service, old: Numbers, new: Numbers) -> str:
        state, words = self._watch(service, new)
        if state == "done":
            state, words = self._check_pods(service, new, words)
            if state == "done":
                return words
        problem = f"the rollout of {_said(new)} {'failed' if state == 'failed' else 'did not finish in time'} ({words})"
        if old == new:
            raise NotApplied(problem)
        try:
            self._write(service, new, old)
        except NotOwner as error:
            raise NotOwner(f"{problem}; {error}") from error
        except SlotuneError as error:
            raise OutcomeUnknown(f"{problem}; putting {_text(old)} back failed: {error}") from error
        back, after = self._watch(service, old)
        if back == "done":
            raise NotApplied(f"{problem}; the old pod template with {_said(old)} is back and ready")
        raise NotApplied(
            f"{problem}; {_said(old)} is back in the pod template, but its rollout is not finished ({after}); "
            "a StatefulSet may need its broken pod deleted by hand"
        )

    def _check_pods(self, service: Service, new: Numbers, words: str) -> tuple[str, str]:
        """("done", the words), or ("failed", why) when a running pod was started with another value: an admission
        webhook rewrote it, for one."""
        what = Unanswered(f"{_said(new)} was rolled out")
        pods = until_read(lambda: self._pods(service, self._read(service)[0]), self._sleep, str(what))
        ready = set(read_pods(pods, self._clock()).ready)
        for pod in pods:
            name = str(pod["metadata"].get("name"))
            if name not in ready:
                continue
            try:
                found = {spot.knob: spot.in_pod(pod) for spot in self._spots(service)}
                value = "" if found == new else _text(found)
            except SlotuneError as error:
                value = str(error)
            if value:
                return "failed", f"pod {name} runs with {value}, not with {_text(new)}, although the template says so"
        return "done", words

    def _watch(self, service: Service, value: Numbers) -> tuple[str, str]:
        """("done", "failed" or "slow", the words). Whatever is answered instead of the workload is waited out.

        NotOwner when the template holds another value by now: somebody edited it while the rollout went on.
        """
        until_s = self._clock() + self._given(service).rollout_timeout_s
        words = ""
        while True:
            try:
                workload, places = self._read(service)
                state, words = progress(workload)
            except SlotuneError as error:
                state, words = "going", str(error)
            else:
                if _values(places) != value:
                    found = _text(_values(places))
                    raise NotOwner(
                        f"{self._ref(service)} was set to {found} by somebody else while {_text(value)} rolled out; "
                        "that value stands"
                    )
            if state != "going":
                return state, words
            if self._clock() >= until_s:
                return "slow", words
            self._sleep(LOOK_EVERY_S)


def _values(places: Places) -> dict[str, Knob]:
    return {knob: place.value for knob, place in places.items()}


def _text(values: Mapping[str, Knob]) -> str:
    """One number by itself; two with their names."""
    if len(values) == 1:
        return str(next(iter(values.values())))
    return ", ".join(f"{knob} {value}" for knob, value in values.items())


def _said(values: Mapping[str, Knob]) -> str:
    return (
        f"batch size {values['batch_size']}"
        if set(values) == {"batch_size"}
        else ", ".join(f"{knob.replace('_', '-')} {value}" for knob, value in values.items())
    )


def _knobs(change: Change, values: Mapping[str, Knob], names: Sequence[str]) -> dict[str, int]:
    """The numbers of a change; other knobs have no place in a pod template and must not move."""
    words = "the batch size only" if list(names) == ["batch_size"] else f"{' and '.join(names)} only"
    for knob in values:
        if knob not in names and change.new.get(knob) != change.old.get(knob):
            raise ConfigError(f"pod_spec changes {words}, not {knob}")
    found = {}
    for name in names:
        size = values.get(name)
        if not isinstance(size, int | float) or not size >= 1:
            raise ConfigError(f"the change names no usable {name} ({size!r})")
        found[name] = int(size)
    return found


def _facts(workload: Workload, given: PodSpecOptions) -> dict[str, Knob]:
    """What the template says beside the knobs of how much an engine holds, as far as it does."""
    found: dict[str, Knob] = {}
    if given.knob == "max_num_seqs":
        for name, arg in FACTS.items():
            try:
                found[name] = find_place(workload, given.container, "", arg).value
            except SlotuneError:
                continue  # not given: the engine's own default, which nobody here knows
    blocks = found.pop("num_gpu_blocks", None)
    if isinstance(blocks, int) and isinstance(size := found.get("block_size"), int):
        found["kv_cache_tokens"] = blocks * size
    return found


def _stand_down(workload: Workload, places: Places) -> str:
    meta = workload.get("metadata") or {}
    notes = meta.get("annotations") or {}
    above = controller_of(workload)
    if above:
        return f"it belongs to {above} (ownerReferences), whose controller puts its own template back: set it there"
    if ROLLOUT_REF in notes:
        return "an Argo Rollout runs it (workloadRef)"
    entries = meta.get("managedFields") or []
    by = list(dict.fromkeys(name for place in places.values() for name in appliers(entries, place)))
    if by:
        return f"{bounded(', '.join(by))} applies this field (server-side apply)"
    tool = gitops_tool(meta.get("labels") or {}, notes)
    return f"managed by {tool}, which would undo the change" if tool else ""
