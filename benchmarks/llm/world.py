"""A served language model, advanced second by second: replicas with continuous batching behind a balancer.

It shares no code and no numbers with the engine's predictor, and holds what that does not know of: an iteration's time
bends with the number of sequences, prompts cost more the longer they are, every token in the cache costs, a slow wave
and noise ride on all of it, cache blocks are whole, and admission keeps a watermark of them free.
All times in seconds since the start.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

WATERMARK = 0.01
"""Share of the cache's blocks that admission keeps free."""


@dataclass(frozen=True)
class Profile:
    """The true model on its GPUs. Times in ms: base of an iteration, per sequence, prompt token, 1,000 cached tokens.

    bend: how much more than its line an iteration takes at 256 sequences. long_prompt: how much more a prompt token
    costs after 8,000 others. wave, noise: relative size of a slow wave and of an iteration's own luck. kv_tokens: room
    of a replica's cache. start_s: until another replica answers; restart_s: until replicas with other limits do.
    """

    name: str
    gpus: int
    base_ms: float
    sequence_ms: float
    prompt_ms: float
    cache_ms: float
    kv_tokens: int
    bend: float = 0.15
    long_prompt: float = 0.3
    wave: float = 0.03
    noise: float = 0.05
    overhead_ms: float = 15.0
    start_s: float = 90.0
    restart_s: float = 60.0
    block: int = 16

    def iteration_s(self, sequences: int, prompt: int, depth: float, cached: float) -> float:
        """One iteration; depth: tokens that precede the prompt's chunk, cached: tokens of all sequences."""
        grows = self.sequence_ms * sequences * (1 + self.bend * sequences / 256)
        reads = self.prompt_ms * prompt * (1 + self.long_prompt * depth / 8000)
        return (self.base_ms + grows + reads + self.cache_ms * cached / 1000) / 1e3


@dataclass(frozen=True)
class Mix:
    """Lengths in tokens: mean and coefficient of variation; hits: share of a prompt that the prefix cache knows."""

    prompt: float
    prompt_cv: float
    output: float
    output_cv: float
    hits: float = 0.0


@dataclass(frozen=True)
class Faults:
    """What goes wrong, as functions of the time (and replica): requests/s, mix, factor on iterations, failed share,
    replicas without a place, factor on the cache's room."""

    rate: Callable[[float], float]
    mix: Callable[[float], Mix]
    slow: Callable[[float, int], float] = lambda t, replica: 1.0
    errors: Callable[[float], float] = lambda t: 0.0
    lost: Callable[[float], int] = lambda t: 0
    room: Callable[[float], float] = lambda t: 1.0
    cv2: float = 1.0


@dataclass(eq=False)
class Sequence:
    """One request. left: prompt tokens to compute; context: tokens in the cache; more: tokens of the answer to come."""

    came: float
    prompt: int
    output: int
    hits: int
    left: int = 0
    context: int = 0
    more: int = 0
    began: float = -1.0
    first: float = -1.0
    last: float = -1.0


@dataclass
class Second:
    """What one second added to counters, and gauges at its end. gaps: (seconds between tokens, how many)."""

    ttft: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    gaps: list[tuple[float, float]] = field(default_factory=list)
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    begun: int = 0
    prompts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    hit_tokens: int = 0
    generated: int = 0
    steps: int = 0
    step_tokens: int = 0
    preempted: int = 0
    came: int = 0
    errors: int = 0
    waiting: int = 0
    running: float = 0.0
    usage: float = 0.0
    ready: int = 0
    sequences: int = 0
    tokens: int = 0


class Replica:
    """One engine: a queue, running sequences, and a cache of whole blocks."""

    def __init__(self, number: int, ready_s: float, limits: tuple[int, int]) -> None:
        self.number, self.ready_s, self.limits = number, ready_s, limits
        self.t = ready_s
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.draining = False

    def blocks(self, size: int) -> int:
        return sum(-(-s.context // size) for s in self.running)

    def run(self, end: float, service: World, record: Second) -> None:
        """Every iteration that starts before `end`."""
        profile, rng = service.profile, service.rng
        size, total = profile.block, int(profile.kv_tokens * service.faults.room(end) / profile.block)
        slow = service.faults.slow(end, self.number) * (1 + profile.wave * math.sin(end / 37 + 2 * self.number))
        self.t = max(self.t, end - 1.0)
        while self.t < end:
            if not self.running and not (self.waiting and self.waiting[0].came <= self.t):
                if not self.waiting or self.waiting[0].came >= end:
                    self.t = end
                    return
                self.t = self.waiting[0].came
            used = self.blocks(size)
            chunks, prompt, depth, used = self._read(profile, used, total, record)
            decoding = [s for s in self.running if s.left == 0]
            if not decoding and not prompt:
                self._stuck(total)
                self.t += 0.01
                continue
            while decoding and used + sum(s.context % size == 0 for s in decoding) > total and len(self.running) > 1:
                used -= self._preempt(record, size)
                chunks = [(s, n) for s, n in chunks if s in self.running]
                prompt = sum(n for _, n in chunks)
                decoding = [s for s in self.running if s.left == 0]
            if not decoding and not prompt:
                continue  # all that could run gave way: what is left finds room in the next iteration
            cached = sum(s.context for s in self.running)
            once = profile.iteration_s(len(decoding), prompt, depth, cached) * slow
            strides = 1 if prompt else self._strides(decoding, end, once, total - used, size)
            took = strides * once * math.exp(profile.noise * rng.standard_normal() / math.sqrt(strides))
            self.t += took
            record.steps += strides
            record.step_tokens += prompt + strides * len(decoding)
            record.running += took * len(self.running)
            self._made(decoding, strides, took / strides, record)
            self._through(chunks, record)

    def _read(
        self, profile: Profile, used: int, total: int, record: Second
    ) -> tuple[list[tuple[Sequence, int]], int, float, int]:
        """(chunks, their tokens, mean depth, blocks in use then): the prompt tokens of the next iteration."""
        most, budget = self.limits
        free = budget - sum(s.left == 0 for s in self.running)
        size, chunks, depth = profile.block, [], 0.0
        for s in [s for s in self.running if s.left > 0]:
            take = min(s.left, free)
            if take > 0 and used + take // size + 1 <= total:
                chunks.append((s, take))
                used, free, depth = used + take // size + 1, free - take, depth + take * s.context
        while self.waiting and self.waiting[0].came <= self.t and free > 0 and len(self.running) < most:
            s = self.waiting[0]
            need = -(-(s.prompt + s.output - s.more) // size)
            if used + min(need, free // size + 1 + s.hits // size) > total * (1 - WATERMARK):
                break
            self.waiting.popleft()
            self.running.append(s)
            s.context = s.hits
            s.left = s.prompt - s.hits + (s.output - s.more)
            if s.began < 0:
                s.began = self.t
                record.queue_s += self.t - s.came
                record.begun += 1
                record.prompt_tokens += s.prompt
                record.hit_tokens += s.hits
            take = min(s.left, free)
            chunks.append((s, take))
            used, free, depth = used + (take + s.hits) // size + 1, free - take, depth + take * s.context
        prompt = sum(n for _, n in chunks)
        return chunks, prompt, depth / prompt if prompt else 0.0, used

    def _strides(self, decoding: list[Sequence], end: float, once: float, free: int, size: int) -> int:
        """Iterations that change nothing: until one ends, a request comes, the second is over or blocks run out."""
        strides = min(s.more for s in decoding)
        strides = min(strides, max(1, math.ceil((end - self.t) / once)))
        if self.waiting and self.waiting[0].came > self.t and len(self.running) < self.limits[0]:
            strides = min(strides, max(1, math.ceil((self.waiting[0].came - self.t) / once)))
        return max(1, min(strides, int(size * free / max(1, len(decoding)))))

    def _made(self, decoding: list[Sequence], strides: int, once: float, record: Second) -> None:
        late = 0
        for s in decoding:
            if s.last < self.t - 1.5 * strides * once - 1e-6:
                record.gaps.append((self.t - s.last - (strides - 1) * once, 1))
                late += 1
            s.context += strides
            s.more -= strides
            s.last = self.t
        count = len(decoding) * strides - late
        if count > 0:
            record.gaps.append((once, count))
        record.generated += len(decoding) * strides
        for s in decoding:
            if s.more <= 0:
                self._end(s, record)

    def _through(self, chunks: list[tuple[Sequence, int]], record: Second) -> None:
        for s, take in chunks:
            s.left -= take
            s.context += take
            if s.left:
                continue
            record.generated += 1
            s.more -= 1
            s.context += 1
            if s.first < 0:
                s.first = self.t
                record.ttft.append(self.t - s.came)
                record.prefill_s += self.t - s.began
            else:
                record.gaps.append((self.t - s.last, 1))
            s.last = self.t
            if s.more <= 0:
                self._end(s, record)

    def _end(self, s: Sequence, record: Second) -> None:
        self.running.remove(s)
        record.e2e.append(self.t - s.came)
        record.decode_s += self.t - s.first
        record.prompts.append(s.prompt)
        record.outputs.append(s.output)

    def _preempt(self, record: Second, size: int) -> int:
        s = self.running.pop()
        freed = -(-s.context // size)
        s.context, s.left = 0, 0
        self.waiting.appendleft(s)
        record.preempted += 1
        return freed

    def _stuck(self, total: int) -> None:
        """A prompt that the cache can never hold is refused."""
        if not self.running and self.waiting:
            self.waiting.popleft()
        elif len(self.running) > 1:
            s = self.running.pop()
            s.context, s.left = 0, 0
            self.waiting.appendleft(s)
        elif self.running:
            self.running.pop()


class World:
    """The service under a policy's hands. `advance(t)` runs it; `set_*` are what levers do."""

    def __init__(
        self, profile: Profile, faults: Faults, *, sequences: int, tokens: int, replicas: int, seed: int
    ) -> None:
        self.profile, self.faults = profile, faults
        self.limits, self.desired = (sequences, tokens), replicas
        self.rng, self.load = np.random.default_rng(seed), np.random.default_rng(seed + 10_000)
        self.now_s, self.number, self.replica_s = 0.0, replicas, 0.0
        self.seconds: list[Second] = []
        self.replicas = [Replica(i, 0.0, self.limits) for i in range(replicas)]
        self.old: list[Replica] = []
        self.pending: tuple[float, tuple[int, int]] | None = None
        self.next_s = 0.0

    def twin(self) -> World:
        """A copy that goes its own way from here."""
        kept, self.seconds = self.seconds, []
        twin = copy.deepcopy(self)
        self.seconds, twin.seconds = kept, list(kept)
        return twin

    def __deepcopy__(self, memo: dict[int, object]) -> World:
        twin = copy.copy(self)
        for name in ("rng", "load", "replicas", "old", "seconds"):
            setattr(twin, name, copy.deepcopy(getattr(self, name), memo))
        return twin

    def set_limits(self, sequences: int, tokens: int) -> None:
        """Replicas with the new limits come up beside the old ones, which end what they have begun."""
        self.pending = (self.now_s + self.profile.restart_s, (sequences, tokens))

    def set_replicas(self, count: int) -> None:
        self.desired = count
        while len(self.replicas) < count:
            self.replicas.append(Replica(self.number, self.now_s + self.profile.start_s, self.limits))
            self.number += 1
        while len(self.replicas) > count:
            self._remove(self.replicas[-1])

    def _remove(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self.old.append(replica)
        self._hand_on(replica)

    def _hand_on(self, replica: Replica) -> None:
        ready = [r for r in self.replicas if r.ready_s <= self.now_s] or self.replicas
        for k, s in enumerate(list(replica.waiting)):
            ready[k % len(ready)].waiting.append(s)
        replica.waiting.clear()
        for r in ready:
            r.waiting = deque(sorted(r.waiting, key=lambda s: s.came))

    def advance(self, until_s: float) -> None:
        while self.now_s < until_s - 1e-9:
            self._second()

    def _second(self) -> None:
        start, end = self.now_s, self.now_s + 1.0
        if self.pending is not None and self.pending[0] <= start:
            self._restart(self.pending[1])
        keep = max(1, self.desired - self.faults.lost(start))
        while len(self.replicas) > keep:
            starting = [r for r in self.replicas if r.ready_s > start]
            gone = starting[-1] if starting else self.replicas[0]
            self.replicas.remove(gone)
            # What a lost replica had begun begins again elsewhere.
            for s in reversed(gone.running):
                s.context = s.left = 0
                s.more, s.began, s.first = s.output, -1.0, -1.0
                gone.waiting.appendleft(s)
            self._hand_on(gone)
        record = Second()
        self._arrive(start, end, record)
        for replica in (*self.replicas, *self.old):
            if replica.ready_s < end:
                replica.run(end, self, record)
        self.old = [r for r in self.old if r.running or r.waiting]
        self._gauges(end, record)
        self.replica_s += len(self.replicas)
        self.seconds.append(record)
        self.now_s = end

    def _restart(self, limits: tuple[int, int]) -> None:
        self.limits, self.pending = limits, None
        before = self.replicas
        self.replicas = [Replica(self.number + k, max(self.now_s, r.ready_s), limits) for k, r in enumerate(before)]
        self.number += len(before)
        for replica in before:
            self.old.append(replica)
            self._hand_on(replica)

    def _arrive(self, start: float, end: float, record: Second) -> None:
        rate, mix = max(1e-6, self.faults.rate(start)), self.faults.mix(start)
        ready = [r for r in self.replicas if r.ready_s <= start] or self.replicas[:1]
        while self.next_s < end:
            at, self.next_s = max(self.next_s, start), self.next_s + self._gap() / rate
            record.came += 1
            if self.load.random() < self.faults.errors(start):
                record.errors += 1
                continue
            prompt = self._length(mix.prompt, mix.prompt_cv)
            output = self._length(mix.output, mix.output_cv)
            hits = min(prompt - 1, int(mix.hits * prompt))
            # The balancer asks two at random and takes the one with less to do.
            asked = [ready[int(k)] for k in self.load.permutation(len(ready))[:2]]
            chosen = min(asked, key=lambda r: len(r.waiting) + len(r.running))
            chosen.waiting.append(Sequence(at, prompt, output, hits, more=output))
        self.next_s = max(self.next_s, start)

    def _gap(self) -> float:
        cv2 = self.faults.cv2
        if cv2 < 1.0:
            return float(self.load.gamma(1 / cv2, cv2))
        p = 0.5 * (1 + math.sqrt((cv2 - 1) / (cv2 + 1)))
        return float(self.load.exponential() / (2 * p if self.load.random() < p else 2 * (1 - p)))

    def _length(self, mean: float, cv: float) -> int:
        return max(2, round(self.load.gamma(1 / cv**2, mean * cv**2)))

    def _gauges(self, end: float, record: Second) -> None:
        size = self.profile.block
        total = self.profile.kv_tokens * self.faults.room(end) / size
        record.ready = sum(r.ready_s <= end for r in self.replicas)
        record.waiting = sum(len(r.waiting) for r in self.replicas)
        live = [r for r in self.replicas if r.ready_s <= end] or self.replicas
        record.usage = float(np.mean([min(1.0, r.blocks(size) / total) for r in live]))
        record.sequences, record.tokens = self.limits

    # What is true ------------------------------------------------------------------------------------------------

    def p95_ms(self, signal: str, start_s: float, end_s: float) -> float:
        """The true 95th percentile of "ttft_p95_ms" or "itl_p95_ms" in a stretch; NaN where nothing was answered."""
        part = self.seconds[int(start_s) : int(end_s)]
        if signal == "ttft_p95_ms":
            values = [v for s in part for v in s.ttft]
            return 1e3 * float(np.quantile(values, 0.95)) + self.profile.overhead_ms if values else math.nan
        gaps = np.array([g for s in part for g in s.gaps])
        if not gaps.size:
            return math.nan
        order = np.argsort(gaps[:, 0])
        below = np.cumsum(gaps[order, 1])
        return 1e3 * float(gaps[order, 0][int(np.searchsorted(below, 0.95 * below[-1]))])
