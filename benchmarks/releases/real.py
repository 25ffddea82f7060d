"""Releases on a real Triton: models side by side, released by Triton's own load call, seen through a real Prometheus.

What a model computes is emulated (its Python backend waits as long as its version says, and fails and errs as often);
batching, versions, metrics and loads are Triton's own. The loop's own sweeps find, blame and take back; a change is not
proven here, so that ten services can be watched at once. Each round has a server of its own.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.releases.real_load import WIDTH, Load
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
CALM_S, WATCHED_S, SWEEP_S, LOOK_S = 100.0, 75.0, 10.0, 30.0
LIMIT_S = 2 * SWEEP_S + LOOK_S
"""Within two sweeps and a look (the seconds that a judgement of the metrics takes): from the release to the revert."""
ALPHA_MS, BETA_MS, RATE, SLO_MS, RIGHT = 100.0, 10.0, 4.0, 275.0, 0.99
"""Batches of a tenth of a second: what else a machine has to do moves them little. P95 is 212 ms in the calm; 328 ms
with a version that is 1.5 times slower, 237 ms with 2.8 times the requests (by simulation of the batch queue)."""
KINDS = ("slower", "harmless", "errors", "slower, more load", "harmless, more load", "wrong answers")
"""In turn, so that three rounds of ten have ten slower ones, ten harmless ones, and five of either other kind."""
BACKEND = """
import json, os, random, time
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.join(args["model_repository"], args["model_version"])
        with open(os.path.join(folder, "release.json")) as file:
            self.release = json.load(file)

    def answer(self, rows):
        right = np.random.random((len(rows), 1)) < self.release["right"]
        return np.where(right, rows[:, :1], 1 - rows[:, :1]).astype(np.float32)

    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        time.sleep((ALPHA_MS + BETA_MS * sum(len(part) for part in rows)) / 1e3 * self.release["slow"])
        if random.random() < self.release["errors"]:
            raise pb.TritonModelException("a bad release")
        return [pb.InferenceResponse([pb.Tensor("y", self.answer(part))]) for part in rows]
""".replace("ALPHA_MS", str(ALPHA_MS)).replace("BETA_MS", str(BETA_MS))
CONFIG = """name: "{name}"
backend: "onnxruntime"
max_batch_size: 8
version_policy {{ specific {{ versions: [ 1 ] }} }}
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ {width} ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ }}
"""
SUMMARIES = (
    "--metrics-config=summary_latencies=true",
    "--metrics-config=summary_quantiles=0.5:0.05,0.95:0.001,0.99:0.001",
)
HEAD = """
prometheus: {{rate_window: 20s, step: 1s}}
detection:
  {{lookback: 5m, detectors: [rules], close_after: 30s, min_requests: 20,
    rules: {{quality: {{threshold: 0.95, for: 10s, tier: act}}}}}}
planning: {{recent: 15s, verify_window: 20s}}
releases: {{proven_after: 30s}}
safety:
  {{cool_down: 0s, services_at_once: 50, changes_per_hour: 100, changes_per_hour_total: 1000, hold_again: 5s,
    passing_again: 5s, error_budget: 100%}}
services:
"""
SERVICE = """
  - name: {name}
    serving: triton
    selectors: {{model: {name}}}
    mode: act
    slo: {{p95: {slo:g}ms, for: 10s, error_rate: 2%, accuracy_drop: 2%}}
    signals:
      accuracy: >-
        sum by ($by) (rate(shadow_right_total{{$sel}}[$w]))
        / (sum by ($by) (rate(shadow_answers_total{{$sel}}[$w])) > 0)
    levers:
      batch_size: {{actuator: triton, connection: triton, min: 1, max: 32}}
      release: {{actuator: triton_release, connection: triton, mode: act}}
"""


@dataclass
class Release:
    """One release of one model, and what was decided first.

    slow: the time of a batch over the old version's. errors, wrong: the shares of requests that it fails, and of
    answers that it gets wrong beside the old version's own. load: the traffic's factor from the same moment on. made:
    Triton took it; at_s: when (epoch seconds). broke: an incident came of it. said: why it was decided so.
    decided_s, reverted_s: after the release.
    """

    model: str
    kind: str
    slow: float
    errors: float
    wrong: float
    load: float
    old: str
    new: str
    made: bool = False
    at_s: float = 0.0
    broke: bool = False
    cause: str = ""
    said: str = ""
    first: str = ""
    named: tuple[str, str] | None = None
    decided_s: float | None = None
    reverted: bool = False

    @property
    def harmless(self) -> bool:
        return self.kind.startswith("harmless")

    @property
    def right(self) -> bool:
        """Named with both versions, and taken back by the first change."""
        return self.named == (self.old, self.new) and self.first == "release" and self.reverted

    @property
    def in_time(self) -> bool:
        return self.decided_s is not None and self.decided_s <= LIMIT_S


def campaign(rounds: int, seed: int) -> list[Release]:
    """`rounds` times a release of each of the models. RuntimeError where there is no Triton."""
    binary = find_triton()
    if binary is None:
        raise RuntimeError("there is no Triton: scripts/triton-wheel puts one into .triton")
    kinds = itertools.cycle(KINDS)
    found: list[Release] = []
    for number in range(rounds):
        rng = random.Random(1000 * seed + number)
        releases = [_drawn(rng, f"m{k}", next(kinds)) for k in range(MODELS)]
        rng.shuffle(releases)
        _round(binary, releases)
        found += releases
    return found


def _drawn(rng: random.Random, model: str, kind: str) -> Release:
    slow = rng.uniform(1.5, 3.0) if kind.startswith("slower") else rng.uniform(0.98, 1.02)
    errors = rng.uniform(0.05, 0.2) if kind == "errors" else 0.0
    wrong = rng.uniform(0.1, 0.3) if kind == "wrong answers" else 0.0
    load = rng.uniform(1.15, 1.4) if kind == "slower, more load" else rng.uniform(2.2, 2.8) if "load" in kind else 1.0
    return Release(model, kind, round(slow, 2), round(errors, 2), round(wrong, 2), round(load, 2), "1", "2")


def _round(binary: Path, releases: Sequence[Release]) -> None:
    """One server with all models: calm traffic, then one release after another while the loop goes on sweeping."""
    names = sorted(one.model for one in releases)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name in names:
            _put(root / "repository" / name, "1")
            (root / "repository" / name / "config.pbtxt").write_text(CONFIG.format(name=name, width=WIDTH))
        prometheus = Prometheus(root / "prometheus.log")
        with triton_server(binary, root, root / "repository", more=SUMMARIES, backend=BACKEND) as server:
            prometheus.start()
            try:
                with Load(server.url, names, RATE) as load:
                    prometheus.targets([Target(server.metrics, "triton", "0"), Target(load.metrics, "shadow", "0")])
                    parts = _parts(names, server, prometheus)
                    _watch(parts, CALM_S, {}, learn=True)
                    hands = threading.Thread(target=_release_all, args=(server, load, releases), daemon=True)
                    hands.start()
                    _watch(parts, WATCHED_S, {one.model: one for one in releases}, hands=hands)
                    for one in releases:
                        one.reverted = one.made and _serves(parts, one.model) == one.old
                        print(one, flush=True)
                    if not all(one.made for one in releases):
                        print((root / "triton.log").read_text(errors="replace")[-3000:], flush=True)
            finally:
                prometheus.stop()


def _put(folder: Path, version: str, one: Release | None = None) -> None:
    (folder / version).mkdir(parents=True)
    (folder / version / "model.onnx").write_text("the backend needs none")
    told = {"slow": 1.0, "errors": 0.0, "right": RIGHT}
    if one is not None:
        told = {"slow": one.slow, "errors": one.errors, "right": RIGHT - one.wrong}
    (folder / version / "release.json").write_text(json.dumps(told))


def _release_all(server: TritonServer, load: Load, releases: Sequence[Release]) -> None:
    """As somebody would who knows nothing of slotune: each as soon as Triton has taken the one before."""
    for one in releases:
        _put(server.repository / one.model, one.new, one)
        config = web.call(f"{server.url}/v2/models/{one.model}/config")
        config["version_policy"] = {"specific": {"versions": [int(one.new)]}}
        body = {"parameters": {"config": json.dumps(config)}}
        try:
            web.call(f"{server.url}/v2/repository/models/{one.model}/load", body, timeout_s=30.0)
        except OSError as error:
            print(f"Triton did not take {one.model}: {error}", flush=True)
            continue
        load.set(one.model, RATE * one.load)
        one.at_s, one.made = time.time(), True


def _watch(
    parts: Parts,
    seconds: float,
    releases: Mapping[str, Release],
    *,
    learn: bool = False,
    hands: threading.Thread | None = None,
) -> None:
    """Sweep as the loop does; of each release the first decision that changes something is carried out and kept.

    seconds: how long, from the moment on when the hands that release have done.
    """
    decided, end_s = set[str](), time.time() + seconds
    while time.time() < end_s:
        next_s = time.time() + SWEEP_S
        for request in once.sweep(parts, time.time(), alive=lambda _run: True):
            one = releases.get(request.incident.service)
            if one is None or one.model in decided or not one.made:
                continue
            one.broke = True
            plan = act.choose_action(parts, request.incident, time.time(), attempt=request.attempt)
            told = plan.diagnosis.release
            one.said = plan.reason
            one.cause, one.named = plan.diagnosis.cause, (told.old, told.new) if told is not None else None
            if not plan.chosen.changes:
                act.hold(parts, plan, time.time())
                tell.email_report(parts, plan, time.time())
                continue
            decided.add(one.model)
            one.first = plan.chosen.levers[0]
            if one.first == "release" and act.guard_plan(parts, plan, time.time()) is None:
                act.pull_lever(parts, plan, "release", time.time())
                prove.close(parts, plan, time.time(), "keep", "how it is proven is measured elsewhere")
            one.decided_s = round(time.time() - one.at_s, 1)
            tell.email_report(parts, plan, time.time())
        if learn:
            learn_latency(parts, time.time())
        time.sleep(max(0.0, next_s - time.time()))
        if hands is not None and hands.is_alive():
            end_s = time.time() + seconds


def _serves(parts: Parts, name: str) -> str:
    service = parts.service(name)
    return str(parts.actuator(service, "release").read(service).values["version"])


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
        source=PrometheusSource(prometheus.url, rate_window_s=20.0),
        actuator=lambda _service, lever: levers[lever],
        planner=planning.get("model")(settings.planning),
        verifier=verification.get("before_after")(settings.verification),
        ledger=FakeLedger(),
        notifiers=[],
    )
