"""Faults on order: the next requests that match are answered badly, late, or not at all."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass
class Fault:
    """What happens to the next `times` requests.

    methods: which ones (empty: all). code: answer this status. delay_s: wait first. drop: close the connection
    without an answer. apply_after_s: let the request land, but only after this long and without an answer (an etcd
    that thaws). retry_after_s: sent with the answer.
    """

    times: int = 1
    methods: tuple[str, ...] = ()
    path: str = ""
    code: int | None = None
    delay_s: float = 0.0
    drop: bool = False
    apply_after_s: float | None = None
    retry_after_s: int | None = None


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[Fault] = []
        self.served = 0

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._planned.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()

    def next(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._planned:
                if (fault.methods and method not in fault.methods) or fault.path not in path:
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._planned.remove(fault)
                self.served += 1
                return fault
        return None
