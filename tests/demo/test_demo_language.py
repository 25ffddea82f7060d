"""The emulated engine of a language model: its schedule by worked examples, its server and load over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from demo import web
from demo.language.load import length
from demo.language.schedule import Schedule, Sequence
from demo.open_loop import Control
from demo.processes import LOOPBACK, Child, free_port, wait_until


def run(schedule: Schedule, sequences: list[Sequence], iterations: int = 1000) -> list[int]:
    """Everything at once; how many tokens came in each iteration."""
    for sequence in sequences:
        schedule.add(sequence)
    came = []
    while (schedule.waiting or schedule.running) and iterations > len(came):
        came.append(len(schedule.finish(schedule.next())))
    return came


def test_a_prompt_is_computed_in_chunks_beside_the_tokens_of_the_others():
    schedule = Schedule(max_num_seqs=2, max_num_batched_tokens=10, kv_tokens=160, block_size=1)
    short, long = Sequence(4, 6), Sequence(20, 2)
    assert run(schedule, [short, long]) == [1, 1, 2, 2, 1, 1]
    assert (short.generated, long.generated, schedule.free) == (6, 2, 160)


def test_no_more_run_than_the_limit():
    schedule = Schedule(max_num_seqs=2, max_num_batched_tokens=100, kv_tokens=1600)
    for _ in range(5):
        schedule.add(Sequence(3, 4))
    schedule.finish(schedule.next())
    assert (len(schedule.running), len(schedule.waiting)) == (2, 3)


def test_who_finds_no_room_gives_it_back_and_is_computed_again():
    schedule = Schedule(max_num_seqs=4, max_num_batched_tokens=100, kv_tokens=12, block_size=1)
    old, young = Sequence(4, 6), Sequence(4, 6)
    run(schedule, [old, young])
    assert (old.preempted, young.preempted) == (0, 1)
    assert (old.generated, young.generated, schedule.free) == (6, 6, 12)


def test_a_new_prompt_waits_for_room_and_throws_nobody_out():
    schedule = Schedule(max_num_seqs=4, max_num_batched_tokens=100, kv_tokens=12, block_size=1)
    old, new = Sequence(8, 2), Sequence(8, 2)
    schedule.add(old)
    schedule.add(new)
    assert [s for s, _ in schedule.next().tokens] == [old]
    assert old.preempted == new.preempted == 0


def test_what_never_fits_is_told():
    schedule = Schedule(4, 100, kv_tokens=32, block_size=16)
    assert schedule.fits(Sequence(16, 16)) and not schedule.fits(Sequence(16, 17))
    with pytest.raises(ValueError, match="at least 1"):
        Schedule(0, 1, 1)


def test_blocks_are_never_lost_whatever_comes():
    rng = random.Random(3)
    schedule = Schedule(8, 64, kv_tokens=400, block_size=16)
    for _ in range(400):
        if rng.random() < 0.3:
            schedule.add(Sequence(rng.randint(1, 150), rng.randint(1, 150)))
        if rng.random() < 0.05 and schedule.running:
            schedule.drop(rng.choice(schedule.running))
        schedule.finish(schedule.next())
        held = sum(s.blocks for s in schedule.running)
        assert schedule.free + held == schedule.blocks and schedule.free >= 0
        assert len(schedule.running) <= 8


def test_lengths_have_their_mean():
    rng = random.Random(1)
    drawn = [length(rng, 100, 0.5) for _ in range(4000)]
    assert 95 < sum(drawn) / len(drawn) < 105 and min(drawn) >= 1 and max(drawn) <= 800
    assert {length(rng, 7, 0.0) for _ in range(5)} == {7}


@pytest.fixture
def engine(tmp_path: Path):
    port = free_port()
    child = Child("engine", [sys.executable, "-m", "demo.language.server", "--port", str(port), "--max-num-seqs", "2",
                             "--kv-tokens", "640", "--step-ms", "2", "--seq-ms", "0", "--token-ms", "0"],
                  tmp_path / "engine.log")  # fmt: skip
    try:
        wait_until(lambda: web.answers(f"http://{LOOPBACK}:{port}/health"), 20, "the engine answering")
        yield f"{LOOPBACK}:{port}", child
    finally:
        child.stop()


async def ask(address: str, prompt: int, output: int) -> list[bytes]:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"prompt": [1] * prompt, "max_tokens": output, "stream": True}).encode()
    writer.write(f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    lines = (await reader.read()).split(b"\n")
    writer.close()
    return [line for line in lines if line.startswith((b"data:", b"HTTP", b"{"))]


@pytest.mark.server
def test_a_completion_is_streamed_and_counted_by_vllms_names(engine):
    address, _ = engine
    lines = asyncio.run(ask(address, 10, 5))
    assert lines[0].startswith(b"HTTP/1.1 200") and len(lines) == 7 and lines[-1] == b"data: [DONE]"
    assert asyncio.run(ask(address, 600, 100))[0].startswith(b"HTTP/1.1 400")
    page = str(web.call(f"http://{address}/metrics"))
    for line in (
        'vllm:request_success_total{engine="0",model_name="chat",finished_reason="length"} 1',
        'vllm:generation_tokens_total{engine="0",model_name="chat"} 5',
        'vllm:time_to_first_token_seconds_count{engine="0",model_name="chat"} 1',
        'vllm:inter_token_latency_seconds_count{engine="0",model_name="chat"} 4',
        'vllm:num_requests_running{engine="0",model_name="chat"} 0',
        'http_requests_total{handler="/v1/completions",method="POST",status="4xx"} 1',
    ):
        assert line in page


@pytest.mark.server
def test_the_load_counts_first_tokens_from_the_intended_start(engine, tmp_path: Path):
    address, _ = engine
    control, out = tmp_path / "control.json", tmp_path / "load.jsonl"
    Control((address,), ((20.0, None),), 1, "chat").write(control)
    load = Child("load", [sys.executable, "-m", "demo.language.load", "--control", control, "--out", out, "--prompt", "8",
                          "--output", "10"], tmp_path / "load.log")  # fmt: skip
    try:
        wait_until(lambda: out.is_file() and len(out.read_text().splitlines()) >= 3, 20, "three seconds of load")
    finally:
        load.stop()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(row["errors"] for row in rows) == 0 and sum(row["ok"] for row in rows) > 10
    assert sum(row["tokens"] for row in rows) >= 10 * sum(row["ok"] for row in rows)
    assert all(row["ttft_p95_ms"] > 0 for row in rows if row["bins"])


@pytest.mark.server
def test_what_was_begun_is_answered_before_it_ends(engine):
    address, child = engine

    async def both() -> list[bytes]:
        asked = asyncio.create_task(ask(address, 10, 100))
        await asyncio.sleep(0.1)
        os.kill(child.pid, signal.SIGTERM)
        return await asked

    assert asyncio.run(both())[-1] == b"data: [DONE]"
    until = time.monotonic() + 10
    while child.alive and time.monotonic() < until:
        time.sleep(0.05)
    assert not child.alive
