"""Open-loop load of streamed completions: Poisson arrivals, lengths from a distribution, times from the INTENDED start.

Run as a process of its own: `python -m demo.language.load --control FILE --out FILE --prompt 116 --output 72`. The
files are those of `demo.open_loop`; the latencies of its lines (`bins`) are times to the first token, or between tokens
with `--watch itl`. Both P95s and `tokens` come beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from demo import histogram
from demo.open_loop import OpenLoop

VOCABULARY = (10, 400)
LONGEST = 8.0
"""No length is beyond this many times the mean."""


@dataclass
class Second:
    """What happened in one second: requests by when they ended, tokens by when they came. watch: "ttft" or "itl"."""

    watch: str
    sent: int = 0
    ok: int = 0
    errors: int = 0
    tokens: int = 0
    first_ms: list[float] = field(default_factory=list)
    gap_ms: list[float] = field(default_factory=list)

    def line(self, t: float, under_way: int, rate: float) -> str:
        first, gaps = histogram.count(self.first_ms), histogram.count(self.gap_ms)
        watched = gaps if self.watch == "itl" else first
        return json.dumps({
            "t": round(t, 3), "rate": rate, "sent": self.sent, "ok": self.ok, "errors": self.errors,
            "under_way": under_way, "tokens": self.tokens, "ttft_p95_ms": histogram.quantile_ms(first, 0.95),
            "itl_p95_ms": histogram.quantile_ms(gaps, 0.95), "bins": watched})  # fmt: skip


def length(rng: random.Random, mean: float, spread: float) -> int:
    """Lognormal with this mean; spread: the standard deviation of its logarithm."""
    drawn = mean * math.exp(rng.gauss(-0.5 * spread**2, spread))
    return max(1, round(min(drawn, LONGEST * mean)))


class Generator(OpenLoop[Second]):
    """Sends, and reads what is streamed."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        super().__init__(args.control, args.out, args.seed)
        self._busy: dict[str, int] = {}

    def _begin(self) -> Second:
        return Second(watch=self._args.watch)

    async def _one(self, due: float) -> None:
        name = min(self._control.endpoints, key=lambda one: (self._busy.get(one, 0), self._random.random()))
        self._busy[name] = self._busy.get(name, 0) + 1
        prompt = [self._random.randrange(*VOCABULARY) for _ in range(length(self._random, *self._args.prompt))]
        wish = {"model": self._control.model, "prompt": prompt, "max_tokens": length(self._random, *self._args.output),
                "ignore_eos": True, "temperature": 1.0, "stream": True}  # fmt: skip
        try:
            async with asyncio.timeout(self._args.timeout_s):
                ended = await self._stream(name, json.dumps(wish).encode(), due)
        except (OSError, TimeoutError, ValueError):
            ended = False
        finally:
            self._busy[name] -= 1
        if ended:
            self._second.ok += 1
        else:
            self._second.errors += 1

    async def _stream(self, name: str, body: bytes, due: float) -> bool:
        """Whether the whole answer came."""
        host, port = name.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        try:
            head = (
                f"POST /v1/completions HTTP/1.1\r\nHost: {name}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            if b" 200 " not in await reader.readline():
                return False
            latest = 0.0
            while line := await reader.readline():
                if line.startswith(b"data: [DONE]"):
                    return True
                if line.startswith(b'data: {"error"'):
                    return False
                if line.startswith(b"data:"):
                    now = time.monotonic()
                    self._second.tokens += 1
                    (self._second.gap_ms if latest else self._second.first_ms).append((now - (latest or due)) * 1e3)
                    latest = now
            return False
        finally:
            writer.close()


def _distribution(text: str) -> tuple[float, float]:
    """"116" or "116,0.5": the mean and the spread of the logarithm."""
    mean, _, spread = text.partition(",")
    return float(mean), float(spread or 0.0)


async def run(args: argparse.Namespace) -> int:
    await Generator(args).run()
    return 0


def main() -> int:
    said = "Streamed completions, open loop."
    parser = argparse.ArgumentParser(prog="python -m demo.language.load", description=said)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", type=_distribution, default=(116.0, 0.5), help="tokens: mean[,spread]")
    parser.add_argument("--output", type=_distribution, default=(72.0, 0.5), help="tokens: mean[,spread]")
    parser.add_argument("--timeout-s", type=float, default=120.0)
    parser.add_argument("--watch", choices=("ttft", "itl"), default="ttft", help="whose latencies the lines hold")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
