"""Event simulation of one replica with continuous batching, as vLLM's scheduler works (v1, chunked prefill on).

Every iteration first gives each running sequence one token, then fills what is left of `max_num_batched_tokens` with
prompt tokens: of sequences whose prompt is not through, then of waiting ones, first come first served, up to
`max_num_seqs` sequences and while the KV cache has room for the chunk. Where a running sequence finds no room, the one
admitted last gives all of its room back and waits at the head of the queue; what it had computed is computed again
(preemption by recomputation: Kwon et al., "Efficient memory management for large language model serving with
PagedAttention", 2023, sec. 4.5; chunked prefill: Agrawal et al., "Taming throughput-latency tradeoff in LLM inference
with Sarathi-Serve", 2024). An iteration takes

    base + per_sequence * (running sequences) + per_prefill * (prompt tokens) + per_kv * (tokens in the cache)   [ms]

With per_prefill and per_kv at 0 this is the decode time a + b n of llm-d's queue analyser
(pkg/analyzer/queueanalyzer.go) and the linear regime of AIConfigurator's decode tables. Iterations without prompt
tokens and without a change of who runs are taken in one stride, so that the cost goes with the requests and not with
their tokens.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from detection.model import FloatArray
from tuning.planning import thresholds as th


@dataclass(frozen=True)
class StepTime:
    """Time of an iteration in ms: base_ms, and what each running sequence, prompt token and cached token adds."""

    base_ms: float
    sequence_ms: float
    prefill_ms: float
    kv_ms: float = 0.0

    def scaled(self, factor: float) -> StepTime:
        return StepTime(factor * self.base_ms, factor * self.sequence_ms, factor * self.prefill_ms, factor * self.kv_ms)


@dataclass(frozen=True)
class Limits:
    """What the server was started with. kv_tokens: tokens that its cache holds, inf where nothing tells."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: float = math.inf
    block_tokens: int = 16


@dataclass(frozen=True)
class Requests:
    """What comes to one replica, in order of arrival; shape (k,) each.

    at_s: when. prompt: tokens that have to be computed (prefix hits taken off). cached: those that need not, but take
    room. output: tokens of the answer, at least 1. running: how many of the first are under way at time 0 already,
    `done` tokens of their answers made.
    """

    at_s: list[float]
    prompt: list[int]
    cached: list[int]
    output: list[int]
    running: int = 0
    done: tuple[int, ...] = ()


@dataclass
class Run:
    """What was seen. ttft_s, e2e_s: by request, NaN where it did not come to that. itl_s, itl_weight: gaps between
    tokens with how many there were; itl_reads: whether a prompt was read meanwhile. preempted: at what times. tokens,
    ended_s: how much was generated until when.
    """

    ttft_s: FloatArray
    e2e_s: FloatArray
    itl_s: list[float] = field(default_factory=list)
    itl_at_s: list[float] = field(default_factory=list)
    itl_weight: list[float] = field(default_factory=list)
    itl_reads: list[bool] = field(default_factory=list)
    preempted: list[float] = field(default_factory=list)
    tokens: float = 0.0
    busy_s: float = 0.0
    ended_s: float = 0.0
    drained_s: float = math.inf
    finished: list[float] = field(default_factory=list)


def simulate(requests: Requests, step: StepTime, limits: Limits) -> Run:
    """Until every request has its answer. Deterministic; times in seconds since the start."""
    return _Replica(requests, step, limits).run()


class _Replica:
    """The scheduler's state. `order`: admitted sequences, oldest first; `ends`: (iteration at which it is done, id)."""

    def __init__(self, requests: Requests, step: StepTime, limits: Limits) -> None:
        count = len(requests.at_s)
        self.requests, self.limits = requests, limits
        self.a, self.b = step.base_ms / 1e3, step.sequence_ms / 1e3
        self.c, self.d = step.prefill_ms / 1e3, step.kv_ms / 1e3
        self.t, self.iteration, self.kv, self.decoding = 0.0, 0, 0.0, 0
        self.waiting: deque[int] = deque()
        self.prefilling: list[int] = []
        self.order: list[int] = []
        self.ends: list[tuple[int, int]] = []
        self.left = list(requests.prompt)
        self.made = [0] * count
        self.end_of = [-1] * count
        self.held = [0.0] * count
        self.gap_from = [-1.0] * count
        self.out = Run(np.full(count, math.nan), np.full(count, math.nan))

    def run(self) -> Run:
        self._start()
        at_s, count = self.requests.at_s, len(self.requests.at_s)
        nxt = self.requests.running
        for _ in range(th.STRIDES_MAX):
            while nxt < count and at_s[nxt] <= self.t:
                self.waiting.append(nxt)
                nxt += 1
            if not self.decoding and not self.prefilling and not self.waiting:
                if nxt >= count:
                    break
                self.out.drained_s = min(self.out.drained_s, self.t)
                self.t = at_s[nxt]
                continue
            if not self.waiting:
                self.out.drained_s = min(self.out.drained_s, self.t)
            chunks, tokens = self._prompts() if self.waiting or self.prefilling else ([], 0)
            if tokens:
                self._mixed(chunks, tokens)
            elif self.decoding:
                self._decode(at_s[nxt] if nxt < count else math.inf)
            elif not self._give_room():
                break
        self.out.ended_s = self.t
        return self.out

    def _start(self) -> None:
        for k in range(self.requests.running):
            self.made[k], self.left[k] = self.requests.done[k], 0
            self.held[k] = self.requests.prompt[k] + self.requests.cached[k] + self.made[k]
            self.kv += self.held[k]
            self.order.append(k)
            self._decodes(k)

    def _room(self) -> float:
        """Tokens that the cache still takes: every sequence leaves half a block empty on average."""
        sequences = self.decoding + len(self.prefilling)
        return self.limits.kv_tokens - self.kv - sequences * self.limits.block_tokens / 2

    def _prompts(self) -> tuple[list[tuple[int, int]], int]:
        """The prompt tokens of this iteration: (sequence, tokens) and their sum; waiting sequences are admitted."""
        budget = self.limits.max_num_batched_tokens - self.decoding
        room = self._room() - self.decoding
        chunks, tokens = [], 0
        for k in self.prefilling:
            take = int(min(self.left[k], budget - tokens, max(0.0, room)))
            if take <= 0:
                break
            chunks.append((k, take))
            tokens, room = tokens + take, room - take
        waiting, seats = self.waiting, self.limits.max_num_seqs - self.decoding - len(self.prefilling)
        while waiting and seats > 0 and budget > tokens:
            k = waiting[0]
            cached = self.requests.cached[k]
            take = min(self.left[k], budget - tokens)
            if take + cached + self.limits.block_tokens / 2 > room:
                break
            waiting.popleft()
            self.prefilling.append(k)
            self.order.append(k)
            self.held[k] = cached
            self.kv += cached
            chunks.append((k, take))
            tokens, room, seats = tokens + take, room - take - cached - self.limits.block_tokens / 2, seats - 1
        return chunks, tokens

    def _mixed(self, chunks: list[tuple[int, int]], tokens: int) -> None:
        """One iteration with prompt tokens in it."""
        while self.decoding and self._room() < 0:
            if not self._preempt():
                break
        took = self.a + self.b * self.decoding + self.c * tokens + self.d * self.kv
        self._advance(1, took, reads=True)
        for k, take in chunks:
            if self.left[k] <= 0 or self.held[k] < 0:
                continue
            self.left[k] -= take
            self.held[k] += take
            self.kv += take
            if self.left[k] <= 0:
                self.prefilling.remove(k)
                self._first(k)
        self._complete()

    def _first(self, k: int) -> None:
        """The prompt is through: its first token, or the next one after a preemption."""
        out = self.out
        if self.gap_from[k] >= 0:
            out.itl_s.append(self.t - self.gap_from[k])
            out.itl_at_s.append(self.t)
            out.itl_weight.append(1.0)
            out.itl_reads.append(True)
            self.gap_from[k] = -1.0
        else:
            out.ttft_s[k] = self.t - self.requests.at_s[k]
        out.tokens += 1
        self.made[k] += 1
        self.held[k] += 1
        self.kv += 1
        if self.made[k] >= self.requests.output[k]:
            self.end_of[k] = self.iteration
            self._done(k)
        else:
            self._decodes(k)

    def _decodes(self, k: int) -> None:
        self.decoding += 1
        end = self.iteration + max(1, self.requests.output[k] - self.made[k])
        self.end_of[k] = end
        heappush(self.ends, (end, k))

    def _decode(self, next_s: float) -> None:
        """As many iterations at once as change nothing but the lengths."""
        n, step = self.decoding, self.a + self.b * self.decoding + self.d * self.kv
        while self.ends and self.end_of[self.ends[0][1]] != self.ends[0][0]:
            heappop(self.ends)
        strides = self.ends[0][0] - self.iteration
        if not self.waiting and n < self.limits.max_num_seqs and next_s < math.inf:
            strides = min(strides, max(1, math.ceil((next_s - self.t) / step)))
        room = self._room()
        if room < n * strides:
            strides = int(room // n)
            if strides < 1:
                if not self._preempt():
                    strides = 1
                else:
                    return
        # The cache grows by n tokens in each iteration.
        self._advance(strides, step + self.d * n * (strides - 1) / 2)
        self._complete()

    def _advance(self, strides: int, took: float, *, reads: bool = False) -> None:
        n, out = self.decoding, self.out
        self.t += strides * took
        out.busy_s += strides * took
        self.iteration += strides
        if n:
            out.itl_s.append(took)
            out.itl_at_s.append(self.t)
            out.itl_weight.append(n * strides)
            out.itl_reads.append(reads)
            out.tokens += n * strides
            self.kv += n * strides

    def _complete(self) -> None:
        while self.ends and self.ends[0][0] <= self.iteration:
            end, k = heappop(self.ends)
            if self.end_of[k] == end:
                self.decoding -= 1
                self.held[k] += self.requests.output[k] - self.made[k]
                self.made[k] = self.requests.output[k]
                self._done(k)

    def _done(self, k: int) -> None:
        self.kv -= self.held[k]
        self.held[k], self.end_of[k] = -1.0, -1
        self.out.e2e_s[k] = self.t - self.requests.at_s[k]
        self.out.finished.append(self.t)

    def _preempt(self) -> bool:
        """The sequence admitted last gives its room back and waits first; False where it is the only one."""
        order = self.order
        while order and self.held[order[-1]] < 0:
            order.pop()
        if self.decoding + len(self.prefilling) <= 1:
            return False
        k = order.pop()
        if k in self.prefilling:
            self.prefilling.remove(k)
        else:
            made = self.requests.output[k] - (self.end_of[k] - self.iteration)
            self.held[k] += made - self.made[k]
            self.made[k] = made
            self.decoding -= 1
            self.end_of[k] = -1
            self.gap_from[k] = self.t
        self.kv -= self.held[k]
        self.held[k] = -1.0
        self.left[k] = self.requests.prompt[k] + self.made[k]
        self.waiting.appendleft(k)
        self.out.preempted.append(self.t)
        return True

    def _give_room(self) -> bool:
        """Nothing fits: the last of several half-read prompts is put back, and a prompt that never fits is dropped."""
        if len(self.prefilling) > 1:
            return self._preempt()
        if self.prefilling:
            k = self.prefilling.pop()
            self.kv -= max(0.0, self.held[k])
            self.held[k] = -1.0
            return True
        if self.waiting:
            self.waiting.popleft()
            return True
        return False
