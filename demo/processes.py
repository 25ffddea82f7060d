"""Child processes that never outlive the demo: each dies with its parent, and is stopped by its own id, in order."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
LOOPBACK = "127.0.0.1"


class DemoError(Exception):
    """The demo cannot go on; the text is the sentence for the user."""


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that `sweep` can find them."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_until(true: Callable[[], bool], timeout_s: float, what: str, *, every_s: float = 0.1) -> None:
    """Poll; raises DemoError naming `what` when it has not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} within {timeout_s:.0f} s did not happen")
        time.sleep(every_s)


class Child:
    """One process with its log file. nice: below 0 for what measures (granted to root only).

    Start it from a thread that lives as long as the demo: the kernel's death
    signal follows the THREAD that started the child."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        nice: int = 0,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name, self.log, self.stop_signal = name, log, stop_signal
        log.parent.mkdir(parents=True, exist_ok=True)
        mother = os.getpid()

        def in_child() -> None:  # after fork: only system calls, so that threads of the parent cannot matter
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's `&` leaves it ignored, and that is inherited
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
            if os.getppid() != mother:
                os._exit(1)
            if nice:
                with contextlib.suppress(PermissionError):  # only root may go below 0
                    os.nice(nice)

        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=cwd,
                user=user, group=None if user is None else _group_of(user), extra_groups=None if user is None else [],
                start_new_session=True, preexec_fn=in_child)  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Raises DemoError with the end of the log when the process has ended."""
        if not self.alive:
            status = self._process.returncode
            raise DemoError(f"{self.name} ended with status {status}; the end of {self.log}:\n{self.tail()}")

    def tail(self, lines: int = 8) -> str:
        text = self.log.read_text(errors="replace") if self.log.is_file() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def stop(self, grace_s: float = 5.0) -> None:
        """Ask, wait, then insist; also what the process had started and left."""
        family = _descendants(self.pid) if self.alive else []
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, self.stop_signal)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        end(family, grace_s=1.0)


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def end(family: Sequence[psutil.Process], grace_s: float) -> None:
    """Terminate these processes (psutil checks that an id was not given away meanwhile), then kill what is left."""
    left = [p for p in family if p.is_running()]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(left, timeout=grace_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=2.0)


def sweep(keep: Sequence[int] = ()) -> list[str]:
    """End every descendant of this process that is left (and not in `keep`); returns their names."""
    left = [p for p in _descendants(os.getpid()) if p.pid not in keep]
    names = []
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                names.append(f"{process.name()} ({process.pid})")
    end(left, grace_s=2.0)
    return names
