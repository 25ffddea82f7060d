"""Open-loop load of one inference per request, latency counted from the INTENDED start.

Run as a process of its own: `python -m demo.load --control FILE --out FILE`; `demo.open_loop` says what the files hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from demo import histogram, models
from demo.open_loop import OpenLoop
from demo.server.protocol import HEADER_LENGTH, encode_request
from slotune.load.wire import ConnectionLost, Pool


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


class Generator(OpenLoop[Second]):
    """max_under_way bounds what the client itself holds open."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args.control, args.out, args.seed, max_requests=args.max_requests, max_s=args.max_s)
        self._timeout_s, self._max_under_way = args.timeout_s, args.max_under_way
        self._pools: dict[str, Pool] = {}
        self._prepared: list[tuple[bytes, int]] = list(_bodies(args.seed, args.bodies))
        self._requests: dict[str, list[bytes]] = {}
        self._controlled()

    def _begin(self) -> Second:
        return Second()

    def _send(self, due: float) -> None:
        if len(self._under_way) >= self._max_under_way:
            self._second.dropped += 1
            return
        super()._send(due)

    async def _one(self, due: float) -> None:
        name = self._choose()
        prepared = self._requests[name][self._random.randrange(len(self._prepared))]
        try:
            status = await self._pools[name].request(prepared, self._timeout_s)
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

    def _controlled(self) -> None:
        for name in set(self._pools) - set(self._control.endpoints):
            self._pools.pop(name).close()
        for name in self._control.endpoints:
            if name not in self._pools:
                host, port = name.rsplit(":", 1)
                self._pools[name] = Pool(host, int(port))
                self._requests[name] = [_request(host, port, self._control.model, *b) for b in self._prepared]


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
    await Generator(args).run()
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
