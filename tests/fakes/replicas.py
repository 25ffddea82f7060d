"""The small world with several replicas: each has its own queue, batch size and series; the load is split evenly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detection.model import MetricWindow, Service, Span
from tests.fakes.world import SERVICES, START_S, KeptMails, World, WorldSource, parts
from tuning.loop.parts import Parts
from tuning.model import Change, Receipt, Setting
from tuning.ports import Ledger


class Fleet(World):
    """`sizes`: batch size by replica. common: a factor on everybody's batch time, by seconds since START_S."""

    def __init__(self, replicas: int = 3, *, common: Callable[[float], float] = lambda _t: 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = {f"ranker-{i}": 1 for i in range(replicas)}
        self.labelled = True
        self._common = common
        self._queues = dict.fromkeys(self.sizes, 0.0)
        self._own: dict[str, list[dict[str, float]]] = {name: [] for name in self.sizes}

    def _second(self) -> None:
        since = self.now_s - START_S
        load = self._qps(since) / len(self.sizes)
        rows = [self._one(name, load, since) for name in self.sizes]
        worst = max(rows, key=lambda row: row["p95_ms"])
        total = {name: sum(row[name] for row in rows) for name in ("qps", "queue_depth")}
        common = Counter(self.sizes.values()).most_common(1)[0][0]
        self._rows.append({**worst, **total, "batch_size": float(common), "replicas": float(len(rows))})
        self.now_s += 1.0

    def _one(self, name: str, load: float, since: float) -> dict[str, float]:
        b = self.sizes[name]
        batch_ms = (self._alpha_ms + self._beta_ms * b) * (self._hurts if b > 1 else 1.0) * self._common(since)
        capacity = b / batch_ms * 1e3
        served = min(load + self._queues[name], capacity)
        self._queues[name] = max(self._queues[name] + load - served, 0.0)
        queue_ms = self._queues[name] / capacity * 1e3 + batch_ms * min(load / capacity, 1.0) / 2
        p95 = (queue_ms * 1.3 + 1.5 * batch_ms) * np.exp(self._rng.normal(0, 0.05))
        row = {
            "p50_ms": p95 / 2, "p95_ms": p95, "p99_ms": p95 * 1.2, "mean_ms": queue_ms + batch_ms, "qps": served,
            "error_rate": self._errors(since), "queue_ms": queue_ms, "queue_depth": self._queues[name],
            "batch_ms": batch_ms, "rows_per_batch": min(b, max(1.0, load * batch_ms / 1e3)), "batch_size": float(b),
            "batch_timeout_ms": 0.0, "busy": min(load / capacity, 1.0), "load_failures": 0.0, "arrival_cv2": 1.0,
        }  # fmt: skip
        self._own[name].append(row)
        return row

    def values_of(self, name: str, signal: str, span: Span) -> np.ndarray:
        index = np.round(span.times() - START_S).astype(int) - 1
        rows = self._own[name]
        return np.array([rows[i].get(signal, np.nan) if 0 <= i < len(rows) else np.nan for i in index])


class FleetSource(WorldSource):
    """Series per replica too, unless their label is not exported."""

    world: Fleet

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        names = self.world.sizes if self.world.labelled else ()
        return {
            service.name: {
                name: MetricWindow(
                    service.name, span, {s: self.world.values_of(name, s, span) for s in signals}, "histogram", name
                )
                for name in names
            }
            for service in services
        }


class FleetBatch:
    """The batch lever with an endpoint per replica. `dies`: raised after a change of that replica, once."""

    name, lever = "http_config", "batch_size"

    def __init__(self, world: Fleet) -> None:
        self.world = world
        self.dies: dict[str, BaseException] = {}

    def read(self, service: Service) -> Setting:
        common = Counter(self.world.sizes.values()).most_common(1)[0][0]
        others = {n: {"batch_size": s, "batch_timeout_ms": 0.0} for n, s in self.world.sizes.items() if s != common}
        return Setting(lever="batch_size", values={"batch_size": common, "batch_timeout_ms": 0.0}, others=others)

    def replicas(self, service: Service) -> Mapping[str, str]:
        return {name: f"10.0.0.{i}:8000" for i, name in enumerate(self.world.sizes)}

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        return self._apply(service, change, tuple(self.world.sizes))

    def apply_to(self, service: Service, change: Change, replica: str, *, key: str) -> Receipt:
        return self._apply(service, change, (replica,)).model_copy(update={"replica": replica})

    def _apply(self, service: Service, change: Change, names: tuple[str, ...]) -> Receipt:
        before = Counter(self.world.sizes[name] for name in names).most_common(1)[0][0]
        size, made = int(change.new["batch_size"]), 0
        for name in names:
            if self.world.sizes[name] != size:
                self.world.sizes[name] = size
                self.world.applies.append({"replica": name, "batch_size": size})
                made += 1
            if name in self.dies:
                raise self.dies.pop(name)
        return Receipt(
            id="", plan_id="", service=service.name, lever="batch_size", before={**change.old, "batch_size": before},
            after=dict(change.new), applied=True, changed=made > 0, at_s=self.world.now_s,
            reason=f"{made} of {len(names)} replicas changed",
        )  # fmt: skip


def fleet_parts(
    world: Fleet, ledger: Ledger, mails: KeptMails, lever: FleetBatch | None = None, services: str = SERVICES
) -> Parts:
    pulled = lever or FleetBatch(world)
    loop = parts(world, ledger, mails, services)
    return replace(loop, source=FleetSource(world), actuator=lambda _service, _lever: pulled)
