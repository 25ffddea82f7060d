"""An EMULATED engine of a language model: it waits instead of computing, with a real schedule and vLLM's metric names.

    python -m demo.language.server --port 9000 --max-num-seqs 32 --kv-tokens 16384

An iteration takes step_ms + seq_ms for each sequence + token_ms for each token of a prompt. POST /v1/completions takes
token ids and max_tokens, and streams. SIGTERM ends it after the requests that are under way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from demo.language.metrics import Metrics
from demo.language.schedule import Batch, Schedule, Sequence

DRAIN_S = 60.0


@dataclass(eq=False)
class Ask:
    """One request under way: when it came, was admitted, and got its first and latest token (monotonic seconds)."""

    came_s: float
    tokens: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)
    admitted_s: float = 0.0
    first_s: float = 0.0
    latest_s: float = 0.0


class Engine:
    """Iterates while anything waits or runs. `tokens` of a request gets True with its last token."""

    def __init__(self, schedule: Schedule, costs_s: tuple[float, float, float], metrics: Metrics) -> None:
        self.schedule, self._costs_s, self.metrics = schedule, costs_s, metrics
        self._work = asyncio.Event()

    def ask(self, prompt: int, output: int) -> Sequence:
        """A request in the queue. ValueError: it never fits."""
        sequence = Sequence(prompt, output, Ask(time.monotonic()))
        if prompt < 1 or output < 1 or not self.schedule.fits(sequence):
            raise ValueError(f"{prompt} prompt tokens and {output} of an answer do not fit into the KV cache")
        self.schedule.add(sequence)
        self._work.set()
        return sequence

    def give_up(self, sequence: Sequence) -> None:
        self.schedule.drop(sequence)
        self.metrics.finished("abort")

    async def run(self) -> None:
        end_s = time.monotonic()
        while True:
            if not (self.schedule.waiting or self.schedule.running):
                self._work.clear()
                await self._work.wait()
                end_s = time.monotonic()
            batch = self.schedule.next()
            self._begun(batch, time.monotonic())
            step_s, seq_s, token_s = self._costs_s
            # from the end that was due, so that what a timer is late by does not add up
            end_s += step_s + seq_s * len(batch.tokens) + token_s * batch.prefill
            await asyncio.sleep(max(0.0, end_s - time.monotonic()))
            end_s = max(end_s, time.monotonic() - 0.05)
            self._over(batch, time.monotonic())

    def _begun(self, batch: Batch, now_s: float) -> None:
        self.metrics.observe("iteration_tokens_total", batch.total)
        self.metrics.add("num_preemptions_total", len(batch.preempted))
        for sequence in batch.admitted:
            if not sequence.owner.admitted_s:
                sequence.owner.admitted_s = now_s
                self.metrics.add("prefix_cache_queries_total", sequence.prompt)

    def _over(self, batch: Batch, now_s: float) -> None:
        for sequence in self.schedule.finish(batch):
            ask, done = sequence.owner, sequence.generated >= sequence.output
            self.metrics.add("generation_tokens_total")
            if sequence.generated == 1:
                ask.first_s = now_s
                self.metrics.observe("time_to_first_token_seconds", now_s - ask.came_s)
                self.metrics.add("prompt_tokens_total", sequence.prompt)
            else:
                self.metrics.observe("inter_token_latency_seconds", now_s - ask.latest_s)
            ask.latest_s = now_s
            if done:
                self._ended(sequence, ask, now_s)
            ask.tokens.put_nowait(done)

    def _ended(self, sequence: Sequence, ask: Ask, now_s: float) -> None:
        observe = self.metrics.observe
        observe("e2e_request_latency_seconds", now_s - ask.came_s)
        observe("request_queue_time_seconds", ask.admitted_s - ask.came_s)
        observe("request_prefill_time_seconds", ask.first_s - ask.admitted_s)
        observe("request_decode_time_seconds", now_s - ask.first_s)
        observe("request_prompt_tokens", sequence.prompt)
        observe("request_generation_tokens", sequence.output)
        self.metrics.finished("length")


class Server:
    """HTTP/1.1 in front of the engine, one request a connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.under_way = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, path = head.split(" ", 2)[:2]
            length = next(
                (int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0
            )
            body = await reader.readexactly(length) if length else b""
            await self._answer(method, path, body, writer)
        writer.close()

    async def _answer(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        schedule = self._engine.schedule
        if (method, path) == ("POST", "/v1/completions"):
            await self._complete(body, writer)
        elif path == "/metrics":
            waiting, running = len(schedule.waiting), len(schedule.running)
            text = self._engine.metrics.text(running=running, waiting=waiting, kv_usage=schedule.kv_usage)
            _whole(writer, 200, text, "text/plain; version=0.0.4")
        elif path == "/health":
            _whole(writer, 200, "")
        else:
            _whole(writer, 404, json.dumps({"error": f"there is no {path}"}))
        await writer.drain()

    async def _complete(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            wish: dict[str, Any] = json.loads(body)
            sequence = self._engine.ask(len(wish["prompt"]), int(wish.get("max_tokens", 16)))
        except (ValueError, KeyError, TypeError) as error:
            self._engine.metrics.http("4xx")
            _whole(writer, 400, json.dumps({"error": str(error)}))
            return
        self.under_way += 1
        try:
            await self._stream(sequence, writer)
        except ConnectionError:
            self._engine.give_up(sequence)
        finally:
            self.under_way -= 1
            self._engine.metrics.http("2xx")

    async def _stream(self, sequence: Sequence, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        done = False
        while not done:
            done = await sequence.owner.tokens.get()
            writer.write(b'data: {"choices": [{"text": " w"}]}\n\n')
            await writer.drain()
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()


def _whole(writer: asyncio.StreamWriter, code: int, text: str, kind: str = "application/json") -> None:
    body = text.encode()
    writer.write(
        f"HTTP/1.1 {code} {'OK' if code == 200 else 'Error'}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n".encode() + body
    )


async def run(args: argparse.Namespace) -> int:
    engine = Engine(
        Schedule(args.max_num_seqs, args.max_num_batched_tokens, args.kv_tokens, args.block_size),
        (args.step_ms / 1e3, args.seq_ms / 1e3, args.token_ms / 1e3),
        Metrics(args.served_model_name),
    )
    server, stop = Server(engine), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", args.port, limit=1 << 20)
    work = asyncio.create_task(engine.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        until_s = time.monotonic() + DRAIN_S
        while server.under_way and time.monotonic() < until_s:
            await asyncio.sleep(0.1)
    listener.close()
    if work.done():
        work.result()
    work.cancel()
    return 0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.language.server", description="An emulated language model.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="chat")
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--max-num-batched-tokens", type=int, default=2048)
    parser.add_argument("--max-model-len", type=int, default=4096, help="told, not used: a request must fit the cache")
    parser.add_argument("--kv-tokens", type=int, default=65_536)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--num-gpu-blocks-override", type=int, default=None, help="instead of --kv-tokens")
    parser.add_argument("--step-ms", type=float, default=20.0)
    parser.add_argument("--seq-ms", type=float, default=0.4)
    parser.add_argument("--token-ms", type=float, default=0.05)
    args = parser.parse_args(argv)
    if args.num_gpu_blocks_override is not None:
        args.kv_tokens = args.num_gpu_blocks_override * args.block_size
    return args


def main() -> int:
    return asyncio.run(run(parse_args()))


if __name__ == "__main__":
    sys.exit(main())
