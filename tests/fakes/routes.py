"""A world whose requests go by several routes, each with a health of its own, and a lever that takes one out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from detection.model import Service
from tests.fakes.world import START_S, World
from tuning.errors import ControlUnreachable
from tuning.model import Change, Receipt, Setting

WEIGHT = {"closed": 1.0, "half_open": 0.05, "open": 0.0}


@dataclass
class Way:
    """errors, slow_ms: as functions of seconds since the start."""

    errors: Callable[[float], float] = lambda _t: 0.0
    slow_ms: Callable[[float], float] = lambda _t: 20.0
    state: str = "closed"


class RoutesWorld(World):
    """What a route does not get, the others do. Signals per route: <name>_failed (share), <name>_p95 (ms), absent
    while it gets nothing."""

    def __init__(self, qps: Callable[[float], float] = lambda _t: 60.0, **ways: Way) -> None:
        super().__init__(qps=qps)
        self.ways = ways
        self.mute: set[str] = set()

    def _second(self) -> None:
        since = self.now_s - START_S
        weights = {name: WEIGHT[way.state] for name, way in self.ways.items()}
        total = sum(weights.values()) or 1.0
        super()._second()
        row = self._rows[-1]
        row["error_rate"] = sum(weights[n] / total * way.errors(since) for n, way in self.ways.items())
        worst = max((way.slow_ms(since) for n, way in self.ways.items() if weights[n] / total > 0.05), default=0.0)
        row["p95_ms"] = max(row["p95_ms"], worst * float(np.exp(self._rng.normal(0, 0.05))))
        for name, way in self.ways.items():
            if weights[name] and name not in self.mute:
                row[f"{name}_failed"], row[f"{name}_p95"] = way.errors(since), way.slow_ms(since)


class RoutesBreaker:
    """The breaker of the world: absolute, idempotent, read back."""

    name, lever = "http_breaker", "breaker"

    def __init__(self, world: RoutesWorld) -> None:
        self.world = world

    def read(self, service: Service) -> Setting:
        if self.world.control_down:
            raise ControlUnreachable("the gateway gives no answer")
        return Setting(lever="breaker", values={name: way.state for name, way in self.world.ways.items()})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before = {name: self.world.ways[name].state for name in change.new}
        self.world.applies.append(dict(change.new))
        for name, state in change.new.items():
            self.world.ways[name].state = str(state)
        return Receipt(
            id="", plan_id="", service=service.name, lever="breaker", before=before, after=dict(change.new),
            applied=True, changed=before != change.new, at_s=self.world.now_s, reason="made and read back",
        )  # fmt: skip
