"""A batching server with replicas, request by request: what a setting would have led to while queues come and go.

The queue of tuning.planning.whatif (a batch starts when it is full or its oldest request has waited long enough) with
a load and a speed that change from step to step and queues that are kept between them, which no steady state shows.
Times in seconds; what is drawn follows from the seed alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from detection.model import FloatArray
from tuning.planning.whatif import arrivals

_BLOCK = 4096
_PART_SHARE, _PARTS = 0.1, 200
"""Where queues may be full, no more than this share of one comes at once (or a second's requests), in so many parts."""


@dataclass(frozen=True)
class Step:
    """What happened in one step. latencies_ms: of what was answered, each with the same weight. answered, failed:
    requests. wait_s: seconds that the answered waited in queues, in all. batches, rows, batch_s: started. depth:
    requests that wait at its end. ready: replicas that run."""

    latencies_ms: FloatArray
    answered: float
    failed: float
    wait_s: float
    batches: float
    rows: float
    batch_s: float
    depth: float
    ready: int


@dataclass(frozen=True)
class Now:
    """The causes during one step. rate: requests per second; failed: share of them. alpha_s, beta_s: of a batch now."""

    rate: float
    cv2: float
    failed: float
    batch: int
    timeout_s: float
    alpha_s: float
    beta_s: float
    ready: int


@dataclass
class _Replica:
    """One queue (arrival times, ascending, from `head` on) and when its server is free."""

    free_s: float
    queue: list[float] = field(default_factory=list)
    head: int = 0

    def waiting(self) -> int:
        return len(self.queue) - self.head


class BatchQueue:
    """Advanced by `step`; `waiting` requests are there at the start, come evenly over the time that they waited."""

    def __init__(
        self, at_s: float, now: Now, waiting: float, *, spread: float, overhead_ms: float, limit: int | None, seed: int
    ) -> None:
        self.now_s = at_s
        self._sigma = math.sqrt(math.log1p(spread**2))
        self._overhead_ms, self._limit = overhead_ms, limit
        self._rng = np.random.default_rng(seed)
        self._seed, self._blocks = seed, 0
        self._stream, self._position = np.empty(0), 0.0
        self._factors: list[float] = []
        self._due: list[tuple[FloatArray, FloatArray, FloatArray]] = []
        self._replicas = [_Replica(at_s) for _ in range(max(1, now.ready))]
        each = round(waiting / len(self._replicas))
        if each > 0 and now.rate > 0:
            capacity = len(self._replicas) * now.batch / (now.alpha_s + now.beta_s * now.batch)
            waited_s = waiting / max(capacity, 1e-9)
            for replica in self._replicas:
                replica.queue = np.linspace(at_s - waited_s, at_s, each, endpoint=False).tolist()

    @property
    def depth(self) -> int:
        return sum(replica.waiting() for replica in self._replicas)

    def step(self, end_s: float, now: Now) -> Step:
        """From where it stands to `end_s` under the causes `now`."""
        self._resize(max(1, now.ready))
        failed = batches = rows = batch_s = 0.0
        begin_s, parts = self.now_s, self._parts(end_s, now)
        for part in range(1, parts + 1):
            until_s = begin_s + (end_s - begin_s) * part / parts
            failed += self._arrive(until_s, now)
            made, took, seconds = self._serve(until_s, now)
            batches, rows, batch_s = batches + made, rows + took, batch_s + seconds
            self.now_s = until_s
        latencies, wait_s = self._complete(end_s)
        return Step(latencies, float(latencies.size), failed, wait_s, batches, rows, batch_s, self.depth, now.ready)

    def _parts(self, end_s: float, now: Now) -> int:
        """In how many parts a step is taken: more than one where a queue may be full, because what is refused depends
        on what has been served in the meantime."""
        come = now.rate * (end_s - self.now_s) / len(self._replicas)
        if self._limit is None or max(r.waiting() for r in self._replicas) + 2 * come < self._limit:
            return 1
        return math.ceil(min(_PARTS, max(end_s - self.now_s, come / max(1.0, _PART_SHARE * self._limit))))

    def _resize(self, count: int) -> None:
        """More begin with an empty queue; of fewer the newest go, and the others take their queues."""
        while len(self._replicas) < count:
            self._replicas.append(_Replica(self.now_s))
        while len(self._replicas) > count:
            gone = self._replicas.pop()
            left = gone.queue[gone.head :]
            for k, other in enumerate(self._replicas):
                mine = left[k :: len(self._replicas)]
                if mine:
                    other.queue = sorted(other.queue[other.head :] + mine)
                    other.head = 0

    def _arrive(self, end_s: float, now: Now) -> float:
        rate = max(now.rate, 1e-9)
        until = self._position + rate * (end_s - self.now_s)
        while not self._stream.size or self._stream[-1] <= until:
            last = float(self._stream[-1]) if self._stream.size else self._position
            self._blocks += 1
            more = arrivals(_BLOCK, now.cv2, self._seed + 104_729 * self._blocks)
            self._stream = np.concatenate([self._stream, last + more])
        count = int(np.searchsorted(self._stream, until))
        times = self.now_s + (self._stream[:count] - self._position) / rate
        self._stream, self._position = self._stream[count:], until
        choice = self._rng.integers(len(self._replicas), size=count)
        lost = 0.0
        if now.failed > 0:
            broken = self._rng.random(count) < now.failed
            choice[broken] = -1
            lost += float(broken.sum())
        for k, replica in enumerate(self._replicas):
            mine = times[choice == k].tolist()
            if self._limit is not None and len(mine) > (room := max(0, self._limit - replica.waiting())):
                lost += len(mine) - room
                mine = mine[:room]
            replica.queue.extend(mine)
        return lost

    def _serve(self, end_s: float, now: Now) -> tuple[float, float, float]:
        times_s = [now.alpha_s + now.beta_s * k for k in range(now.batch + 1)]
        batches = rows = 0
        seconds = 0.0
        for replica in self._replicas:
            if replica.waiting():
                made, took, of_time = self._run(replica, end_s, now.batch, now.timeout_s, times_s)
                batches, rows, seconds = batches + made, rows + took, seconds + of_time
        return float(batches), float(rows), seconds

    def _run(
        self, replica: _Replica, end_s: float, batch: int, timeout_s: float, times_s: list[float]
    ) -> tuple[int, int, float]:
        """Start every batch of one replica that starts before `end_s`: (batches, rows, their seconds).

        Plain numbers in one pass: this loop is what a rehearsal's incidents cost.
        """
        queue, head, free, count = replica.queue, replica.head, replica.free_s, len(replica.queue)
        starts: list[float] = []
        ends: list[float] = []
        sizes: list[int] = []
        factors = self._factors
        while head < count:
            last = head + batch
            start = queue[head] + timeout_s
            if last <= count and queue[last - 1] < start:
                start = queue[last - 1]
            if free > start:
                start = free
            if start >= end_s:
                break
            size = batch if last <= count and queue[last - 1] <= start else (
                bisect_right(queue, start, head, min(last, count)) - head
            )  # fmt: skip
            if not factors:
                self._factors = factors = self._draw()
            free = start + times_s[size] * factors.pop()
            starts.append(start)
            ends.append(free)
            sizes.append(size)
            head += size
        if not starts:
            return 0, 0, 0.0
        came = np.array(queue[replica.head : head])
        self._due.append((np.repeat(ends, sizes), np.repeat(starts, sizes), came))
        replica.free_s, replica.head = free, head
        if head > _BLOCK:
            del queue[:head]
            replica.head = 0
        return len(starts), int(came.size), float(np.sum(ends) - np.sum(starts))

    def _draw(self) -> list[float]:
        """Lognormal factors on batch times, of mean 1."""
        z = self._rng.standard_normal(_BLOCK)
        return [float(f) for f in np.exp(self._sigma * z - self._sigma**2 / 2)]

    def _complete(self, end_s: float) -> tuple[FloatArray, float]:
        """Latencies of what is answered by `end_s` (ms), and the seconds that it waited."""
        if not self._due:
            return np.empty(0), 0.0
        ends, starts, came = (np.concatenate(part) for part in zip(*self._due, strict=True))
        over = ends < end_s
        self._due = [(ends[~over], starts[~over], came[~over])] if not over.all() else []
        latencies = 1e3 * (ends[over] - came[over]) + self._overhead_ms
        return latencies, float((starts[over] - came[over]).sum())
