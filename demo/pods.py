"""Pods as processes: each pod of a workload runs one server with the arguments of its own template.

A container that uses more memory than its limit (spec.resources.limits.memory, "200M") is killed, as by the kernel's
OOM killer in a cluster, and started again in the same pod.

A changed template is a rollout as in a cluster: the new pod's process starts beside the old one, which is told to end
when its pod has gone, and answers what it had begun.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from demo import web
from demo.kubernetes_api.resources import POD
from demo.kubernetes_api.store import Object, Store
from demo.processes import LOOPBACK, Child, DemoError, free_port

LEAVE_S = 1.0
"""Who balances load must have read that a server has gone before it is told to end."""
DRAIN_S = 60.0


@dataclass
class Running:
    """One pod's server. `ready` once it has answered its health call."""

    name: str
    port: int
    child: Child
    ready: bool = False
    limit_bytes: float = math.inf

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"


class Pods:
    """Follows the pods of one namespace in one thread, which is the parent of all their processes.

    command: what a container runs, from its arguments and a port. health: the path of its health call. on_change:
    gets the ready ones after each change.
    """

    def __init__(
        self,
        store: Store,
        namespace: str,
        labels: Mapping[str, str],
        command: Callable[[Sequence[str], int], Sequence[str | Path]],
        logs: Path,
        on_change: Callable[[list[Running]], None],
        *,
        start_timeout_s: float = 120.0,
        health: str = "/health",
    ) -> None:
        self._store, self._namespace, self._labels = store, namespace, dict(labels)
        self._command, self._logs, self._on_change = command, logs, on_change
        self._start_timeout_s, self._health = start_timeout_s, health
        self._running: dict[str, Running] = {}
        self._leaving: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.failures: list[str] = []
        self.killed: list[str] = []
        """The pods whose container has reached its memory's limit, once for each time."""
        self._thread = threading.Thread(target=self._follow, name=f"pods-{namespace}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def place(self, pod: Object) -> tuple[str, int] | None:
        """Where a pod answers; None while it does not."""
        with self._lock:
            found = self._running.get(pod["metadata"]["name"])
        return (LOOPBACK, found.port) if found is not None and found.ready and found.child.alive else None

    @property
    def ready(self) -> list[Running]:
        """The servers that answer, oldest first."""
        with self._lock:
            return [one for one in self._running.values() if one.ready and one.child.alive]

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=20.0)

    def _follow(self) -> None:
        while not self._stopping.wait(0.1):
            try:
                self._step()
            except DemoError as failure:
                self.failures.append(str(failure))
                time.sleep(1.0)
        for one in self._running.values():
            one.child.stop()
        for thread in self._leaving:
            thread.join(timeout=5.0)

    def _step(self) -> None:
        pods = {pod["metadata"]["name"]: pod for pod in self._store.list(POD, self._namespace, self._labels)}
        for one in self._running.values():
            self._bounded(one)
        gone = [one for name, one in self._running.items() if name not in pods or not one.child.alive]
        for name, pod in sorted(pods.items()):
            if name not in self._running:
                started = self._spawn(name, pod)
                with self._lock:
                    self._running[name] = started
        coming = [one for one in self._running.values() if not one.ready]
        fresh = [one for one in coming if web.answers(f"http://{one.address}{self._health}")]
        for one in fresh:
            one.ready = True
        with self._lock:
            for one in gone:
                self._running.pop(one.name, None)
        if gone or fresh:
            self._on_change(self.ready)
        for one in gone:
            self._leave(one)

    def _bounded(self, one: Running) -> None:
        """The kernel's OOM killer."""
        if one.limit_bytes == math.inf or not one.child.alive:
            return
        try:
            used = psutil.Process(one.child.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return
        if used > one.limit_bytes:
            self.killed.append(one.name)
            os.kill(one.child.pid, signal.SIGKILL)

    def _spawn(self, name: str, pod: Object) -> Running:
        container: dict[str, Any] = pod["spec"]["containers"][0]
        port = free_port()
        words = [str(word) for word in container.get("args") or []]
        child = Child(name, self._command(words, port), self._logs / f"{name}.log")
        return Running(name, port, child, limit_bytes=_memory_limit(container))

    def _leave(self, one: Running) -> None:
        def end() -> None:
            time.sleep(LEAVE_S)
            one.child.stop(grace_s=DRAIN_S)

        thread = threading.Thread(target=end, name=f"leaving-{one.name}", daemon=True)
        thread.start()
        self._leaving.append(thread)


def _memory_limit(container: dict[str, Any]) -> float:
    """In bytes; only megabytes ("200M") are known here."""
    text = str(((container.get("resources") or {}).get("limits") or {}).get("memory") or "")
    return float(text.removesuffix("M")) * 2**20 if text else math.inf
