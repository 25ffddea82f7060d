"""What a rehearsal costs: synthetic services over many days, two incidents a week each, on this machine."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from benchmarks.detection.recordings import ar1
from benchmarks.detection.weeks import DAY_S, MONDAY_S, WEEK_S
from detection.model import MetricWindow, Span
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.fleet import Held, Rehearsing
from slotune.rehearsal.kept import Folder, digest
from slotune.rehearsal.reading import packed, unpacked
from tuning.services_yaml import loads

START_S, STEP_S = 1_699_920_000.0, 60.0
_SERVICE = """
  - name: service-{number}
    serving: triton
    selectors: {{model: m{number}}}
    slo: {{p95: 150ms}}
    levers:
      batch_size: {{actuator: triton, connection: triton, model: m, min: 1, max: 32}}
      replicas: {{connection: kube, min: 1, max: 8, namespace: a, target: b, cost_per_hour: 1.0, effect_delay: 60s}}
"""


def history(days: float, seed: int) -> History:
    """Twelve signals with a day and a weekend of their own (the shapes of benchmarks.detection.weeks); twice a week, at
    its own times, the load is too much for an hour, and queues."""
    points = int(days * 86_400 / STEP_S)
    rng = np.random.default_rng(seed)
    span = Span(START_S, START_S + (points - 1) * STEP_S, STEP_S)
    t = np.arange(points) * STEP_S
    swing, phase = rng.uniform(0.1, 0.4), rng.uniform(0, 2 * np.pi)
    weekend = np.where((START_S + t - MONDAY_S) % WEEK_S >= 5 * DAY_S, rng.uniform(0.6, 1.0), 1.0)
    load = 60 * (1 + swing * np.sin(2 * np.pi * t / DAY_S + phase)) * weekend
    load *= np.exp(ar1(rng, points, 0.8, rng.uniform(0.03, 0.07)))
    depth = np.zeros(points)
    for start in np.arange(2.5 + rng.uniform(-1.0, 1.0), days, 3.5):
        first = int(start * 86_400 / STEP_S)
        load[first : first + 60] = 260.0
        depth[first : first + 60] = (260 - 2 * 4 / 0.04) * STEP_S * np.arange(1, min(61, points - first + 1))
    rows = np.clip(1 + load * 0.03, 1, 4)
    took = (20 + 5 * rows) * np.exp(ar1(rng, points, 0.7, 0.03))
    answered = np.where(depth > 0, 200.0, load)
    wait_ms = np.where(depth > 0, 1e3 * depth / 200.0, load / 10 * np.exp(ar1(rng, points, 0.5, 0.1)))
    values = {
        "qps": answered, "p95_ms": wait_ms * 1.1 + 1.6 * took, "p50_ms": wait_ms + took, "mean_ms": wait_ms + took,
        "queue_ms": wait_ms, "queue_depth": depth, "batch_ms": took, "rows_per_batch": np.where(depth > 0, 4.0, rows),
        "error_rate": np.zeros(points), "replicas": np.full(points, 2.0), "batch_size": np.full(points, 4.0),
        "busy": np.minimum(1.0, answered / np.where(depth > 0, 4.0, rows) * took / 2e3),
    }  # fmt: skip
    return History(MetricWindow("x", span, values, "histogram"), {})


def settings_text(services: int) -> str:
    """services.yaml of so many services."""
    each = "".join(_SERVICE.format(number=k) for k in range(services))
    return "prometheus: {rate_window: 60s, step: 60s}\nservices:" + each


@dataclass(frozen=True)
class Cost:
    """What a rehearsal took. cpu_s: of all processes. rss_mb: the most that they had at once, pages that they share
    counted for each; pss_mb: counted once. kept: services that an earlier run had done."""

    days: float
    services: int
    signals: int
    jobs: int
    kept: int
    incidents: int
    changes: int
    cpu_s: float
    wall_s: float
    rss_mb: float
    pss_mb: float


def measure(days: float, services: int, jobs: int, folder: Path) -> Cost:
    """Rehearse so many services in `folder`, from which a run that was stopped goes on."""
    held, signals = {}, 0
    for k in range(services):
        file, name = folder / f"history-{days:g}-{k}.npz", f"service-{k}"
        if not file.exists():
            window = history(days, k).window
            signals = len(window.values)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(packed(History(replace(window, service=name), {})))
        held[name] = Held(digest(file.read_bytes()), partial(_load, file))
    said: list[str] = []
    rehearsing = Rehearsing(loads(settings_text(services)), held, "cost", Folder(folder), jobs, said.append)
    before = len(list(folder.glob("*.result.json")))
    cpu, wall = _cpu_s(), time.monotonic()
    with Watched() as most:
        result = rehearsing.run(_tell)
    return Cost(
        days, services, signals or len(_load(folder / f"history-{days:g}-0.npz").window.values), jobs, before,
        len(result.incidents), sum(service.changes for service in result.services), round(_cpu_s() - cpu, 1),
        round(time.monotonic() - wall, 1), round(most.rss_mb), round(most.pss_mb),
    )  # fmt: skip


def _load(file: Path) -> History:
    return unpacked(file.read_bytes())


class Watched:
    """The most memory that this process and its children had at once, looked at twice a second; as `with`."""

    def __init__(self) -> None:
        self.rss_mb = self.pss_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            found = [one for pid in pids if (one := _memory_mb(pid)) is not None]
            self.rss_mb = max(self.rss_mb, sum(rss for rss, _ in found))
            self.pss_mb = max(self.pss_mb, sum(pss for _, pss in found))


def _memory_mb(pid: int | None) -> tuple[float, float] | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kb = {line.split(":")[0]: float(line.split()[1]) for line in lines[1:]}
    return kb.get("Rss", 0.0) / 1024, kb.get("Pss", 0.0) / 1024


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _tell(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{share:.1%}", end="", file=sys.stderr)
