"""A discrete-event inference service: replicas with batch queues behind a balancer, advanced second by second.

It knows nothing of slotune's what-if: batches are started one by one from real queues, service times are drawn per
batch, replicas start late and die, counters are kept as a server exports them. All times in seconds since the start.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

EDGES_S = np.array([0.001 * (30_000 ** (i / 39)) for i in range(40)])
"""Upper edges of the latency histogram, those of the demo server (1 ms to 30 s, 40 of them); one more is +inf."""


@dataclass(frozen=True)
class Profile:
    """What the service is made of. alpha_ms, beta_ms: true batch time. spread: its lognormal variation per batch.

    overhead_ms: parsing and network. int8_gain: true speed-up. start_s: from asking for a replica to its first batch.
    queue_limit: requests that may wait at one replica; more are refused with an error.
    """

    alpha_ms: float
    beta_ms: float
    spread: float = 0.12
    overhead_ms: float = 2.0
    int8_gain: float = 2.5
    start_s: float = 25.0
    queue_limit: int = 1500
    curve: float = 0.0
    """Departure from the straight line: the row cost shrinks by this share at 32 rows, as on real hardware."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, as functions of the time. slow(t, replica): factor on batch times. lost(t): replicas gone."""

    rate: Callable[[float], float]
    slow: Callable[[float, int], float] = lambda t, replica: 1.0
    errors: Callable[[float], float] = lambda t: 0.0
    lost: Callable[[float], int] = lambda t: 0
    cv2: float = 1.0


@dataclass
class Second:
    """What one second added to the counters, and the gauges at its end."""

    latencies: np.ndarray
    by_replica: dict[int, np.ndarray]
    queue_s: float = 0.0
    errors: int = 0
    batches: int = 0
    rows: int = 0
    batch_s: float = 0.0
    replica_batches: dict[int, tuple[int, int, float]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    busy_s: float = 0.0
    depth: int = 0
    ready: int = 0
    batch: int = 0
    timeout_ms: float = 0.0
    gaps: tuple[int, float, float] = (0, 0.0, 0.0)


class Replica:
    """One queue and one server; batches that start before the end of a second are formed in it."""

    def __init__(self, number: int, ready_s: float) -> None:
        self.number = number
        self.ready_s = ready_s
        self.free_s = ready_s
        self.queue: list[float] = []
        self.head = 0
        self.due: list[tuple[float, float, list[float]]] = []

    def waiting(self) -> int:
        return len(self.queue) - self.head

    def run(
        self, end_s: float, batch: int, timeout_s: float, time_of: Callable[[int], float]
    ) -> list[tuple[float, float, int]]:
        """Start every batch that starts before `end_s`; (start, duration, rows) of each."""
        queue, started = self.queue, []
        while self.head < len(queue):
            oldest = queue[self.head]
            start = oldest + timeout_s
            if len(queue) - self.head >= batch:
                start = min(start, queue[self.head + batch - 1])
            start = max(start, self.free_s, oldest)
            if start >= end_s:
                break
            rows = min(batch, bisect_right(queue, start, self.head) - self.head)
            took = time_of(rows)
            self.free_s = start + took
            self.due.append((self.free_s, start, queue[self.head : self.head + rows]))
            started.append((start, took, rows))
            self.head += rows
        if self.head > 5000:
            del queue[: self.head]
            self.head = 0
        return started


class SimulatedService:
    """The service under a policy's hands. `advance(t)` runs it; `set_*` are what levers do."""

    def __init__(
        self, profile: Profile, faults: Faults, *, batch: int, timeout_ms: float, replicas: int, seed: int
    ) -> None:
        self.profile, self.faults = profile, faults
        self.batch, self.timeout_ms, self.int8 = batch, timeout_ms, False
        self.desired = replicas
        self.now_s = 0.0
        self.seconds: list[Second] = []
        self.rng = np.random.default_rng(seed)
        self.load_rng = np.random.default_rng(seed + 10_000)
        self.replicas = [Replica(i, 0.0) for i in range(replicas)]
        self.number = replicas
        self.pending: list[tuple[float, dict[str, float]]] = []
        self.factors: list[float] = []
        self.stream = np.cumsum(self._gaps())
        self.position = 0.0
        self.last_arrival = 0.0
        self.replica_s = 0.0

    def _gaps(self) -> np.ndarray:
        """A block of gaps of a unit-rate renewal stream: balanced hyperexponential above cv2 1."""
        cv2, count = self.faults.cv2, 4096
        gaps = self.load_rng.standard_exponential(count)
        if cv2 <= 1.0:
            return gaps
        p = 0.5 * (1 + math.sqrt((cv2 - 1) / (cv2 + 1)))
        return gaps / np.where(self.load_rng.random(count) < p, 2 * p, 2 * (1 - p))

    def _next_factor(self) -> float:
        """The next service time's lognormal factor, of mean 1."""
        if not self.factors:
            sigma = math.sqrt(math.log1p(self.profile.spread**2))
            self.factors = np.exp(sigma * self.rng.standard_normal(4096) - sigma * sigma / 2).tolist()
        return self.factors.pop()

    # Levers ---------------------------------------------------------------------------------------------------

    def set_batch(self, batch: int, timeout_ms: float, delay_s: float = 2.0) -> None:
        self.pending.append((self.now_s + delay_s, {"batch": batch, "timeout_ms": timeout_ms}))

    def set_replicas(self, count: int) -> None:
        """New ones are ready after `start_s`; of too many the newest go first, and their queues are handed on."""
        self.desired = count
        while len(self.replicas) < count:
            self.replicas.append(Replica(self.number, self.now_s + self.profile.start_s))
            self.number += 1
        while len(self.replicas) > count:
            self._remove(self.replicas[-1])

    def set_int8(self, on: bool, delay_s: float = 120.0) -> None:
        self.pending.append((self.now_s + delay_s, {"int8": on}))

    def _remove(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        left = replica.queue[replica.head :]
        alive = [r for r in self.replicas if r.ready_s <= self.now_s] or self.replicas
        for k, came in enumerate(left):
            if alive:
                alive[k % len(alive)].queue.append(came)
        for other in alive:
            tail = sorted(other.queue[other.head :])
            other.queue, other.head = tail, 0
        # Batches under way are finished by whoever is left: their latencies are known already.
        if alive:
            alive[0].due.extend(replica.due)

    # Time -----------------------------------------------------------------------------------------------------

    def advance(self, until_s: float) -> None:
        while self.now_s < until_s - 1e-9:
            self._second()

    def _second(self) -> None:
        start, end = self.now_s, self.now_s + 1.0
        for due in [p for p in self.pending if p[0] < end]:
            # Plain values, not functions: a copy of the service must not change the original.
            for name, value in due[1].items():
                setattr(self, name, value)
            self.pending.remove(due)
        self._lose(start)
        record = Second(np.empty(0), {})
        record.gaps = self._arrive(start, end, record)
        for replica in self.replicas:
            self._serve(replica, start, end, record)
        self._complete(end, record)
        ready = [r for r in self.replicas if r.ready_s <= end]
        record.depth = sum(r.waiting() for r in self.replicas)
        record.ready, record.batch, record.timeout_ms = len(ready), self.batch, self.timeout_ms
        self.replica_s += len(self.replicas)
        self.seconds.append(record)
        self.now_s = end

    def _lose(self, t: float) -> None:
        """Lost replicas stay lost: the cluster has no place for them; new ones asked for on top are made elsewhere.

        Of what is asked for and has no place, replicas that have not started yet go first: working ones stay.
        """
        keep = max(1, self.desired - self.faults.lost(t))
        while len(self.replicas) > keep:
            starting = [r for r in self.replicas if r.ready_s > t]
            self._remove(starting[-1] if starting else self.replicas[0])

    def _arrive(self, start: float, end: float, record: Second) -> tuple[int, float, float]:
        rate = max(1e-9, self.faults.rate(start))
        until = self.position + rate
        while self.stream[-1] <= until:
            self.stream = np.concatenate([self.stream, self.stream[-1] + np.cumsum(self._gaps())])
        count = int(np.searchsorted(self.stream, until))
        times = start + (self.stream[:count] - self.position) / rate
        self.stream, self.position = self.stream[count:], until
        if not count:
            return 0, 0.0, 0.0
        gaps = np.diff(times, prepend=self.last_arrival)
        self.last_arrival = float(times[-1])
        ready = [r for r in self.replicas if r.ready_s <= start] or self.replicas[:1]
        errors = self.faults.errors(start)
        choice = self.load_rng.integers(len(ready), size=count)
        if errors:
            failed = self.load_rng.random(count) < errors
            record.errors += int(failed.sum())
            choice[failed] = -1
        for k, replica in enumerate(ready):
            mine = times[choice == k].tolist()
            room = max(0, self.profile.queue_limit - replica.waiting())
            record.errors += max(0, len(mine) - room)
            replica.queue.extend(mine[:room])
        return count, float(gaps.sum()), float(gaps @ gaps)

    def _serve(self, replica: Replica, start: float, end: float, record: Second) -> None:
        profile = self.profile
        slow = self.faults.slow(start, replica.number) / (profile.int8_gain if self.int8 else 1.0)

        def time_of(rows: int) -> float:
            bend = 1 - profile.curve * min(1.0, (rows - 1) / 31)
            base = (profile.alpha_ms + profile.beta_ms * rows * bend) / 1e3 * slow
            return base * self._next_factor()

        started = replica.run(end, self.batch, self.timeout_ms / 1e3, time_of)
        rows, seconds = 0, 0.0
        for _, took, n in started:
            rows, seconds = rows + n, seconds + took
            batches, total, squares = record.sizes.get(n, (0, 0.0, 0.0))
            record.sizes[n] = (batches + 1, total + took, squares + took * took)
        record.replica_batches[replica.number] = (len(started), rows, seconds)
        record.batches += len(started)
        record.rows += rows
        record.batch_s += seconds
        record.busy_s += seconds

    def _complete(self, end: float, record: Second) -> None:
        everything = []
        for replica in self.replicas:
            mine: list[float] = []
            rest = []
            for finished, started, came in replica.due:
                if finished < end:
                    mine.extend(finished - t for t in came)
                    record.queue_s += started * len(came) - sum(came)
                else:
                    rest.append((finished, started, came))
            replica.due = rest
            values = np.array(mine) + self.profile.overhead_ms / 1e3
            record.by_replica[replica.number] = values
            everything.append(values)
        record.latencies = np.concatenate(everything) if everything else np.empty(0)

    # What really happened -------------------------------------------------------------------------------------

    def p95_ms(self, start_s: float, end_s: float) -> float:
        """True P95 of the requests answered in a span; NaN when there were none."""
        parts = [s.latencies for s in self.seconds[int(start_s) : int(end_s)]]
        values = np.concatenate(parts) if parts else np.empty(0)
        return float(np.quantile(values, 0.95)) * 1e3 if values.size else math.nan
