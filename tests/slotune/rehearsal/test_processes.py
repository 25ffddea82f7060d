"""Work by name in several processes: the same results as in one, an error is told, and who stops leaves nobody behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from slotune.rehearsal.processes import Died, in_processes


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_results_are_those_of_one_process(jobs):
    done: list[float] = []
    shared = list(range(1000))
    tasks = {str(k): (lambda _tell, k=k: sum(shared[:k])) for k in range(7)}
    found = dict(in_processes(tasks, jobs, done.append))
    assert found == {str(k): sum(range(k)) for k in range(7)}
    assert sorted(done) == done and done[-1] == 1.0


def test_the_work_is_done_elsewhere_and_its_failure_is_told_here():
    found = dict(in_processes({"a": lambda _tell: os.getpid(), "b": lambda _tell: os.getpid()}, 2, lambda _share: None))
    assert os.getpid() not in found.values() and found["a"] != found["b"]

    def fails(_tell) -> int:
        raise ValueError("no ground")

    found = dict(in_processes({"a": fails, "b": lambda _tell: 1}, 2, lambda _share: None))
    assert isinstance(found["a"], ValueError) and str(found["a"]) == "no ground" and found["b"] == 1


def test_a_process_that_is_killed_is_told_and_the_others_go_on():
    def killed(_tell) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    found = dict(in_processes({"a": killed, "b": lambda _tell: 1}, 2, lambda _share: None))
    assert isinstance(found["a"], Died) and "signal 9" in str(found["a"]) and found["b"] == 1


def test_progress_is_told_while_the_work_is_under_way():
    told: list[float] = []

    def half(tell) -> None:
        tell(0.5)
        time.sleep(1.2)

    list(in_processes({"a": half, "b": half}, 2, told.append))
    assert 0.5 in told


def test_whoever_stops_ends_the_processes_that_still_work():
    before = set(multiprocessing.active_children())
    several = in_processes(
        {"a": lambda _tell: 1, "b": lambda _tell: time.sleep(60), "c": lambda _tell: 2}, 2, lambda _share: None
    )
    assert next(several) == ("a", 1)
    assert len(set(multiprocessing.active_children()) - before) == 1
    several.close()
    assert set(multiprocessing.active_children()) == before
