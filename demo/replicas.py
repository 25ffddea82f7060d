"""Replica processes behind a Deployment: as many real servers as its spec asks for, told to whoever balances load."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo import web
from demo.processes import LOOPBACK, Child, DemoError, free_port

DRAIN_S = 1.0


@dataclass
class Replica:
    """One server process. `ready` once it has answered its health call."""

    name: str
    address: str
    child: Child
    ready: bool = False


class Replicas:
    """Converges on the wanted number in one thread of its own, which also is the parent of all replica processes.

    on_change gets the ready replicas after each change. capacity: more than this many stay pending ("no node has
    room"). ready() answers 0 for a Deployment that is not ours.
    """

    def __init__(
        self,
        namespace: str,
        name: str,
        options: Sequence[str],
        logs: Path,
        on_change: Callable[[list[Replica]], None],
        *,
        capacity: int = 8,
        start_timeout_s: float = 20.0,
    ) -> None:
        self.namespace, self.name = namespace, name
        self._options, self._logs, self._on_change = list(options), logs, on_change
        self._capacity, self._start_timeout_s = capacity, start_timeout_s
        self._wanted, self._number = 0, 0
        self._replicas: list[Replica] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._converge, name=f"replicas-{name}", daemon=True)
        self._thread.start()

    def on_scale(self, namespace: str, name: str, replicas: int) -> None:
        """The Deployment's spec.replicas changed."""
        if (namespace, name) == (self.namespace, self.name):
            self._wanted = replicas
            self._wake.set()

    def ready(self, namespace: str, name: str) -> int:
        """How many replicas of the Deployment are ready."""
        if (namespace, name) != (self.namespace, self.name):
            return 0
        return len(self.running)

    @property
    def running(self) -> list[Replica]:
        """The ready replicas, oldest first."""
        with self._lock:
            return [r for r in self._replicas if r.ready and r.child.alive]

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout=20.0)

    def _converge(self) -> None:
        while not self._stopping:
            self._wake.wait(0.5)
            self._wake.clear()
            try:
                self._step()
            except DemoError as failure:
                self.failures.append(str(failure))
                time.sleep(1.0)
        for replica in self._replicas:
            replica.child.stop()

    def _step(self) -> None:
        dead = [r for r in self._replicas if not r.child.alive]
        wanted = min(self._wanted, self._capacity)
        surplus = [r for r in self._replicas if r not in dead][max(0, wanted) :]
        missing = wanted - (len(self._replicas) - len(dead))
        if dead or surplus:
            with self._lock:
                self._replicas = [r for r in self._replicas if r not in dead and r not in surplus]
            self._on_change(self.running)
        if surplus:
            time.sleep(DRAIN_S)  # who balances load must have read that they are gone
            for replica in surplus:
                replica.child.stop()
        if missing > 0:
            self._start(missing)

    def _start(self, count: int) -> None:
        started = [self._spawn() for _ in range(count)]
        with self._lock:
            self._replicas += started
        deadline = time.monotonic() + self._start_timeout_s
        while not self._stopping and not all(r.ready for r in started):
            if time.monotonic() > deadline:
                raise DemoError(f"replicas of {self.name} did not become ready in {self._start_timeout_s:.0f} s")
            fresh = [r for r in started if not r.ready and web.answers(f"http://{r.address}/v2/health/ready")]
            for replica in started:
                replica.child.check()
            for replica in fresh:
                replica.ready = True
            if fresh:
                self._on_change(self.running)
            time.sleep(0.05)

    def _spawn(self) -> Replica:
        self._number += 1
        port, name = free_port(), f"{self.name}-{self._number}"
        command = [sys.executable, "-m", "demo.server", "--port", str(port), *self._options]
        return Replica(name, f"{LOOPBACK}:{port}", Child(name, command, self._logs / f"{name}.log"))
