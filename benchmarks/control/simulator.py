"""A discrete-event inference service: replicas with batch queues behind a balancer, advanced second by second.

It knows nothing of slotune's what-if: batches are started one by one from real queues, service times are drawn per
batch, replicas start late and die, counters are kept as a server exports them. All times in seconds since the start.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace

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
    """What goes wrong, as functions of the time. slow(t, replica): factor on batch times. lost(t): replicas gone.

    cv2: squared coefficient of variation of the gaps between arrivals. silent(t): whether nothing is scraped any more.
    """

    rate: Callable[[float], float]
    slow: Callable[[float, int], float] = lambda t, replica: 1.0
    errors: Callable[[float], float] = lambda t: 0.0
    lost: Callable[[float], int] = lambda t: 0
    cv2: float = 1.0
    silent: Callable[[float], bool] = lambda t: False


@dataclass
class Second:
    """What one second added to the counters, and the gauges at its end. sizes: batches, seconds and squared seconds by
    rows, shape (3, rows + 1)."""

    latencies: np.ndarray
    by_replica: dict[int, np.ndarray]
    queue_s: float = 0.0
    errors: int = 0
    batches: int = 0
    rows: int = 0
    batch_s: float = 0.0
    replica_batches: dict[int, tuple[int, int, float]] = field(default_factory=dict)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((3, 1)))
    busy_s: float = 0.0
    depth: int = 0
    ready: int = 0
    batch: int = 0
    timeout_ms: float = 0.0
    gaps: tuple[int, float, float] = (0, 0.0, 0.0)
    silent: bool = False


class Replica:
    """One queue and one server; batches that start before the end of a second are formed in it.

    due: batches under way, as arrays with one entry per request: (when its batch ends, starts, when it came).
    """

    def __init__(self, number: int, ready_s: float) -> None:
        self.number = number
        self.ready_s = ready_s
        self.free_s = ready_s
        self.queue: list[float] = []
        self.head = 0
        self.due = np.empty((3, 0))

    def __deepcopy__(self, memo: object) -> Replica:
        twin = Replica(self.number, self.ready_s)
        # Arrays are replaced and never changed: the twin may share them.
        twin.free_s, twin.queue, twin.due = self.free_s, self.queue[self.head :], self.due
        return twin

    def waiting(self) -> int:
        return len(self.queue) - self.head

    def run(
        self, end_s: float, batch: int, timeout_s: float, times_s: list[float], factors: Factors
    ) -> tuple[list[float], list[int]]:
        """Start every batch that starts before `end_s`: (duration, rows) of each, as two lists.

        times_s: the mean duration of a batch by its rows. One pass per batch, in plain numbers: this loop is what a
        simulation costs, so it calls as little as it can.
        """
        queue, head, free, n = self.queue, self.head, self.free_s, len(self.queue)
        starts: list[float] = []
        ends: list[float] = []
        sizes: list[int] = []
        values = factors.values
        while head < n:
            last = head + batch
            start = queue[head] + timeout_s
            if last <= n and queue[last - 1] < start:
                start = queue[last - 1]
            if free > start:
                start = free
            if start >= end_s:
                break
            if last <= n and queue[last - 1] <= start:
                rows = batch
            else:
                rows = bisect_right(queue, start, head, last if last < n else n) - head
            if not values:
                values = factors.refill()
            free = start + times_s[rows] * values.pop()
            starts.append(start)
            ends.append(free)
            sizes.append(rows)
            head += rows
        if not starts:
            return [], []
        came = queue[self.head : head]
        of_each = np.repeat(np.array((ends, starts)), sizes, axis=1)
        self.due = np.concatenate([self.due, np.vstack([of_each, came])], axis=1)
        self.free_s, self.head = free, head
        if head > 5000:
            del queue[:head]
            self.head = 0
        return [e - s for e, s in zip(ends, starts, strict=True)], sizes


class Factors:
    """Lognormal factors of batch times, of mean 1, drawn in blocks and used one by one."""

    def __init__(self, spread: float, rng: np.random.Generator) -> None:
        self.sigma, self.rng = math.sqrt(math.log1p(spread**2)), rng
        self.values: list[float] = []

    def refill(self) -> list[float]:
        """A block of 4096, used from its end."""
        self.values = np.exp(self.sigma * self.rng.standard_normal(4096) - self.sigma * self.sigma / 2).tolist()
        return self.values


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
        self.factors = Factors(profile.spread, np.random.default_rng(seed))
        self.load_rng = np.random.default_rng(seed + 10_000)
        self.replicas = [Replica(i, 0.0) for i in range(replicas)]
        self.number = replicas
        self.pending: list[tuple[float, dict[str, float]]] = []
        self.stream = np.cumsum(self._gaps())
        self.position = 0.0
        self.last_arrival = 0.0
        self.replica_s = 0.0

    def __deepcopy__(self, memo: dict[int, object]) -> SimulatedService:
        """A twin that goes its own way from here. What has happened, it shares: seconds are made once."""
        twin = copy.copy(self)
        for name in ("factors", "load_rng", "replicas", "pending"):
            setattr(twin, name, copy.deepcopy(getattr(self, name), memo))
        twin.seconds = list(self.seconds)
        return twin

    def _gaps(self) -> np.ndarray:
        """A block of gaps of a unit-rate renewal stream: balanced hyperexponential above cv2 1, gamma below it."""
        cv2, count = self.faults.cv2, 4096
        if cv2 < 1.0:
            return self.load_rng.standard_gamma(1.0 / cv2, count) * cv2
        gaps = self.load_rng.standard_exponential(count)
        if cv2 == 1.0:
            return gaps
        p = 0.5 * (1 + math.sqrt((cv2 - 1) / (cv2 + 1)))
        return gaps / np.where(self.load_rng.random(count) < p, 2 * p, 2 * (1 - p))

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

    def set_queue_limit(self, limit: int) -> None:
        self.profile = replace(self.profile, queue_limit=limit)

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
            alive[0].due = np.concatenate([alive[0].due, replica.due], axis=1)

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
        record.silent = self.faults.silent(start)
        self._serve(start, end, record)
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
            # What is served before the second is over leaves its place to what comes later in it.
            room = max(0, self.profile.queue_limit + int(self._full_rate(start, replica)) - replica.waiting())
            record.errors += max(0, len(mine) - room)
            replica.queue.extend(self._let_in(mine, room))
        return count, float(gaps.sum()), float(gaps @ gaps)

    def _let_in(self, times_s: list[float], room: int) -> list[float]:
        """Which of a second's requests to a replica find a place; room: how many do."""
        return times_s[:room]

    def _full_rate(self, t: float, replica: Replica) -> float:
        """Requests per second that a replica answers when every batch is full."""
        profile, batch = self.profile, self.batch
        bend = 1 - profile.curve * min(1.0, (batch - 1) / 31)
        slow = self.faults.slow(t, replica.number) / (profile.int8_gain if self.int8 else 1.0)
        return batch / ((profile.alpha_ms + profile.beta_ms * batch * bend) / 1e3 * slow)

    def _serve(self, start: float, end: float, record: Second) -> None:
        profile, all_took, all_rows = self.profile, [], []
        sizes = np.arange(self.batch + 1)
        bend = 1 - profile.curve * np.minimum(1.0, (sizes - 1) / 31)
        base_s = (profile.alpha_ms + profile.beta_ms * sizes * bend) / 1e3
        for replica in self.replicas:
            if not replica.waiting():
                continue
            slow = self.faults.slow(start, replica.number) / (profile.int8_gain if self.int8 else 1.0)
            times = (base_s * slow).tolist()
            took, rows = replica.run(end, self.batch, self.timeout_ms / 1e3, times, self.factors)
            record.replica_batches[replica.number] = (len(rows), sum(rows), sum(took))
            all_took += took
            all_rows += rows
        if all_rows:
            seconds = np.array(all_took)
            counts = [np.bincount(all_rows), *(np.bincount(all_rows, w) for w in (seconds, seconds * seconds))]
            record.sizes = np.array(counts)
            record.batches, record.rows, record.batch_s = len(all_rows), sum(all_rows), float(seconds.sum())
        record.busy_s = record.batch_s

    def _complete(self, end: float, record: Second) -> None:
        everything = []
        for replica in self.replicas:
            if not replica.due.size:
                continue
            over = replica.due[0] < end
            ended, started, came = replica.due[:, over]
            replica.due = replica.due[:, ~over]
            record.queue_s += float((started - came).sum())
            values = ended - came + self.profile.overhead_ms / 1e3
            record.by_replica[replica.number] = values
            everything.append(values)
        record.latencies = np.concatenate(everything) if everything else np.empty(0)

    # What really happened -------------------------------------------------------------------------------------

    def p95_ms(self, start_s: float, end_s: float) -> float:
        """True P95 of the requests answered in a span; NaN when there were none."""
        parts = [s.latencies for s in self.seconds[int(start_s) : int(end_s)]]
        values = np.concatenate(parts) if parts else np.empty(0)
        return float(np.quantile(values, 0.95)) * 1e3 if values.size else math.nan
