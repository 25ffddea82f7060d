"""Requests to models on a real Triton, each with an answer that is known, and how many were right, for a Prometheus."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections.abc import Sequence

import aiohttp
from aiohttp import web

from demo.processes import LOOPBACK, free_port

WIDTH = 4


class Load:
    """Open-loop requests to every model from a process of its own: what the loop computes delays none of them.

    metrics: host:port of its own /metrics, with `shadow_answers_total` and `shadow_right_total` of each model: what
    a shadow that knows the right answers exports.
    """

    def __init__(self, url: str, names: Sequence[str], rate: float) -> None:
        self.metrics = f"{LOOPBACK}:{free_port()}"
        fork = multiprocessing.get_context("spawn")
        self._rates = fork.Array("d", [rate] * len(names))
        self._places = {name: k for k, name in enumerate(names)}
        self._process = fork.Process(target=_run, args=(url, tuple(names), self._rates, self.metrics), daemon=True)

    def __enter__(self) -> Load:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(timeout=20)

    def set(self, name: str, rate: float) -> None:
        """So many requests per second to one model from now on."""
        self._rates[self._places[name]] = rate


def _run(url: str, names: Sequence[str], rates: Sequence[float], metrics: str) -> None:
    asyncio.run(_Clients(url, names, rates).run(metrics))


class _Clients:
    """What the process of the load does. rates: requests/s of each model, read before each request."""

    def __init__(self, url: str, names: Sequence[str], rates: Sequence[float]) -> None:
        self._url, self._names, self._rates = url, names, rates
        self._answers, self._right = dict.fromkeys(names, 0), dict.fromkeys(names, 0)

    async def run(self, metrics: str) -> None:
        """Until the process is ended."""
        app = web.Application()
        app.router.add_get("/metrics", self._exposed)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        host, port = metrics.split(":")
        await web.TCPSite(runner, host, int(port)).start()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(self._one(session, name, k) for k, name in enumerate(self._names)))

    async def _exposed(self, _request: web.Request) -> web.Response:
        counters = {"shadow_answers_total": self._answers, "shadow_right_total": self._right}
        lines = [f'{metric}{{model="{m}"}} {n}' for metric, found in counters.items() for m, n in found.items()]
        return web.Response(text="\n".join(lines) + "\n")

    async def _one(self, session: aiohttp.ClientSession, name: str, place: int) -> None:
        rng, waiting = random.Random(place), set[asyncio.Task[None]]()
        while True:
            await asyncio.sleep(rng.expovariate(self._rates[place]))
            task = asyncio.create_task(self._ask(session, name, float(rng.random() < 0.5)))
            waiting.add(task)
            task.add_done_callback(waiting.discard)

    async def _ask(self, session: aiohttp.ClientSession, name: str, label: float) -> None:
        body = {"inputs": [{"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [label] * WIDTH}]}
        url, timeout = f"{self._url}/v2/models/{name}/infer", aiohttp.ClientTimeout(total=30)
        try:
            async with session.post(url, json=body, timeout=timeout) as answer:
                found = await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return
        if answer.status == 200:
            self._answers[name] += 1
            self._right[name] += found["outputs"][0]["data"][0] == label
