"""Work by name in several processes: the same results in the same order, and a failure is the caller's."""

from __future__ import annotations

import os

import pytest

from slotune.rehearsal.processes import in_processes


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_results_are_those_of_one_process_in_the_order_of_the_tasks(jobs):
    done: list[float] = []
    shared = list(range(1000))
    tasks = {str(k): (lambda k=k: sum(shared[:k])) for k in range(7)}
    found = in_processes(tasks, jobs, done.append)
    assert list(found.items()) == [(str(k), sum(range(k))) for k in range(7)]
    assert sorted(done) == done and done[-1] == 1.0 and len(done) == 7


def test_the_work_is_done_elsewhere_and_its_failure_is_told_here():
    assert set(in_processes({"a": os.getpid, "b": os.getpid}, 2, lambda _share: None).values()).isdisjoint({os.getpid()})

    def fails() -> int:
        raise ValueError("no ground")

    with pytest.raises(ValueError, match="no ground"):
        in_processes({"a": fails, "b": os.getpid}, 2, lambda _share: None)
