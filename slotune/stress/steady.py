"""One steady load while a service is tuned stage by stage: the load goes on, the loop's attempts run beside it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np

from detection.errors import ConfigError
from detection.signals import percentile
from slotune.runner import Stopped
from slotune.stress.conduct import Test, prepared, stopping
from slotune.stress.generator import Generator
from slotune.stress.run import LAST_S
from slotune.stress.service import Watched
from slotune.stress.statistics import interval, p95_draws
from slotune.stress.tune import STAGES, Level, Stage, Tuned, attempt, document, stage_of
from tuning.formats import ms

_TICK_S = 0.25
_LONGEST_STAGE_S = 3600.0


async def tune(test: Test, watched: Watched, tell: Callable[[str], None]) -> Tuned:
    """Hold `test.plan.bound_per_s`, measure, and try one stage after the other.

    ConfigError where the load is too much to begin with: what a lever does cannot be seen in a queue that only grows.
    """
    stop = stopping()
    generator = await prepared(test)
    began_s = time.time()
    plan = test.plan
    longest_s = len(STAGES) * _LONGEST_STAGE_S
    told = {"address": str(test.ask.address), "bound_per_s": plan.bound_per_s}
    watched.begin(began_s, began_s + longest_s, test.who, told, pause=False)
    ended: dict[str, object] = {"ended": "it failed"}
    generator.rate_per_s = max(0.0, plan.bound_per_s - (plan.other_per_s or 0.0))
    generator.start()
    try:
        found = await _stages(test, watched, generator, stop, tell)
        ended = document(found)
    finally:
        generator.rate_per_s = 0.0
        await generator.stop(LAST_S)
        watched.end(began_s, time.time(), test.who, ended, paused=False)
    return found


async def _stages(
    test: Test, watched: Watched, generator: Generator, stop: asyncio.Event, tell: Callable[[str], None]
) -> Tuned:
    plan, name = test.plan, watched.service.name
    main, limit = next(iter(plan.limits.items()))
    first = before = await _level(test, watched, generator, stop)
    if first.p95 is None or first.p95.value > plan.stop_p95 * limit or first.errors > plan.stop_errors:
        shown = "no answer" if first.p95 is None else f"P95 {ms(first.p95.value)}"
        raise ConfigError(
            f"{plan.bound_per_s:.3g}/s is too much for {name} as it is ({shown}, {first.errors:.1%} failed): "
            "what a stage does is seen at a rate that it can answer; lower --to"
        )
    tell(f"As it was: {percentile(main)} {ms(first.p95.value)}")
    stages: list[Stage] = []
    for lever, title in STAGES:
        if stop.is_set():
            break
        halted = threading.Event()
        run = f"stress-{name}-{lever}-{time.time():.0f}"
        work = asyncio.create_task(
            asyncio.to_thread(attempt, watched.parts, watched.service, lever, run, time.time, _waiting(halted))
        )
        while not work.done():
            await _pause(stop, _TICK_S)
            generator.check()
            if stop.is_set():
                halted.set()
                await asyncio.wait([work])
        try:
            came = work.result()
        except Stopped:
            why = f"it was interrupted during {title}; the next sweep proves or undoes what was changed"
            return Tuned(name, plan.bound_per_s, first, tuple(stages), why)
        after = before if isinstance(came, str) else await _level(test, watched, generator, stop)
        stages.append(stage_of(title, came, before, after))
        tell(f"{title}: {stages[-1].change or stages[-1].why}")
        before = after
    ended = "it was interrupted" if len(stages) < len(STAGES) else ""
    return Tuned(name, plan.bound_per_s, first, tuple(stages), ended)


def _waiting(halted: threading.Event) -> Callable[[float], None]:
    def wait_until(until_s: float) -> None:
        if halted.wait(max(0.0, until_s - time.time())):
            raise Stopped

    return wait_until


async def _level(test: Test, watched: Watched, generator: Generator, stop: asyncio.Event) -> Level:
    """What the client sees over one step of the steady load, and how busy the service is."""
    began, began_s = time.monotonic(), time.time()
    await _pause(stop, test.plan.step_s)
    seen = generator.log.seen(*generator.log.since(began), time.monotonic())
    main = next(iter(test.plan.limits))
    value, drawn = p95_draws(*seen.values(main), np.random.default_rng(test.ask.seed))
    p95 = interval(value, drawn) if np.isfinite(value) else None
    return Level(p95, watched.busy(began_s, time.time()), seen.error_share)


async def _pause(stop: asyncio.Event, length_s: float) -> None:
    try:
        async with asyncio.timeout(length_s):
            await stop.wait()
    except TimeoutError:
        return
