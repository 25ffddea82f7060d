"""Open-loop load: Poisson arrivals at scheduled rates, latency counted from the INTENDED start.

A closed loop waits for the slow server and so hides the queue that it causes; this one does not. Run as a process of
its own: `python -m demo.load --control FILE --out FILE`. The control file (JSON, replaced as a whole, read again when
it changes) holds {"endpoints": ["127.0.0.1:9000", ...], "model": "ranker", "schedule": [[rate, seconds or null], ...],
"schedule_id": 1}; a new schedule_id starts its schedule from the beginning. The out file gets one JSON line per second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from demo import histogram, models
from demo.httpwire import ConnectionLost, Pool
from demo.server.protocol import HEADER_LENGTH, encode_request

POLL_S = 0.2


@dataclass
class Second:
    """What happened in one second, by the time of completion."""

    sent: int = 0
    ok: int = 0
    errors: int = 0
    dropped: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def line(self, t: float, under_way: int, rate: float) -> str:
        bins = histogram.count(self.latencies_ms)
        quantiles = {f"p{q}_ms": _round(histogram.quantile_ms(bins, q / 100)) for q in (50, 95, 99)}
        return json.dumps({
            "t": round(t, 3), "rate": rate, "sent": self.sent, "ok": self.ok, "errors": self.errors,
            "dropped": self.dropped, "under_way": under_way, **quantiles, "bins": bins})  # fmt: skip


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


@dataclass(frozen=True)
class Control:
    """The content of the control file."""

    endpoints: tuple[str, ...]
    schedule: tuple[tuple[float, float | None], ...]
    schedule_id: int
    model: str = "ranker"

    @classmethod
    def read(cls, path: Path) -> Control:
        document = json.loads(path.read_text())
        return cls(
            tuple(document["endpoints"]),
            tuple((float(rate), None if s is None else float(s)) for rate, s in document["schedule"]),
            int(document["schedule_id"]),
            document.get("model", "ranker"),
        )

    def write(self, path: Path) -> None:
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({
            "endpoints": self.endpoints, "schedule": self.schedule,
            "schedule_id": self.schedule_id, "model": self.model}))  # fmt: skip
        partial.replace(path)


def rate_at(schedule: tuple[tuple[float, float | None], ...], elapsed_s: float) -> float:
    """Requests per second now; 0 after the schedule's end."""
    for rate, seconds in schedule:
        if seconds is None or elapsed_s < seconds:
            return rate
        elapsed_s -= seconds
    return 0.0


class Generator:
    """Sends, and counts. max_requests and max_s bound it; max_under_way bounds what the client itself holds open."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._random = random.Random(args.seed)
        self._control = Control.read(args.control)
        self._changed_ns = args.control.stat().st_mtime_ns
        self._schedule_started = time.monotonic()
        self._pools: dict[str, Pool] = {}
        self._prepared: list[tuple[bytes, int]] = list(_bodies(args.seed, args.bodies))
        self._requests: dict[str, list[bytes]] = {}
        self._second = Second()
        self._under_way: set[asyncio.Task[None]] = set()
        self._sent = 0
        self.stop = asyncio.Event()
        self._use_endpoints()

    async def run(self) -> None:
        helpers = [asyncio.create_task(self._follow_control()), asyncio.create_task(self._write_seconds())]
        sender = asyncio.create_task(self._send_all())
        stopper = asyncio.create_task(self.stop.wait())
        await asyncio.wait([sender, stopper, *helpers], return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.gather(*self._under_way, return_exceptions=True)
        for task in (sender, stopper, *helpers):
            task.cancel()
        for task in (sender, *helpers):
            if task.done() and not task.cancelled() and task.exception():
                raise task.exception()  # type: ignore[misc]

    async def _send_all(self) -> None:
        started = due = time.monotonic()
        while self._sent < self._args.max_requests:
            now = time.monotonic()
            if now - started > self._args.max_s:
                return
            rate = rate_at(self._control.schedule, now - self._schedule_started)
            if rate <= 0 or not self._pools:
                await asyncio.sleep(0.05)
                due = time.monotonic()
                continue
            due += self._random.expovariate(rate)
            # A long gap is cut short, so that a new rate is taken up at once; memorylessness makes that exact.
            if due - now > POLL_S:
                await asyncio.sleep(POLL_S)
                due = now + POLL_S
                continue
            if due > now:
                await asyncio.sleep(due - now)
            self._send(due)

    def _send(self, due: float) -> None:
        self._sent += 1
        self._second.sent += 1
        if len(self._under_way) >= self._args.max_under_way:
            self._second.dropped += 1
            return
        task = asyncio.create_task(self._one(due))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _one(self, due: float) -> None:
        name = self._choose()
        prepared = self._requests[name][self._random.randrange(len(self._prepared))]
        try:
            status = await self._pools[name].request(prepared, self._args.timeout_s)
        except (OSError, ConnectionLost, TimeoutError):
            status = 0
        if status == 200:
            self._second.ok += 1
            self._second.latencies_ms.append((time.monotonic() - due) * 1000)
        else:
            self._second.errors += 1

    def _choose(self) -> str:
        """The less busy of two drawn at random (Mitzenmacher 2001), as client-side balancers do."""
        names = list(self._pools)
        if len(names) == 1:
            return names[0]
        a, b = self._random.sample(names, 2)
        return a if self._pools[a].under_way <= self._pools[b].under_way else b

    def _use_endpoints(self) -> None:
        for name in set(self._pools) - set(self._control.endpoints):
            self._pools.pop(name).close()
        for name in self._control.endpoints:
            if name not in self._pools:
                host, port = name.rsplit(":", 1)
                self._pools[name] = Pool(host, int(port))
                self._requests[name] = [_request(host, port, self._control.model, *b) for b in self._prepared]

    async def _follow_control(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            changed_ns = self._args.control.stat().st_mtime_ns
            if changed_ns == self._changed_ns:
                continue
            old, self._control, self._changed_ns = self._control, Control.read(self._args.control), changed_ns
            if self._control.schedule_id != old.schedule_id:
                self._schedule_started = time.monotonic()
            self._use_endpoints()

    async def _write_seconds(self) -> None:
        offset = time.time() - time.monotonic()
        with self._args.out.open("a") as out:
            while True:
                await asyncio.sleep(1.0)
                second, self._second = self._second, Second()
                now = time.monotonic()
                rate = rate_at(self._control.schedule, now - self._schedule_started)
                out.write(second.line(now + offset, len(self._under_way), rate) + "\n")
                out.flush()


def _bodies(seed: int, count: int) -> Iterator[tuple[bytes, int]]:
    rows, _ = models.sample(count, seed=1000 + seed)
    for number in range(count):
        yield encode_request(models.INPUT, rows[number : number + 1])


def _request(host: str, port: str, model: str, body: bytes, json_length: int) -> bytes:
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/octet-stream\r\n"
        f"{HEADER_LENGTH}: {json_length}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.load", description="Open-loop load with Poisson arrivals.")
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bodies", type=int, default=256, help="different requests, prepared beforehand")
    parser.add_argument("--timeout-s", type=float, default=60.0)
    parser.add_argument("--max-requests", type=int, default=2_000_000)
    parser.add_argument("--max-s", type=float, default=7200.0)
    parser.add_argument("--max-under-way", type=int, default=8000)
    return parser.parse_args(argv)


async def run(args: argparse.Namespace) -> int:
    generator = Generator(args)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, generator.stop.set)
    await generator.run()
    return 0


def main() -> int:
    args = parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    try:
        import uvloop
    except ImportError:
        return asyncio.run(run(args))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
