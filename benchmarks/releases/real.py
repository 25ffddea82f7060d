"""Releases on a real Triton: models side by side, released by Triton's own load call, seen through a real Prometheus.

What a model computes is emulated (its Python backend waits as long as its version says, and fails as often); batching,
versions, metrics and loads are Triton's own. The loop's own sweeps find, blame and take back; a change is not proven
here, so that ten services can be watched at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from demo import web
from demo.prometheus import Prometheus, Target
from detection.sources.prometheus import PrometheusSource
from tests.fakes.actuators import FakeConnections
from tests.fakes.ledger import FakeLedger
from tests.triton_server import TritonServer, find_triton, triton_server
from tuning import actuators, planning, verification
from tuning.loop import act, once, prove, tell
from tuning.loop.learn_latency import learn_latency
from tuning.loop.parts import Parts
from tuning.services_yaml import loads

MODELS = 10
CALM_S, WATCHED_S, SWEEP_S = 100.0, 70.0, 5.0
ALPHA_MS, BETA_MS, RATE, SLO_MS = 30.0, 5.0, 9.0, 110.0
KINDS = ("slower", "slower, more load", "errors", "harmless", "harmless, more load")
BACKEND = """
import json, os, random, time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "release.json")) as file:
            self.release = json.load(file)

    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        time.sleep((ALPHA_MS + BETA_MS * sum(len(part) for part in rows)) / 1e3 * self.release["slow"])
        return [
            pb.InferenceResponse(error=pb.TritonError("a bad release"))
            if random.random() < self.release["errors"]
            else pb.InferenceResponse([pb.Tensor("y", np.zeros((len(part), 1), np.float32))])
            for part in rows
        ]
""".replace("ALPHA_MS", str(ALPHA_MS)).replace("BETA_MS", str(BETA_MS))
CONFIG = """name: "{name}"
backend: "onnxruntime"
max_batch_size: 8
version_policy {{ specific {{ versions: [ 1 ] }} }}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
"""
SUMMARIES = (
    "--metrics-config=summary_latencies=true",
    "--metrics-config=summary_quantiles=0.5:0.05,0.95:0.001,0.99:0.001",
)
HEAD = """
prometheus: {{rate_window: 10s, step: 1s}}
detection: {{lookback: 5m, detectors: [rules], close_after: 30s}}
planning: {{recent: 15s, verify_window: 20s}}
releases: {{proven_after: 30s}}
safety:
  {{cool_down: 0s, services_at_once: 50, changes_per_hour: 100, changes_per_hour_total: 1000, hold_again: 5s,
    error_budget: 100%}}
services:
"""
SERVICE = """
  - name: {name}
    serving: triton
    selectors: {{model: {name}}}
    mode: act
    slo: {{p95: {slo:g}ms, for: 10s, error_rate: 2%}}
    levers:
      batch_size: {{actuator: triton, connection: triton, min: 1, max: 32}}
      release: {{actuator: triton_release, connection: triton, mode: act}}
"""


@dataclass
class Release:
    """One release of one model, and what was decided first. broke: an incident came of it. at_s: after the release."""

    model: str
    kind: str
    slow: float
    errors: float
    load: float
    old: str
    new: str
    broke: bool = False
    cause: str = ""
    first: str = ""
    named: tuple[str, str] | None = None
    reverted: bool = False
    at_s: float | None = None


class Load:
    """Open-loop requests to every model in a thread of its own; `rates` may be changed at any time."""

    def __init__(self, url: str, names: Sequence[str]) -> None:
        self.url, self.rates = url, dict.fromkeys(names, RATE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=20)

    async def _all(self) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(self._one(session, name, k) for k, name in enumerate(self.rates)))

    async def _one(self, session: aiohttp.ClientSession, name: str, seed: int) -> None:
        rng, waiting = random.Random(seed), set[asyncio.Task[None]]()
        body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0] * 4}]}
        while not self._stop.is_set():
            await asyncio.sleep(rng.expovariate(self.rates[name]))
            task = asyncio.create_task(self._ask(session, f"{self.url}/v2/models/{name}/infer", body))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        for task in waiting:
            task.cancel()

    @staticmethod
    async def _ask(session: aiohttp.ClientSession, url: str, body: object) -> None:
        try:
            async with session.post(url, json=body, timeout=aiohttp.ClientTimeout(total=30)) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return


def campaign(rounds: int, seed: int) -> list[Release]:
    """`rounds` times a release of each of the models. RuntimeError where there is no Triton."""
    binary = find_triton()
    if binary is None:
        raise RuntimeError("there is no Triton: scripts/triton-wheel puts one into .triton")
    names = [f"m{k}" for k in range(MODELS)]
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name in names:
            _put(root / "repository" / name, "1", 1.0, 0.0)
            (root / "repository" / name / "config.pbtxt").write_text(CONFIG.format(name=name))
        prometheus = Prometheus(root / "prometheus.log")
        with triton_server(binary, root, root / "repository", more=SUMMARIES, backend=BACKEND) as server:
            prometheus.start()
            try:
                prometheus.targets([Target(server.metrics, "triton", "0")])
                with Load(server.url, names) as load:
                    return _rounds(_parts(names, server, prometheus), server, load, names, rounds, seed)
            finally:
                prometheus.stop()


def _rounds(
    parts: Parts, server: TritonServer, load: Load, names: Sequence[str], rounds: int, seed: int
) -> list[Release]:
    rng, serving, numbers = random.Random(seed), dict.fromkeys(names, "1"), itertools.count(2)
    done: list[Release] = []
    for number in range(rounds):
        _watch(parts, CALM_S, {}, learn=True)
        releases = {}
        for k, name in enumerate(names):
            releases[name] = _drawn(rng, name, KINDS[(k + number) % len(KINDS)], serving[name], str(next(numbers)))
            _release(server, releases[name])
            load.rates[name] = RATE * releases[name].load
        _watch(parts, WATCHED_S, releases)
        for name, one in releases.items():
            load.rates[name] = RATE
            now = str(_lever(parts, name).read(parts.service(name)).values["version"])
            one.reverted = now == one.old
            if one.kind.startswith("harmless") and not one.reverted:
                serving[name] = one.new
            elif not one.reverted:
                _put_live(server, name, one.old)
            print(one, flush=True)
        done += releases.values()
    return done


def _drawn(rng: random.Random, model: str, kind: str, old: str, new: str) -> Release:
    slow = rng.uniform(1.5, 3.0) if kind.startswith("slower") else rng.uniform(0.98, 1.02)
    errors = rng.uniform(0.05, 0.2) if kind == "errors" else 0.0
    load = rng.uniform(1.15, 1.4) if kind == "slower, more load" else rng.uniform(2.2, 2.8) if "load" in kind else 1.0
    return Release(model, kind, round(slow, 2), round(errors, 2), round(load, 2), old, new)


def _put(folder: Path, version: str, slow: float, errors: float) -> None:
    (folder / version).mkdir(parents=True)
    (folder / version / "model.onnx").write_text("the backend needs none")
    (folder / version / "release.json").write_text(json.dumps({"slow": slow, "errors": errors}))


def _release(server: TritonServer, one: Release) -> None:
    """As somebody would who knows nothing of slotune."""
    _put(server.repository / one.model, one.new, one.slow, one.errors)
    _put_live(server, one.model, one.new)


def _put_live(server: TritonServer, model: str, version: str) -> None:
    config = web.call(f"{server.url}/v2/models/{model}/config")
    config["version_policy"] = {"specific": {"versions": [int(version)]}}
    body = {"parameters": {"config": json.dumps(config)}}
    web.call(f"{server.url}/v2/repository/models/{model}/load", body, timeout_s=60.0)


def _watch(parts: Parts, seconds: float, releases: dict[str, Release], *, learn: bool = False) -> None:
    """Sweep as the loop does; of each release the first decision that changes something is carried out and kept."""
    begun_s, decided = time.time(), set[str]()
    while time.time() - begun_s < seconds:
        next_s, at_s = time.time() + SWEEP_S, time.time()
        for request in once.sweep(parts, at_s, alive=lambda _run: True):
            one = releases.get(request.incident.service)
            if one is None or one.model in decided:
                continue
            one.broke = True
            plan = act.choose_action(parts, request.incident, time.time(), attempt=request.attempt)
            told = plan.diagnosis.release
            one.cause, one.named = plan.diagnosis.cause, (told.old, told.new) if told is not None else None
            if not plan.chosen.changes:
                act.hold(parts, plan, time.time())
                tell.email_report(parts, plan, time.time())
                continue
            decided.add(one.model)
            one.first, one.at_s = plan.chosen.levers[0], round(time.time() - begun_s, 1)
            if one.first == "release" and act.guard_plan(parts, plan, time.time()) is None:
                act.pull_lever(parts, plan, "release", time.time())
                prove.close(parts, plan, time.time(), "keep", "how it is proven is measured elsewhere")
            tell.email_report(parts, plan, time.time())
        if learn:
            learn_latency(parts, time.time())
        time.sleep(max(0.0, next_s - time.time()))


def _lever(parts: Parts, name: str):  # type: ignore[no-untyped-def]
    return parts.actuator(parts.service(name), "release")


def _parts(names: Sequence[str], server: TritonServer, prometheus: Prometheus) -> Parts:
    settings = loads(HEAD.format() + "".join(SERVICE.format(name=name, slo=SLO_MS) for name in names))
    known = FakeConnections({"triton": server.url})
    levers = {
        "batch_size": actuators.get("triton")(known, time.time, time.sleep),
        "release": actuators.get("triton_release")(known, time.time, time.sleep),
    }
    return Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=PrometheusSource(prometheus.url, rate_window_s=10.0),
        actuator=lambda _service, lever: levers[lever],
        planner=planning.get("model")(settings.planning),
        verifier=verification.get("before_after")(settings.verification),
        ledger=FakeLedger(),
        notifiers=[],
    )
