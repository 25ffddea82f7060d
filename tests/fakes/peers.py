"""A world whose service has several replicas, each with a health of its own, and a lever that restarts one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import MetricWindow, Service, Span
from tests.fakes.world import START_S, World, WorldSource
from tuning.errors import ControlRefused, ControlUnreachable
from tuning.model import Change, Receipt, ReplicaSeen, Setting

LIMIT_GB = 4.0


@dataclass
class Peer:
    """One replica. slow: times as long per batch. leaks: GB a second. cold_s: how long it is slow after a start.
    chronic: a restart cures nothing."""

    name: str
    slow: float = 1.0
    errors: float = 0.0
    leaks: float = 0.0
    cold_s: float = 0.0
    chronic: bool = False
    serial: int = 1
    started_s: float = START_S - 86_400.0
    memory_gb: float = 1.0


class PeersWorld(World):
    """Every replica gets the same share of the requests. killed: processes that reached their memory's limit."""

    def __init__(self, *peers: Peer, qps: Callable[[float], float] = lambda _t: 60.0, seed: int = 0) -> None:
        super().__init__(qps=qps, seed=seed)
        self.peers = list(peers)
        self.killed: list[str] = []
        self.away_s: dict[str, float] = {}
        self.peer_rows: dict[str, list[dict[str, float]]] = {}
        self.begin_s: dict[str, int] = {}

    def _second(self) -> None:
        since = self.now_s - START_S
        serving = [peer for peer in self.peers if self.away_s.get(peer.name, 0.0) <= self.now_s]
        share = self._qps(since) / max(len(serving), 1)
        rows = {peer.name: self._one(peer, share) for peer in serving}
        for name in self.peer_rows.keys() | rows.keys():
            if name not in self.begin_s:
                self.begin_s[name] = len(self._rows)
                self.peer_rows[name] = []
            self.peer_rows[name].append(rows.get(name, {}))
        mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in next(iter(rows.values()))}
        worst = max(row["p95_ms"] for row in rows.values())
        self._rows.append(
            mean | {"p95_ms": worst, "p99_ms": worst * 1.2, "qps": sum(row["qps"] for row in rows.values()),
                    "replicas": float(len(serving)), "batch_size": 1.0, "batch_timeout_ms": 0.0, "load_failures": 0.0,
                    "arrival_cv2": 1.0, "memory_limit_gb": LIMIT_GB,
                    "uptime_s": min(row["uptime_s"] for row in rows.values())}
        )  # fmt: skip
        self.now_s += 1.0

    def _one(self, peer: Peer, load: float) -> dict[str, float]:
        age_s = self.now_s - peer.started_s
        slow = peer.slow * (3.0 if age_s < peer.cold_s else 1.0)
        batch_ms = 8.5 * slow
        busy = min(load * batch_ms / 1e3, 0.99)
        queue_ms = batch_ms * busy / (1 - busy) / 2
        p95 = (2.5 * queue_ms + 1.5 * batch_ms) * np.exp(self._rng.normal(0, 0.05))
        peer.memory_gb += peer.leaks
        if peer.memory_gb > LIMIT_GB:
            self.killed.append(peer.name)
            self.restart(peer)
        return {
            "p50_ms": p95 / 2, "p95_ms": p95, "mean_ms": queue_ms + batch_ms, "qps": load, "error_rate": peer.errors,
            "queue_ms": queue_ms, "queue_depth": 0.0, "batch_ms": batch_ms, "rows_per_batch": 1.0, "busy": busy,
            "memory_gb": peer.memory_gb + self._rng.normal(0, 0.005), "memory_limit_gb": LIMIT_GB, "uptime_s": age_s,
        }  # fmt: skip

    def restart(self, peer: Peer, *, takes_s: float = 5.0) -> None:
        """Another process, without what the last one suffered from."""
        peer.serial += 1
        peer.started_s, peer.memory_gb, peer.leaks = self.now_s + takes_s, 1.0, 0.0
        self.away_s[peer.name] = self.now_s + takes_s
        if not peer.chronic:
            peer.slow, peer.errors = 1.0, 0.0

    def peer_values(self, name: str, signal: str, span: Span) -> np.ndarray:
        rows, begin = self.peer_rows.get(name, []), self.begin_s.get(name, 0)
        index = np.round(span.times() - START_S).astype(int) - 1 - begin
        known = (index >= 0) & (index < len(rows))
        out = np.full(span.points, np.nan)
        out[known] = [rows[i].get(signal, np.nan) for i in index[known]]
        return out


class PeersSource(WorldSource):
    """The same, whose metrics carry the replica."""

    world: PeersWorld

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        found = {}
        for peer in self.world.peers:
            values = {s: self.world.peer_values(peer.name, s, span) for s in signals}
            values = {s: v for s, v in values.items() if np.isfinite(v).any()}
            if values:
                found[peer.name] = MetricWindow("ranker", span, values, replica=peer.name)
        return {service.name: found for service in services}


class PeersRestart:
    """The restart lever of that world: one process be gone."""

    name, lever = "http_restart", "restart"

    def __init__(self, world: PeersWorld) -> None:
        self.world = world

    def read(self, service: Service) -> Setting:
        if self.world.control_down:
            raise ControlUnreachable("the control endpoint gives no answer")
        seen = [ReplicaSeen(name=p.name, knob=f"{p.name}@{p.serial}", place=f"{p.name}:8000") for p in self.world.peers]
        return Setting(lever="restart", values={one.knob: "up" for one in seen}, absent="gone", replicas=tuple(seen))

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        (knob,) = change.new
        before = self.read(service).at([knob])
        peer = next((p for p in self.world.peers if p.name == knob.partition("@")[0]), None)
        if peer is None:
            raise ControlRefused(f"there is no replica {knob}")
        changed = before[knob] == "up" and not change.undoes
        if changed:
            self.world.applies.append(dict(change.new))
            self.world.restart(peer)
        return Receipt(
            id="", plan_id="", service=service.name, lever="restart", before={knob: before[knob]},
            after=dict(change.new), applied=True, changed=changed, at_s=self.world.now_s, reason="made and read back",
        )  # fmt: skip
