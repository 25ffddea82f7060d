"""Work by name in several processes that share what was there before them: only results travel."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")
_tasks: Mapping[str, Callable[[], Any]] = {}
"""What a forked process finds: histories of a month are neither copied nor sent."""


def in_processes(
    tasks: Mapping[str, Callable[[], T]], jobs: int, progress: Callable[[float], None]
) -> dict[str, T]:
    """The result of every task, in the tasks' order. progress: is told the share that is done. In this process where
    one is enough, or where the system cannot fork."""
    global _tasks
    found: dict[str, T] = {}
    if min(jobs, len(tasks)) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        for name, task in tasks.items():
            found[name] = task()
            progress(len(found) / len(tasks))
        return found
    _tasks = tasks
    try:
        with ProcessPoolExecutor(min(jobs, len(tasks)), multiprocessing.get_context("fork")) as pool:
            names = {pool.submit(_carry_out, name): name for name in tasks}
            for future in as_completed(names):
                found[names[future]] = future.result()
                progress(len(found) / len(tasks))
    finally:
        _tasks = {}
    return {name: found[name] for name in tasks}


def _carry_out(name: str) -> Any:
    return _tasks[name]()
