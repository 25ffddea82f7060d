"""A real vLLM on this machine: started, asked for its metrics, put under open-loop load. Loopback only."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.llm.source import quantile
from detection.model import FloatArray, MetricWindow, Span

_LINE = re.compile(r"^(vllm:\w+)(?:\{(.*)\})? ([-+0-9.eE]+|NaN|\+Inf)$")
_HOST = Path(__file__).with_name("vllm_host.py")


Scrapes = list[tuple[float, dict[str, float]]]
"""(epoch seconds, samples by name) of one server, oldest first."""


@dataclass(frozen=True)
class Answer:
    """One request as its client saw it, from when it was meant to begin: seconds; gaps between tokens."""

    at_s: float
    ttft_s: float
    e2e_s: float
    gaps_s: tuple[float, ...]


@dataclass(frozen=True)
class Load:
    """Poisson arrivals per second; lengths uniform between two bounds, in tokens."""

    rate: float
    prompt: tuple[int, int]
    output: tuple[int, int]


class Host:
    """vLLM imported once; servers are forked from it."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "host.log").open("w") as log:
            self.process = subprocess.Popen(
                [str(python), str(_HOST), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            )
        if self._answer() != "ready":
            raise RuntimeError(f"vLLM cannot be imported; {folder / 'host.log'} says why")

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _tell(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def start(self, sequences: int, tokens: int, kv_bytes: int) -> Server:
        """A server with these limits, ready to answer."""
        port = _free_port()
        args = (
            f"--model {self.folder} --served-model-name tiny --load-format dummy --dtype float32 --max-model-len 2048 "
            f"--enforce-eager --distributed-executor-backend uni --max-num-seqs {sequences} "
            f"--max-num-batched-tokens {tokens} --kv-cache-memory-bytes {kv_bytes}"
        )
        group = int(self._tell(f"{port} {args}"))
        server = Server(port, group, self)
        server.wait(120.0)
        return server

    def stop(self, server: Server) -> None:
        self._tell(f"stop {server.group}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Server:
    port: int
    group: int
    host: Host

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        else:
            raise RuntimeError(f"vLLM did not start within {limit_s:.0f} s; {self.host.folder / 'server.log'} says why")
        # An engine can be healthy and die with its first request.
        asyncio.run(drive(self, [(0.0, 8, 4)], []))

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for line in text.splitlines():
            match = _LINE.match(line)
            if match is None:
                continue
            name, labels, value = match.groups()
            edge = re.search(r'le="([^"]+)"', labels or "")
            key = f"{name}@{edge.group(1)}" if edge else name
            found[key] = found.get(key, 0.0) + float(value)
            blocks = re.search(r'num_gpu_blocks="(\d+)"', labels or "")
            size = re.search(r'block_size="(\d+)"', labels or "")
            if name == "vllm:cache_config_info" and blocks and size:
                found["kv_tokens"], found["block"] = float(blocks.group(1)) * float(size.group(1)), float(size.group(1))
        return found


def plan(load: Load, seconds: float, rng: np.random.Generator) -> list[tuple[float, int, int]]:
    """Open-loop arrivals: (when, prompt tokens, answer tokens).

    A Poisson process of which it is known how many came: exactly as many as the rate says, each at a time of its own,
    and lengths one from each of as many equal steps. Of a hundred requests their number alone scatters by a tenth,
    which is the luck of a look and no error of what was predicted for that rate.
    """
    count = max(1, round(load.rate * seconds))
    at_s = np.sort(rng.uniform(0.0, seconds, count))
    prompts, outputs = (_lengths(bounds, count, rng) for bounds in (load.prompt, load.output))
    return list(zip(at_s.tolist(), prompts, outputs, strict=True))


def _lengths(bounds: tuple[int, int], count: int, rng: np.random.Generator) -> list[int]:
    low, high = bounds
    return [int(low + (high - low) * (k + 0.5) / count) for k in rng.permutation(count)]


async def drive(
    server: Server, arrivals: list[tuple[float, int, int]], scrapes: Scrapes,
    every_s: float = 1.0,
) -> list[Answer]:  # fmt: skip
    """Send every request at its time, whatever the others do; scrape meanwhile; wait for the last answer."""
    began, rng = time.monotonic(), np.random.default_rng(len(arrivals))
    answers: list[Answer] = []

    async def one(session: aiohttp.ClientSession, at_s: float, prompt: int, output: int) -> None:
        body = {"model": "tiny", "prompt": rng.integers(300, 2000, prompt).tolist(), "max_tokens": output,
                "ignore_eos": True, "stream": True, "temperature": 1.0}  # fmt: skip
        times: list[float] = []
        async with session.post(f"{server.url}/v1/completions", json=body) as reply:
            async for line in reply.content:
                if line.startswith(b"data: {"):
                    times.append(time.monotonic() - began)
        if times:
            gaps = tuple(float(gap) for gap in np.diff(times))
            answers.append(Answer(at_s, times[0] - at_s, times[-1] - at_s, gaps))

    async def scrape(session: aiohttp.ClientSession) -> None:
        while True:
            scrapes.append((time.time(), await asyncio.to_thread(server.metrics)))
            await asyncio.sleep(every_s)

    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        watcher = asyncio.create_task(scrape(session))
        tasks = []
        for at_s, prompt, output in arrivals:
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            tasks.append(asyncio.create_task(one(session, at_s, prompt, output)))
        await asyncio.gather(*tasks, return_exceptions=True)
        watcher.cancel()
    return sorted(answers, key=lambda answer: answer.at_s)


def exported_p95_ms(scrapes: Scrapes, histogram: str, since_s: float, until_s: float) -> float:
    """What Prometheus reads for the P95 of a histogram between two times, in s after the first scrape."""
    times = np.array([at_s for at_s, _ in scrapes]) - scrapes[0][0]
    name = f"vllm:{histogram}_bucket@"
    edges = sorted({float(key.removeprefix(name)) for _, found in scrapes for key in found if key.startswith(name)})
    text = {float(key.removeprefix(name)): key for key in scrapes[-1][1] if key.startswith(name)}

    def rise(key: str) -> float:
        values = np.array([found.get(key, 0.0) for _, found in scrapes])
        return float(np.interp(until_s, times, values) - np.interp(since_s, times, values))

    counts = np.diff([rise(text[edge]) for edge in edges], prepend=0.0)
    return 1e3 * float(quantile(counts[None], np.array(edges[:-1]), 0.95)[0])


def window_of(scrapes: Scrapes, rate_window_s: float, step_s: float) -> MetricWindow:
    """The signals that the preset's queries would give, from raw scrapes of one server under one load; begins when a
    whole rate window of it is there."""
    times = np.array([at_s for at_s, _ in scrapes])
    first_s = float(np.ceil((times[0] + rate_window_s) / step_s) * step_s)
    span = Span(first_s, float(np.floor(times[-1] / step_s) * step_s), step_s)
    grid = span.times()
    names = sorted({name for _, found in scrapes for name in found})
    raw = {name: np.array([found.get(name, 0.0) for _, found in scrapes]) for name in names}

    def gauge(name: str) -> FloatArray:
        return np.asarray(np.interp(grid, times, raw.get(name, np.zeros(times.size))), dtype=np.float64)

    def rise(name: str) -> FloatArray:
        values = raw.get(name, np.zeros(times.size))
        return np.asarray(np.interp(grid, times, values) - np.interp(grid - rate_window_s, times, values))

    def mean(histogram: str) -> FloatArray:
        return rise(f"vllm:{histogram}_sum") / rise(f"vllm:{histogram}_count")

    def tail(histogram: str) -> FloatArray:
        edges = sorted(float(n.split("@")[1]) for n in names if n.startswith(f"vllm:{histogram}_bucket@"))
        text = {float(n.split("@")[1]): n for n in names if n.startswith(f"vllm:{histogram}_bucket@")}
        if not edges:
            return np.full(grid.size, np.nan)
        below = np.array([rise(text[edge]) for edge in edges]).T
        counts = np.diff(below, axis=1, prepend=0.0)
        good = np.isfinite(counts).all(axis=1)
        answer = np.full(grid.size, np.nan)
        answer[good] = quantile(counts[good], np.array(edges[:-1]), 0.95)
        return answer

    with np.errstate(divide="ignore", invalid="ignore"):
        steps = rise("vllm:iteration_tokens_total_count")
        values = {
            "qps": rise("vllm:request_success_total") / rate_window_s,
            "arrivals_per_s": (
                rise("vllm:time_to_first_token_seconds_count") + gauge("vllm:num_requests_waiting")
                - np.interp(grid - rate_window_s, times, raw["vllm:num_requests_waiting"])
            ) / rate_window_s,
            "ttft_ms": 1e3 * mean("time_to_first_token_seconds"),
            "itl_ms": 1e3 * mean("inter_token_latency_seconds"),
            "e2e_ms": 1e3 * mean("e2e_request_latency_seconds"),
            "queue_ms": 1e3 * mean("request_queue_time_seconds"),
            "prefill_ms": 1e3 * mean("request_prefill_time_seconds"),
            "decode_ms": 1e3 * mean("request_decode_time_seconds"),
            "prompt_tokens_per_s": rise("vllm:prompt_tokens_total") / rate_window_s,
            "generation_tokens_per_s": rise("vllm:generation_tokens_total") / rate_window_s,
            "steps_per_s": steps / rate_window_s,
            "step_tokens": rise("vllm:iteration_tokens_total_sum") / steps,
            "prompt_tokens": mean("request_prompt_tokens"),
            "prompt_tokens_p95": tail("request_prompt_tokens"),
            "output_tokens": mean("request_generation_tokens"),
            "output_tokens_p95": tail("request_generation_tokens"),
            "running": gauge("vllm:num_requests_running"),
            "queue_depth": gauge("vllm:num_requests_waiting"),
            "kv_usage": gauge("vllm:kv_cache_usage_perc"),
            "replicas": np.ones(grid.size),
        }  # fmt: skip
    return MetricWindow("vllm", span, values, "histogram")
