"""Work by name in several processes, each task in one of its own: what it had in memory goes with it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

T = TypeVar("T")
Progress = Callable[[float], None]
"""Called with the share that is done, 0..1."""
Task = Callable[[Progress], T]
_LOOK_S = 0.5


class Died(Exception):
    """A process ended without an answer."""


def in_processes(tasks: Mapping[str, Task[T]], jobs: int, progress: Progress) -> Iterator[tuple[str, T | Exception]]:
    """The result of every task, or what it raised, as they end; at most `jobs` at once. progress: is told the share of
    all tasks that is done. In this process where one is enough, or where the system cannot fork.

    Whoever stops early (Ctrl-C, or the iterator is closed) ends the processes that still work.
    """
    if min(jobs, len(tasks)) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        for place, (name, task) in enumerate(tasks.items()):
            yield name, _tried(task, _part(progress, place, len(tasks)))
        return
    context = multiprocessing.get_context("fork")
    shares = context.RawArray("d", len(tasks))
    waiting = list(enumerate(tasks.items()))[::-1]
    at_work: dict[Connection, tuple[str, BaseProcess]] = {}
    try:
        while waiting or at_work:
            while waiting and len(at_work) < jobs:
                place, (name, task) = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                # Forked: the task is found in memory, and only its result travels.
                process: BaseProcess = context.Process(
                    target=_carry_out, args=(task, theirs, shares, place), daemon=True
                )
                process.start()
                theirs.close()
                at_work[ours] = name, process
            ready = wait(list(at_work), _LOOK_S)
            for ours in [one for one in at_work if one in ready]:
                name, process = at_work.pop(ours)
                yield name, _answer(ours, process)
            progress(sum(shares) / len(tasks))
    finally:
        for ours, (_, process) in at_work.items():
            process.terminate()
            process.join()
            ours.close()


def _part(progress: Progress, place: int, parts: int) -> Progress:
    return lambda share: progress((place + share) / parts)


def _tried(task: Task[T], progress: Progress) -> T | Exception:
    """On one core: a second thread of the linear algebra would only take time from the other processes."""
    try:
        with threadpool_limits(1):
            found = task(progress)
    except Exception as error:  # told by the caller, who knows what the task was
        return error
    progress(1.0)
    return found


def _carry_out(task: Task[Any], answer: Connection, shares: Any, place: int) -> None:
    """In the process of its own. Ctrl-C reaches everybody, and is the caller's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    found = _tried(task, lambda share: shares.__setitem__(place, share))
    try:
        answer.send(found)
    except Exception as error:  # an error that cannot be sent as it is
        answer.send(RuntimeError(f"{type(found).__name__}: {found} ({error})"))


def _answer(ready: Connection, process: BaseProcess) -> Any:
    try:
        return ready.recv()
    except EOFError:
        process.join()
        status = process.exitcode or 0
        killed = f"signal {-status}" if status < 0 else f"status {status}"
        return Died(f"its process ended with {killed}, perhaps for want of memory")
    finally:
        process.join()
        ready.close()
