"""A Deployment back to the pod template of an earlier ReplicaSet, as `kubectl rollout undo` does it.

A version is a template's hash (the ReplicaSets' label `pod-template-hash`), which stays the same whatever revision
number the Deployment gives it. The whole template is written back under the resource version, and the rollout watched;
one that fails or does not finish in time is ended by putting the newer template back. Where a GitOps tool, a controller
above the Deployment or an Argo Rollout would undo it, nothing is changed, and the setting says which fields the commit
has to change.

Options: settings.release.KubernetesReleaseOptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_client import Cluster, Clusters
from tuning.actuators._kubernetes_errors import Ref
from tuning.actuators._kubernetes_fields import reason_to_stand_down
from tuning.actuators._kubernetes_owners import BUILT_IN
from tuning.actuators._kubernetes_rollouts import hindrance, progress
from tuning.actuators._kubernetes_shape import Object
from tuning.actuators._kubernetes_stand_down import ROLLOUT_REF
from tuning.actuators._kubernetes_templates import Template, differences, in_force, templates
from tuning.actuators._kubernetes_writes import until_read
from tuning.actuators.settings.release import KubernetesReleaseOptions
from tuning.errors import (
    ConfigError,
    Conflict,
    ControlRefused,
    ControlUnreachable,
    NotApplied,
    NotOwner,
    OutcomeUnknown,
    SlotuneError,
)
from tuning.model import Change, Receipt, Setting
from tuning.ports import Connections

LOOK_EVERY_S = 2.0
TRIES = 6
_PLACE = ("spec", "template", "spec", "containers")


@dataclass(frozen=True)
class _Seen:
    """The Deployment, the templates that it has had, and the one that it asks for."""

    workload: Object
    known: list[Template]
    now: Template


class KubernetesRelease:
    """The release lever of a Deployment."""

    name = "kubernetes_release"
    lever = "release"

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock = clock
        self._sleep = sleep
        self._clusters = Clusters(connections)

    def read(self, service: Service) -> Setting:
        """The template in force; `useless`: why slotune would stand down, with what its owner has to change."""
        seen = self._read(service)
        why = _stand_down(seen.workload)
        others = [one.made_s for one in seen.known if one is not seen.now]
        # An older ReplicaSet came back at a time that it does not say.
        since = {"since_s": seen.now.made_s} if seen.now.made_s > max(others, default=0.0) else {}
        return Setting(
            lever=self.lever,
            values={"version": seen.now.version},
            facts={"image": seen.now.images, **since},
            version=str(seen.workload["metadata"].get("resourceVersion", "")),
            owner=str(self._ref(service)),
            note=progress(seen.workload)[1],
            useless=f"{why}: {_in_the_commit(seen)}" if why else "",
        )

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for this lever."""
        ref = self._ref(service)
        return [("get", ref), ("patch", ref), ("list", self._sets(service))]

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether it does."""
        return self._cluster(service).may(verb, ref)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Write the template of `change.new["version"]`, and wait for its rollout.

        Raises ControlUnreachable, ControlRefused (no such template any more, or no rollout can happen), NotOwner,
        Conflict, OutcomeUnknown, NotApplied (the rollout failed; the other template is back).
        """
        started_s, seen = self._clock(), self._read(service)
        version = change.new.get("version")
        target = next((one for one in seen.known if one.version == version), None)
        if not isinstance(version, str) or not version:
            raise ConfigError(f"the change names no version ({version!r})")
        if target is None:
            kept = ", ".join(f"{one.version} (revision {one.revision})" for one in seen.known)
            raise ControlRefused(f"{self._ref(service)} has no ReplicaSet of version {version} any more; it has {kept}")
        _check_owner(self._ref(service), change, seen)
        changed = seen.now.version != version
        if changed:
            self._check(service, seen)
            self._write(service, seen.now, target)
        words = self._roll_out(service, seen.now, target, changed=changed)
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before={"version": seen.now.version},
            after={"version": version},
            changed=changed,
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"{target.images or version}: {words}" if changed else f"already there: {words}",
            evidence={"workload": str(self._ref(service)), "differences": differences(seen.now.body, target.body)},
        )

    def _check(self, service: Service, seen: _Seen) -> None:
        why = _stand_down(seen.workload)
        if why:
            raise NotOwner(f"{self._ref(service)}: {why}; slotune stands down: {_in_the_commit(seen)}")
        why = hindrance(seen.workload)
        if why:
            raise ControlRefused(f"{self._ref(service)}: {why}; nothing was changed")

    def _given(self, service: Service) -> KubernetesReleaseOptions:
        """The lever's options. Raises ConfigError."""
        return options.of(service, self.lever, KubernetesReleaseOptions)

    def _cluster(self, service: Service) -> Cluster:
        given = self._given(service)
        return self._clusters.of(given.connection, given.request_timeout_s)

    def _ref(self, service: Service) -> Ref:
        given = self._given(service)
        return Ref(*BUILT_IN["Deployment"], given.namespace, given.target)

    def _sets(self, service: Service) -> Ref:
        return Ref("apps", "v1", "replicasets", self._given(service).namespace)

    def _read(self, service: Service) -> _Seen:
        ref = self._ref(service)
        workload = self._cluster(service).get(ref)
        labels = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels")
        chosen = ",".join(f"{k}={v}" for k, v in labels.items()) if isinstance(labels, dict) else ""
        known = templates(self._cluster(service).items(self._sets(service), chosen), ref.name)
        now = in_force(workload, known)
        if now is None:
            raise ControlUnreachable(f"{ref} has no ReplicaSet of its template yet: its controller will make one")
        return _Seen(workload, known, now)

    def _write(self, service: Service, old: Template, new: Template) -> None:
        """One JSON patch under the resource version; a conflict or a lost answer is re-read and tried again."""
        ref, lost = self._ref(service), None
        for attempt in range(TRIES):
            if attempt:
                self._sleep(0.05 * 2 ** (attempt - 1))
            seen = self._read(service) if lost is None else self._again(service, str(lost))
            if seen.now.version == new.version:
                return
            if seen.now.version != old.version:
                raise NotOwner(f"{ref} was set to version {seen.now.version} by somebody else; that one stands")
            patch = [
                {"op": "replace", "path": "/metadata/resourceVersion",
                 "value": seen.workload["metadata"].get("resourceVersion")},
                {"op": "replace", "path": "/spec/template", "value": new.body},
            ]  # fmt: skip
            try:
                self._cluster(service).patch(ref, patch)
                lost = Unanswered(f"{ref} was patched")
            except Conflict:
                continue
            except Unanswered as error:
                lost = error
            except SlotuneError:
                if lost is None:
                    raise
        if lost is None:
            raise Conflict(f"{ref} changes faster than slotune can write it", delay_s=15.0)
        if self._again(service, str(lost)).now.version != new.version:
            raise OutcomeUnknown(f"{lost}; reading back shows another template, and it may still land") from lost

    def _again(self, service: Service, what: str) -> _Seen:
        """Read after a write that may have landed: whatever is answered instead is waited out for a while."""
        return until_read(lambda: self._read(service), self._sleep, what)

    def _roll_out(self, service: Service, old: Template, new: Template, *, changed: bool) -> str:
        state, words = self._watch(service, new)
        if state == "done":
            return words
        ended = "failed" if state == "failed" else "did not finish in time"
        problem = f"the rollout of version {new.version} {ended} ({words})"
        if not changed:
            raise NotApplied(problem)
        try:
            self._write(service, new, old)
        except NotOwner as error:
            raise NotOwner(f"{problem}; {error}") from error
        except SlotuneError as error:
            raise OutcomeUnknown(f"{problem}; putting version {old.version} back failed: {error}") from error
        back, after = self._watch(service, old)
        stood = {"version": old.version}
        said = "is back and ready" if back == "done" else f"is back, but its rollout is not finished ({after})"
        raise NotApplied(f"{problem}; the template of version {old.version} {said}", before=stood, after=dict(stood))

    def _watch(self, service: Service, template: Template) -> tuple[str, str]:
        """("done", "failed" or "slow", the words). Whatever is answered instead of the Deployment is waited out."""
        until_s = self._clock() + self._given(service).rollout_timeout_s
        while True:
            state, words, now = self._look(service)
            if now not in ("", template.version):
                raise NotOwner(
                    f"{self._ref(service)} was set to version {now} by somebody else while {template.version} rolled "
                    "out; that one stands"
                )
            if state != "going":
                return state, words
            if self._clock() >= until_s:
                return "slow", words
            self._sleep(LOOK_EVERY_S)

    def _look(self, service: Service) -> tuple[str, str, str]:
        """(how far the rollout is, in words, of which version); "" for a version that cannot be read now."""
        try:
            seen = self._read(service)
            return *progress(seen.workload), seen.now.version
        except SlotuneError as error:
            return "going", str(error), ""


def _stand_down(workload: Object) -> str:
    """Whoever keeps the template, and would put it back; "" where nobody does."""
    if ROLLOUT_REF in ((workload.get("metadata") or {}).get("annotations") or {}):
        return "an Argo Rollout runs it (workloadRef): undo the release there"
    return reason_to_stand_down(workload, [_PLACE])


def _in_the_commit(seen: _Seen) -> str:
    """What the owner has to change, where the template before this one is known."""
    before = next((one for one in seen.known if one.revision < seen.now.revision), None)
    if before is None:
        return "bring the earlier template back there"
    return f"change there {'; '.join(differences(seen.now.body, before.body))}"


def _check_owner(ref: Ref, change: Change, seen: _Seen) -> None:
    if seen.now.version not in (change.old.get("version"), change.new.get("version")):
        raise NotOwner(
            f"{ref} runs version {seen.now.version}, neither {change.old.get('version')} nor "
            f"{change.new.get('version')}: somebody else released it; slotune stands down"
        )
