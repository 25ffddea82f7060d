"""`python -m demo.server`: one server process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
from pathlib import Path

from aiohttp import web

from demo.server.app import MAX_BATCH, Api
from demo.server.batching import Batcher, Limits
from demo.server.engines import EmulatedEngine, Emulation, OnnxEngine
from demo.server.faults import Faults
from demo.server.metrics import Metrics
from demo.server.protocol import BadRequest
from demo.server.repository import Repository
from demo.server.sample import Reservoir

DRAIN_S = 5.0


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.server", description="The demo's inference server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model-repository", type=Path, help="folder of <model>/<version>/model.onnx")
    parser.add_argument("--model", default="ranker")
    parser.add_argument("--version", help="version to serve first (default: the newest)")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--batch-timeout-ms", type=float, default=0.0)
    parser.add_argument("--max-queue", type=int, default=5000)
    parser.add_argument("--cpu", type=int, help="run on this core only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-limit-mb", type=float, help="what it may use, as its metrics say; others enforce it")
    parser.add_argument("--sample", type=int, default=1024, help="rows kept for calibration")
    emulated = parser.add_argument_group("emulated accelerator: waits instead of computing")
    emulated.add_argument("--emulated", action="store_true")
    emulated.add_argument("--alpha-ms", type=float, default=20.0)
    emulated.add_argument("--beta-ms", type=float, default=1.0)
    emulated.add_argument("--jitter", type=float, default=0.0, help="sigma of the log-normal factor")
    emulated.add_argument("--int8-factor", type=float, default=4.0)
    args = parser.parse_args(argv)
    if not args.emulated and args.model_repository is None:
        parser.error("--model-repository is needed unless --emulated is given")
    if not 1 <= args.batch_size <= MAX_BATCH:
        parser.error(f"--batch-size must lie in 1 .. {MAX_BATCH}")
    return args


async def serve(args: argparse.Namespace) -> int:
    metrics = Metrics(args.model)
    engine = (
        EmulatedEngine(Emulation(args.alpha_ms, args.beta_ms, args.jitter, args.int8_factor), args.seed)
        if args.emulated
        else OnnxEngine()
    )
    repository = Repository(engine, args.model_repository, args.model)
    try:
        version = await repository.load(args.version)
    except BadRequest as bad:
        print(f"demo server: {bad}", file=sys.stderr)
        return 2
    limits = Limits(args.batch_size, args.batch_timeout_ms)
    batcher = Batcher(
        repository, metrics, limits, max_queue=args.max_queue,
        reservoir=Reservoir(args.sample, args.seed), faults=Faults(random=random.Random(args.seed)))  # fmt: skip
    metrics.serve(version.name, version.precision)
    metrics.batch_limit.set(limits.batch_size)
    metrics.batch_timeout.set(limits.batch_timeout_ms / 1000)
    metrics.emulated.set(int(args.emulated))
    if args.memory_limit_mb is not None:
        metrics.memory_limit.set(args.memory_limit_mb * 2**20)
    api = Api(repository, batcher, metrics, emulated=args.emulated)
    runner = web.AppRunner(
        api.application(), access_log=None, shutdown_timeout=1.0, keepalive_timeout=300.0,
        handler_cancellation=True,  # nothing is computed for who hung up
    )  # fmt: skip
    await runner.setup()
    try:
        await web.TCPSite(runner, args.host, args.port, backlog=4096).start()
    except OSError as failure:
        print(f"demo server: cannot listen on {args.host}:{args.port}: {failure.strerror}", file=sys.stderr)
        await runner.cleanup()
        return 2
    worker = asyncio.create_task(batcher.run())
    leaking = asyncio.create_task(batcher.faults.leak())
    await _until_told_to_stop(worker)
    api.stopping = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while not batcher.idle and not worker.done():
                await asyncio.sleep(0.01)
    worker.cancel()
    leaking.cancel()
    await runner.cleanup()
    engine.close()
    return 0


async def _until_told_to_stop(worker: asyncio.Task[None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker.add_done_callback(lambda _: stop.set())
    await stop.wait()


def main() -> int:
    args = parse_args()
    if args.cpu is not None:
        try:
            os.sched_setaffinity(0, {args.cpu})
        except OSError:
            print(f"demo server: there is no core {args.cpu}", file=sys.stderr)
            return 2
    try:
        import uvloop
    except ImportError:
        return asyncio.run(serve(args))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(args))


if __name__ == "__main__":
    sys.exit(main())
