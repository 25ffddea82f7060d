"""A stress test as it runs: steps of one rate, ended early where a limit is passed, the way back after each that was
too much. What comes next is `climb`'s to say, what it means is `statistics`'."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from detection.model import FloatArray
from slotune.stress.climb import Done, next_step
from slotune.stress.generator import Generator
from slotune.stress.model import LOCAL, PENDING, Plan, Raw, Recovery, Seen, Step
from slotune.stress.statistics import back_after, summarise

_TICK_S = 0.25
_SETTLE = 0.25
"""Share of a step that is left out: the change from the rate before."""
_LOOK_S = 3.0
_FEWEST = 20
"""Requests that a judgement within a step needs, and how far back it looks."""
LAST_S = 1.0


@dataclass(frozen=True)
class Progress:
    """What a person is told while it runs. done: share of the present step (or of the longest wait for recovery)."""

    what: str
    rate_per_s: float
    done: float
    p95_ms: float
    errors: float


@dataclass
class Measured:
    """What a run came to, in the order in which it happened; grows while it runs, so that an end at any time leaves
    what was measured."""

    steps: list[Step] = field(default_factory=list)
    drawn: list[Mapping[str, FloatArray]] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    ended: str = "it was interrupted"


class Run:
    """stop: set by whoever interrupts. tell: is given the progress four times a second. after_step: each that is over.
    objective: whose P95 is shown."""

    def __init__(
        self,
        generator: Generator,
        plan: Plan,
        stop: asyncio.Event,
        tell: Callable[[Progress], None],
        after_step: Callable[[Step], None],
        seed: int,
    ) -> None:
        self._generator, self._plan, self._stop = generator, plan, stop
        self._tell, self._after_step = tell, after_step
        self._rng = np.random.default_rng(seed)
        self._main = next(iter(plan.limits))
        self.measured = Measured()

    async def run(self) -> Measured:
        self._generator.start()
        try:
            await self._climb()
        finally:
            self._generator.rate_per_s = 0.0
            await self._generator.stop(LAST_S)
        return self.measured

    async def _climb(self) -> None:
        found = self.measured
        while not self._stop.is_set():
            ahead = next_step(found.steps, self._plan)
            if isinstance(ahead, Done):
                found.ended = ahead.why
                return
            raw = await self._step(ahead.rate_per_s, "climbing" if ahead.climbing else "narrowing down")
            step, drawn = summarise(raw, self._plan, self._rng)
            found.steps.append(step)
            found.drawn.append(drawn)
            self._after_step(step)
            if step.verdict in ("broken", "stopped"):
                recovery = await self._recover(step.rate_per_s)
                if recovery is not None:
                    found.recoveries.append(recovery)
                    if recovery.back_s is None:
                        found.ended = "the service did not come back, so that nothing more was sent"
                        return

    async def _step(self, rate_per_s: float, what: str) -> Raw:
        sent_per_s = max(0.0, rate_per_s - (self._plan.other_per_s or 0.0))
        began, began_s, cpu = time.monotonic(), time.time(), time.process_time()
        until, stopped = began + self._plan.step_s, ""
        self._generator.rate_per_s = sent_per_s
        while (now := time.monotonic()) < until and not stopped:
            await self._tick(until - now)
            stopped = self._over(began)
            recent = self._since(max(began, time.monotonic() - _LOOK_S))
            self._say(what, rate_per_s, (time.monotonic() - began) / self._plan.step_s, recent)
        ended = time.monotonic()
        settle_s = min(_SETTLE * self._plan.step_s, 0.5 * (ended - began))
        return Raw(
            rate_per_s=rate_per_s,
            sent_per_s=sent_per_s,
            start_s=began_s,
            end_s=time.time(),
            seen=self._since(began + settle_s),
            stopped=stopped,
            cpu=(time.process_time() - cpu) / max(ended - began, 1e-9),
        )

    def _over(self, began: float) -> str:
        """Why the present step has to end now; "" where it goes on."""
        if self._stop.is_set():
            return "interrupted"
        seen = self._since(max(began, time.monotonic() - _LOOK_S))
        ended = int(((seen.status != PENDING) & (seen.status != LOCAL)).sum())
        if ended >= _FEWEST and seen.error_share > self._plan.stop_errors:
            return "errors"
        if seen.sent >= _FEWEST and any(
            _p95(seen, name) > limit * self._plan.stop_p95 for name, limit in self._plan.limits.items()
        ):
            return "stopped"
        return ""

    async def _recover(self, after_per_s: float) -> Recovery | None:
        """Back to the base rate until every objective is met; None where nothing can be sent that would show it."""
        base = self._plan.base_per_s
        ended = time.monotonic()
        self._generator.rate_per_s = base
        if base <= 0:
            return None
        window_s = max(2.0, _FEWEST / base)
        most_s = max(self._plan.recovery_max_s, 2 * window_s)
        while (waited := time.monotonic() - ended) < most_s and not self._stop.is_set():
            await self._tick(most_s - waited)
            seen = self._since(ended)
            back = back_after(seen, self._plan.limits, ended, window_s)
            self._say("waiting for recovery", base, waited / most_s, self._since(time.monotonic() - _LOOK_S))
            if back is not None:
                return Recovery(after_per_s, back, time.monotonic() - ended)
        return Recovery(after_per_s, None, time.monotonic() - ended) if not self._stop.is_set() else None

    def _since(self, due: float) -> Seen:
        log = self._generator.log
        return log.seen(*log.since(due), time.monotonic())

    async def _tick(self, most_s: float) -> None:
        self._generator.check()
        try:
            async with asyncio.timeout(min(_TICK_S, max(most_s, 0.0))):
                await self._stop.wait()
        except TimeoutError:
            return

    def _say(self, what: str, rate_per_s: float, done: float, seen: Seen) -> None:
        self._tell(Progress(what, rate_per_s, min(done, 1.0), _p95(seen, self._main), seen.error_share))


def _p95(seen: Seen, objective: str) -> float:
    values, _ = seen.values(objective)
    return float(np.quantile(values, 0.95)) if values.size else math.nan
