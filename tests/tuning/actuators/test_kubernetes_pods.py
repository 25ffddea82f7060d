"""Pods by state, and the way down in steps: pure functions, so tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tuning.actuators._kubernetes_pods import Pods, next_step_down, read_pods

NOW_S = 1_800_000_000.0


def pod(name: str, phase: str, *, ready: bool = False, age_s: float = 10, **more: Any) -> dict[str, Any]:
    made = datetime.fromtimestamp(NOW_S - age_s, UTC).isoformat().replace("+00:00", "Z")
    conditions = [{"type": "Ready", "status": str(ready)}, *more.pop("conditions", [])]
    meta = {"name": name, "creationTimestamp": made, **more}
    return {"metadata": meta, "status": {"phase": phase, "conditions": conditions}}


def unschedulable(words: str) -> list[dict[str, str]]:
    return [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}]


def test_pods_by_state() -> None:
    pods = read_pods(
        [
            pod("b", "Running", ready=True),
            pod("a", "Running", ready=True),
            pod("young", "Running", age_s=20),
            pod("pulling", "Pending", age_s=900),
            pod("overloaded", "Running", age_s=900),
            pod(
                "homeless",
                "Pending",
                conditions=unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu"),
            ),
            pod("leaving", "Running", ready=True, deletionTimestamp="2026-11-20T00:00:00Z"),
            pod("done", "Succeeded"),
            pod("evicted", "Failed"),
            {"metadata": {"name": "new"}},
        ],
        NOW_S,
    )
    assert pods == Pods(
        ready=("a", "b"),
        unready=("overloaded",),
        starting=("new", "pulling", "young"),
        unschedulable=("homeless",),
        why="0/3 nodes are available: 3 Insufficient nvidia.com/gpu",
    )
    assert (pods.total, pods.waiting) == (7, 4)
    assert pods.text().startswith("2 ready, 1 running but not ready, 3 starting, 1 unschedulable (0/3 nodes")


def test_the_schedulers_words_are_bounded_and_on_one_line() -> None:
    pods = read_pods([pod("x", "Pending", conditions=unschedulable("no\nroom " + "x" * 1000))], NOW_S)
    assert len(pods.why) <= 160
    assert "\n" not in pods.why


@pytest.mark.parametrize(
    ("current", "floor", "step", "queue", "becomes"),
    [
        (10, 2, 1, (), 9),
        (10, 2, 3, (), 7),
        (3, 2, 4, (), 2),
        (2, 2, 1, (), None),
        (1, 2, 1, (), None),
        (10, 2, 0, (), None),
        (10, 2, 1, (1.0, 1.0, 1.1, 1.0), 9),
        (10, 2, 1, (0.0, 0.0, 0.0, 0.4), 9),
        (10, 2, 1, (4.0, 4.0, 6.0, 8.0), None),
        (10, 2, 1, (0.0, 0.0, 2.0, 3.0), None),
        (10, 2, 1, (1.0, 9.0), 9),
    ],
)
def test_next_step_down(current: int, floor: int, step: int, queue: tuple[float, ...], becomes: int | None) -> None:
    assert next_step_down(current, floor, step=step, queue=queue) == becomes


def test_the_whole_way_down_never_skips_and_ends() -> None:
    seen, current = [], 10
    while (step := next_step_down(current, 2, queue=(1.0, 1.0, 1.0, 1.0))) is not None:
        seen.append(step)
        current = step
    assert seen == [9, 8, 7, 6, 5, 4, 3, 2]
