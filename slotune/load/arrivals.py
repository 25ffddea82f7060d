"""When requests are sent: Poisson arrivals at a rate that may change, whatever becomes of the requests before.

A closed loop waits for the slow server and so hides the queue that it causes (coordinated omission); an open loop does
not, as long as a latency counts from the moment at which the request was MEANT to be sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

POLL_S = 0.2
_IDLE_S = 0.05


async def arrivals(rate: Callable[[float], float], rng: random.Random) -> AsyncIterator[float]:
    """The intended starts, each given once it is due. Times are monotonic seconds.

    rate: requests per second at a time; 0 sends nothing. Never ends by itself. A generator that comes late gives what
    is due at once, and lets answers be read in between.
    """
    due = time.monotonic()
    while True:
        now = time.monotonic()
        per_s = rate(now)
        if per_s <= 0:
            await asyncio.sleep(_IDLE_S)
            due = time.monotonic()
            continue
        due += rng.expovariate(per_s)
        # A long gap is cut short, so that a new rate is taken up at once; memorylessness makes that exact.
        if due - now > POLL_S:
            await asyncio.sleep(POLL_S)
            due = now + POLL_S
            continue
        await asyncio.sleep(max(0.0, due - now))
        yield due
