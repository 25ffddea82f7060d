"""Ctrl-C that is not lost in native code.

A KeyboardInterrupt that is raised while a library's C++ runs or is being imported comes out as something else (an
ImportError, a failed build) or not at all. So the wish to stop is remembered beside it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """asked: whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise the KeyboardInterrupt that a library may have swallowed."""
        if self.asked:
            raise KeyboardInterrupt

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def remembered() -> Iterator[Stop]:
    """Remember Ctrl-C within; only a main thread hears signals."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, stop._heard)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
