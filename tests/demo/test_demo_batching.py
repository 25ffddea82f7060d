"""The batcher on a fake engine: what is in a batch, and when it starts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from demo.server.batching import Batcher, Limits, QueueFull
from demo.server.engines import DEFAULT_INPUT, DEFAULT_OUTPUT
from demo.server.faults import Faults
from demo.server.metrics import Metrics
from demo.server.protocol import BadRequest
from demo.server.repository import Busy, Repository
from demo.server.sample import Reservoir


class FakeEngine:
    """Answers rows * 2 after `hold` was released; remembers batch sizes."""

    emulated = False
    input = DEFAULT_INPUT
    output = DEFAULT_OUTPUT

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.broken = False

    def load(self, path: Path | None, precision: str) -> FakeEngine:
        return self

    async def infer(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        self.batches.append(len(rows))
        await self.hold.wait()
        if self.broken:
            raise ValueError("no")
        return rows * 2, 0.01


class Bench:
    def __init__(self, limits: Limits, max_queue: int = 100) -> None:
        self.engine = FakeEngine()
        self.repository = Repository(self.engine, None, "ranker")
        self.metrics = Metrics("ranker")
        self.batcher = Batcher(
            self.repository, self.metrics, limits, max_queue=max_queue, reservoir=Reservoir(16, 0), faults=Faults()
        )

    async def __aenter__(self) -> Bench:
        await self.repository.load("1")
        self.task = asyncio.create_task(self.batcher.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()

    def put(self, value: float, rows: int = 1) -> asyncio.Future[object]:
        return self.batcher.submit(np.full((rows, 64), value, np.float32))

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"model": "ranker", **labels}) or 0.0


def test_what_waits_while_a_batch_computes_goes_together():
    async def story() -> None:
        async with Bench(Limits(4, 0.0)) as bench:
            bench.engine.hold.clear()
            first = bench.put(1)
            await asyncio.sleep(0.01)
            rest = [bench.put(i) for i in range(2, 8)]
            bench.engine.hold.set()
            answers = await asyncio.gather(first, *rest)
            assert bench.engine.batches == [1, 4, 2]
            assert [float(out[0, 0]) for out, _ in answers] == [2.0 * i for i in range(1, 8)]
            assert bench.value("inference_batch_rows_sum") == 7
            sized = {"version": "1", "precision": "fp32", "batch_size": "4"}
            assert bench.value("inference_batches_total", **sized) == 1

    asyncio.run(story())


def test_timeout_fills_the_batch_but_does_not_outlast_a_full_one():
    async def story() -> None:
        async with Bench(Limits(3, 5000.0)) as bench:
            async with asyncio.timeout(1.0):  # far less than the batch timeout
                await asyncio.gather(*[bench.put(i) for i in range(3)])
            assert bench.engine.batches == [3]

    asyncio.run(story())


def test_timeout_serves_a_part_of_a_batch():
    async def story() -> None:
        async with Bench(Limits(8, 30.0)) as bench:
            loop = asyncio.get_running_loop()
            started = loop.time()
            await asyncio.gather(bench.put(1), bench.put(2))
            assert bench.engine.batches == [2]
            assert 0.025 <= loop.time() - started < 0.5

    asyncio.run(story())


def test_new_limits_wake_a_waiting_batch():
    async def story() -> None:
        async with Bench(Limits(8, 60_000.0)) as bench:
            waiting = bench.put(1)
            await asyncio.sleep(0.01)
            bench.batcher.limits.batch_size = 1
            bench.batcher.wake()
            async with asyncio.timeout(1.0):
                await waiting

    asyncio.run(story())


def test_requests_of_many_rows_are_not_split_and_never_starve():
    async def story() -> None:
        async with Bench(Limits(4, 0.0)) as bench:
            bench.engine.hold.clear()
            answers = [bench.put(0), bench.put(1, rows=3), bench.put(2, rows=9), bench.put(3)]
            await asyncio.sleep(0.01)
            bench.engine.hold.set()
            shapes = [out.shape[0] for out, _ in await asyncio.gather(*answers)]
            assert shapes == [1, 3, 9, 1]
            assert bench.engine.batches == [4, 9, 1]

    asyncio.run(story())


def test_full_queue_is_refused_and_abandoned_requests_are_not_computed():
    async def story() -> None:
        async with Bench(Limits(1, 0.0), max_queue=2) as bench:
            bench.engine.hold.clear()
            first = bench.put(0)
            await asyncio.sleep(0.01)
            gone, stays = bench.put(1), bench.put(2)
            with pytest.raises(QueueFull):
                bench.put(3)
            gone.cancel()
            bench.engine.hold.set()
            await asyncio.gather(first, stays)
            assert bench.engine.batches == [1, 1]

    asyncio.run(story())


def test_a_batch_that_fails_fails_its_requests_alone():
    async def story() -> None:
        async with Bench(Limits(1, 0.0)) as bench:
            bench.engine.broken = True
            with pytest.raises(RuntimeError, match="no"):
                await bench.put(1)
            bench.engine.broken = False
            out, version = await bench.put(2)
            assert (float(out[0, 0]), version.name) == (4.0, "1")

    asyncio.run(story())


def test_versions_load_beside_each_other(tmp_path: Path):
    for name, manifest in (("1", '{"precision": "fp32"}'), ("2", '{"precision": "int8"}'), ("3", "garbage")):
        (tmp_path / "ranker" / name).mkdir(parents=True)
        (tmp_path / "ranker" / name / "manifest.json").write_text(manifest)

    async def story() -> None:
        repository = Repository(FakeEngine(), tmp_path, "ranker")
        with pytest.raises(BadRequest, match="manifest"):
            await repository.load()
        assert repository.active is None
        await repository.load("1")
        assert (await repository.load("2")).precision == "int8"
        with pytest.raises(BadRequest, match="no version '9'"):
            await repository.load("9")
        assert repository.active.name == "2"
        with pytest.raises(Busy, match="serves"):
            await repository.unload("2")
        await repository.unload("1")
        assert list(repository.loaded()) == ["2"]

    asyncio.run(story())


def test_reservoir_is_bounded_and_uniform():
    kept = np.zeros(200)
    for seed in range(300):
        reservoir = Reservoir(20, seed)
        reservoir.add(np.arange(200, dtype=np.float32)[:, None])
        kept[[int(row[0]) for row in reservoir._rows]] += 1
    assert len(reservoir._rows) == 20
    assert kept.sum() == 300 * 20
    # each row is kept with probability 0.1: 30 +- 5.2 of 300
    assert abs(kept[:100].mean() - kept[100:].mean()) < 3
    assert kept.min() > 8
