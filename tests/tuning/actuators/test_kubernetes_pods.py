"""Pods by state, and the way down in steps: pure functions, so tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tuning.actuators._kubernetes_pods import Pods, own_pods, read_pods, with_wanted

NOW_S = 1_800_000_000.0


def pod(name: str, phase: str, *, ready: bool = False, age_s: float = 10, **more: Any) -> dict[str, Any]:
    made = datetime.fromtimestamp(NOW_S - age_s, UTC).isoformat().replace("+00:00", "Z")
    conditions = [{"type": "Ready", "status": str(ready)}, *more.pop("conditions", [])]
    meta = {"name": name, "creationTimestamp": made, **more}
    return {"metadata": meta, "status": {"phase": phase, "conditions": conditions}}


def unschedulable(words: str) -> list[dict[str, str]]:
    return [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}]


def evicted(name: str) -> dict[str, Any]:
    made = pod(name, "Failed")
    made["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
    return made


def waits(name: str, reason: str, *, age_s: float, last: str = "", init: bool = False) -> dict[str, Any]:
    """A placed pod whose container waits for this reason."""
    made = pod(name, "Pending", age_s=age_s, conditions=[{"type": "PodScheduled", "status": "True"}])
    state: dict[str, Any] = {"name": "c", "state": {"waiting": {"reason": reason}}}
    if last:
        state["lastState"] = {"terminated": {"reason": last, "exitCode": 137}}
    made["status"]["initContainerStatuses" if init else "containerStatuses"] = [state]
    return made


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (waits("p", "ImagePullBackOff", age_s=9000), "stuck", "1 stuck (ImagePullBackOff)"),
        (waits("p", "ErrImageNeverPull", age_s=5, init=True), "stuck", "1 stuck (ErrImageNeverPull)"),
        (waits("p", "CreateContainerConfigError", age_s=5), "stuck", "1 stuck (CreateContainerConfigError)"),
        (waits("p", "ContainerCreating", age_s=5), "starting", "1 starting"),
        (waits("p", "CrashLoopBackOff", age_s=5, last="OOMKilled"), "stuck", "(CrashLoopBackOff: ended as OOMKilled)"),
        (waits("p", "CrashLoopBackOff", age_s=9000, last="OOMKilled"), "crashing", "1 crashing (CrashLoopBackOff: ended"),
        (
            pod("p", "Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            "held",
            "1 held back (SchedulingGated: no reason given)",
        ),
    ],
)
def test_what_keeps_a_pod_from_coming_is_said_in_the_clusters_words(given: dict[str, Any], kind: str, words: str) -> None:
    pods = read_pods([given], NOW_S)
    assert getattr(pods, kind) == ("p",)
    assert words in pods.text()
    assert (pods.waiting == 0) == (kind == "crashing")  # an overloaded service must not block its own cure


def test_wanted_existing_and_ready_are_three_numbers() -> None:
    pods = with_wanted(read_pods([pod("a", "Running", ready=True)], NOW_S), 4, "FailedCreate: exceeded quota: gpu")
    assert pods.missing == 3
    assert pods.text() == "4 wanted, 1 exist: 1 ready; no further pod can be created (FailedCreate: exceeded quota: gpu)"


@pytest.mark.parametrize(
    ("kind", "reference", "own"),
    [
        ("Deployment", {"kind": "ReplicaSet", "name": "web-5d", "controller": True}, True),
        ("Deployment", {"kind": "ReplicaSet", "name": "other-5d", "controller": True}, False),
        ("Deployment", {"kind": "ReplicaSet", "name": "web-5d"}, False),
        ("Deployment", None, False),
        ("StatefulSet", {"kind": "StatefulSet", "name": "web", "controller": True}, True),
        ("StatefulSet", {"kind": "ReplicaSet", "name": "web", "controller": True}, False),
        ("", {"kind": "LeaderWorkerSet", "name": "x", "controller": True}, True),
        ("", None, False),
    ],
)
def test_a_pod_that_merely_carries_the_labels_is_not_counted(
    kind: str, reference: dict[str, Any] | None, own: bool
) -> None:
    made = pod("a", "Running", ready=True, **({"ownerReferences": [reference]} if reference else {}))
    assert own_pods([made], kind, "web") == ([made] if own else [])


def test_pods_by_state() -> None:
    pods = read_pods(
        [
            pod("b", "Running", ready=True),
            pod("a", "Running", ready=True),
            pod("young", "Running", age_s=20),
            pod("pulling", "Pending", age_s=900, conditions=[{"type": "PodScheduled", "status": "True"}]),
            pod("overloaded", "Running", age_s=900),
            pod(
                "homeless",
                "Pending",
                conditions=unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu"),
            ),
            pod("leaving", "Running", ready=True, deletionTimestamp="2026-11-20T00:00:00Z"),
            pod("done", "Succeeded"),
            evicted("gone"),
            {"metadata": {"name": "new"}},
        ],
        NOW_S,
    )
    assert pods == Pods(
        ready=("a", "b"),
        unready=("overloaded",),
        starting=("pulling", "young"),
        unplaced=("new",),
        unschedulable=("homeless",),
        why="0/3 nodes are available: 3 Insufficient nvidia.com/gpu",
        ended="1 ended (Evicted: The node was low on resource: memory.)",
        stuck_s=10.0,
    )
    assert (pods.total, pods.waiting) == (7, 4)
    said = "2 ready, 1 running but not ready, 2 starting, 1 not placed on a node yet, 1 unschedulable (0/3 nodes"
    assert pods.text().startswith(said)
    assert pods.text().endswith("; 1 ended (Evicted: The node was low on resource: memory.)")


def test_the_schedulers_words_are_bounded_and_on_one_line() -> None:
    pods = read_pods([pod("x", "Pending", conditions=unschedulable("no\nroom " + "x" * 1000))], NOW_S)
    assert len(pods.why) <= 160
    assert "\n" not in pods.why
