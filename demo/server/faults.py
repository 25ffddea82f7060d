"""What can be made to go wrong on purpose, and the shadow run that compares a version with its reference."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import numpy as np

from demo.server.metrics import Metrics
from demo.server.repository import Repository

LEAK_EVERY_S = 0.25


@dataclass
class Faults:
    """error_share: share of requests answered 500. slow_factor: every batch takes this many times as long.
    leak_mb_per_s: memory that is taken and never given back.

    shadow_reference/shadow_share: this share of the batches also runs through the loaded version `shadow_reference`.
    """

    error_share: float = 0.0
    slow_factor: float = 1.0
    leak_mb_per_s: float = 0.0
    leaked: list[bytes] = field(default_factory=list)
    shadow_reference: str | None = None
    shadow_share: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def fails(self) -> bool:
        return self.error_share > 0 and self.random.random() < self.error_share

    async def leak(self) -> None:
        """Take memory as long as it is asked for; what is not written to would not be resident."""
        while True:
            await asyncio.sleep(LEAK_EVERY_S)
            if self.leak_mb_per_s > 0:
                self.leaked.append(b"\1" * int(self.leak_mb_per_s * LEAK_EVERY_S * 2**20))

    async def slow_down(self, seconds: float) -> float:
        """Wait the extra time; returns how long that was meant to be."""
        extra = (self.slow_factor - 1) * seconds
        if extra > 0:
            await asyncio.sleep(extra)
        return max(0.0, extra)

    async def shadow(self, repository: Repository, metrics: Metrics, rows: np.ndarray, out: np.ndarray) -> None:
        """After the answers are out: the same rows through the reference, and count where the argmax agrees."""
        if self.shadow_reference is None or self.random.random() >= self.shadow_share:
            return
        reference = repository.loaded().get(self.shadow_reference)
        if reference is None:
            return
        expected, _ = await reference.model.infer(rows)
        metrics.shadow.inc(len(rows))
        metrics.shadow_agree.inc(int(np.sum(expected.argmax(1) == out.argmax(1))))
