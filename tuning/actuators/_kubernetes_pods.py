"""What the pods of a workload are doing, and the steps in which a floor is lowered. Pure functions of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tuning.actuators._options import bounded

Pod = dict[str, Any]
START_S = 300.0
"""A pod that runs for longer than this and is not ready is not starting any more: it is in trouble."""
COMING = ("ContainerCreating", "PodInitializing")
"""Reasons for which a container waits on its way up; every other one (an image, a crash loop) keeps it down."""
CRASHING = "CrashLoopBackOff"


@dataclass(frozen=True)
class Pods:
    """Pods by state; terminating and finished ones are not counted.

    unready: running for longer than a start takes, and not ready (an overloaded pod fails its probe), and crashing:
    those that crash for as long. Neither holds a scale-up back. unplaced: no scheduler has looked at them. held: a
    scheduling gate. stuck: an image that cannot be pulled, a container that cannot be made, a young one that crashes.
    why, stuck_why, crash_why: the cluster's words; ended: those about pods that were evicted. stuck_s: for how long
    the oldest of those that cannot come has been there. wanted: replicas that the workload's own spec asks for (None:
    not known). failure: why no further pod can be created, in the controller's words.
    """

    ready: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    starting: tuple[str, ...] = ()
    unschedulable: tuple[str, ...] = ()
    why: str = ""
    unplaced: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    stuck_why: str = ""
    crashing: tuple[str, ...] = ()
    crash_why: str = ""
    ended: str = ""
    stuck_s: float = 0.0
    wanted: int | None = None
    failure: str = ""

    @property
    def total(self) -> int:
        return len(self.ready) + len(self.unready) + len(self.crashing) + self.waiting

    @property
    def waiting(self) -> int:
        """Those on their way, or kept from it."""
        return len(self.starting) + len(self.blocked)

    @property
    def blocked(self) -> frozenset[str]:
        """Those that no node has taken, or whose containers cannot start."""
        return frozenset(self.unschedulable + self.unplaced + self.held + self.stuck)

    @property
    def missing(self) -> int:
        """Replicas that are asked for and do not even exist as pods."""
        return max(0, (self.wanted or 0) - self.total)

    def text(self) -> str:
        parts = [f"{len(self.ready)} ready"]
        for names, what, why in (
            (self.unready, "running but not ready", ""),
            (self.crashing, "crashing", self.crash_why),
            (self.starting, "starting", ""),
            (self.unplaced, "not placed on a node yet", ""),
            (self.unschedulable, "unschedulable", self.why),
            (self.held, "held back", self.why),
            (self.stuck, "stuck", self.stuck_why),
        ):
            parts += [f"{len(names)} {what}" + (f" ({why})" if why else "")] if names else []
        said = ", ".join(parts)
        if self.missing:
            said = f"{self.wanted} wanted, {self.total} exist: {said}"
            said += f"; no further pod can be created ({self.failure})" if self.failure else ""
        return f"{said}; {self.ended}" if self.ended else said


def own_pods(pods: Sequence[Pod], kind: str, name: str) -> list[Pod]:
    """Those whose controller is the workload (or a ReplicaSet of its name): labels are anybody's to set.

    kind: "Deployment", "StatefulSet" or "" for a custom resource, of which any controller is taken.
    """
    return [pod for pod in pods if _belongs(pod, kind, name)]


def controller(obj: Pod) -> dict[str, Any]:
    """The owner reference with `controller: true`, {} when there is none."""
    found = (ref for ref in (obj.get("metadata") or {}).get("ownerReferences") or [] if ref.get("controller"))
    return next(found, {})


def _belongs(pod: Pod, kind: str, name: str) -> bool:
    ref = controller(pod)
    above = str(ref.get("name") or "")
    if kind == "Deployment":
        return ref.get("kind") == "ReplicaSet" and above.startswith(f"{name}-")
    return above == name and ref.get("kind") == kind if kind else bool(ref)


def read_pods(pods: Sequence[Pod], at_s: float) -> Pods:
    """Sorts pods by what they do; see Pods."""
    names: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    stuck_s = 0.0
    for pod in pods:
        meta, state = pod.get("metadata") or {}, pod.get("status") or {}
        if meta.get("deletionTimestamp") or state.get("phase") == "Succeeded":
            continue
        old_s = age_s(meta, at_s)
        kind, why = _sort(state, old_s)
        names.setdefault(kind, []).append(str(meta.get("name")))
        words[kind] = words.get(kind) or bounded(why, 160)
        if kind in ("unschedulable", "unplaced", "held", "stuck"):
            stuck_s = max(stuck_s, old_s)
    ended = words.pop("ended", "")
    return Pods(
        ended=f"{len(names.pop('ended', []))} ended ({ended})" if ended else "",
        why=words.get("unschedulable") or words.get("held", ""),
        stuck_why=words.get("stuck", ""),
        crash_why=words.get("crashing", ""),
        stuck_s=stuck_s,
        **{kind: tuple(sorted(found)) for kind, found in names.items() if kind != "ended"},  # type: ignore[arg-type]
    )


def with_wanted(pods: Pods, wanted: int | None, failure: str = "") -> Pods:
    """The same pods beside what the workload asks for."""
    return replace(pods, wanted=wanted, failure=failure)


def creation_failure(workload: Pod) -> str:
    """Why the controller cannot create pods (a quota, PodSecurity, a LimitRange), in its words; "" when it can."""
    for condition in (workload.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return bounded(f"{condition.get('reason')}: {condition.get('message')}")
    return ""


def _sort(state: Pod, old_s: float) -> tuple[str, str]:
    """(kind, the cluster's words) of one pod that is not leaving."""
    if state.get("phase") == "Failed":
        return "ended", f"{state.get('reason')}: {state.get('message') or ''}" if state.get("reason") else ""
    conditions = {c.get("type"): c for c in state.get("conditions") or []}
    if (conditions.get("Ready") or {}).get("status") == "True":
        return "ready", ""
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        said = str(scheduled.get("message") or "no reason given")
        gated = scheduled.get("reason") == "SchedulingGated"
        return ("held", f"SchedulingGated: {said}") if gated else ("unschedulable", said)
    reason, said = _kept_down(state)
    if reason:
        return ("crashing" if reason == CRASHING and old_s > START_S else "stuck"), said
    if state.get("phase") == "Running":
        return ("unready" if old_s > START_S else "starting"), ""
    return ("starting" if scheduled.get("status") == "True" else "unplaced"), ""


def _kept_down(state: Pod) -> tuple[str, str]:
    """The reason for which a container waits and does not come, with the words and how it ended last."""
    for status in [*(state.get("initContainerStatuses") or []), *(state.get("containerStatuses") or [])]:
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason and reason not in COMING:
            last = ((status.get("lastState") or {}).get("terminated") or {}).get("reason")
            words = [reason, *([f"ended as {last}"] if last else []), str(waiting.get("message") or "")]
            return reason, ": ".join(filter(None, words))
    return "", ""


def age_s(meta: Pod, at_s: float) -> float:
    """Seconds since an object was created, 0 where that cannot be read."""
    try:
        return at_s - datetime.fromisoformat(str(meta.get("creationTimestamp"))).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
