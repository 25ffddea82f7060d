"""Work that must not take processor time from its neighbours: on a machine that serves, a build comes last."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

NICENESS = 5
"""A third of the usual share where cores are short: the build yields, and is still done while it matters."""
T = TypeVar("T")


def politely(work: Callable[[], T], *, niceness: int = NICENESS) -> T:
    """Run `work` in a thread with lower priority and give what it gives, or raise what it raises.

    Linux keeps niceness per thread, and only root may take it back: so the caller's own thread keeps its priority.
    Elsewhere the work runs at the usual priority. The caller stays interruptible (a task's timeout reaches it).
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        with suppress(OSError, AttributeError):
            now = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, now + niceness))
        try:
            done.append(work())
        except BaseException as error:  # raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, name="polite", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
