"""Continuous batching as vLLM's scheduler does it: what the emulated engine waits for. Pure, no clock.

Each iteration spends a budget of tokens: one for every running sequence, the rest on prompts in chunks. A sequence
holds KV blocks for all its tokens; when none is free, the youngest running one gives its blocks back, goes to the head
of the queue, and is computed again from its first token (preemption by recomputation).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Sequence:
    """One request. computed: tokens whose keys and values are held; generated: tokens that were answered."""

    prompt: int
    output: int
    owner: Any = None
    computed: int = 0
    generated: int = 0
    preempted: int = 0
    blocks: int = 0

    @property
    def due(self) -> int:
        """Tokens to compute before the next one can be generated."""
        return self.prompt + self.generated - self.computed


@dataclass
class Batch:
    """One iteration: tokens by sequence, and who was thrown out for it."""

    tokens: list[tuple[Sequence, int]] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(count for _, count in self.tokens)

    @property
    def prefill(self) -> int:
        """Tokens of prompts, or of what has to be computed again."""
        return sum(count for sequence, count in self.tokens if sequence.due > 1)


class Schedule:
    """waiting, running: sequences, oldest first."""

    def __init__(self, max_num_seqs: int, max_num_batched_tokens: int, kv_tokens: int, block_size: int = 16) -> None:
        if min(max_num_seqs, max_num_batched_tokens, kv_tokens, block_size) < 1:
            raise ValueError("max_num_seqs, max_num_batched_tokens, kv_tokens and block_size must be at least 1")
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.block_size, self.blocks = block_size, kv_tokens // block_size
        self.free = self.blocks
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def kv_usage(self) -> float:
        return 1.0 - self.free / self.blocks

    def fits(self, sequence: Sequence) -> bool:
        """Whether it could ever be answered: alone it must find room."""
        return self._blocks(sequence.prompt + sequence.output) <= self.blocks

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Its client has gone."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def next(self) -> Batch:
        """What the next iteration computes; `finish` says that it has been."""
        batch, budget = Batch(), self.max_num_batched_tokens
        for sequence in list(self.running):
            if sequence not in self.running:
                continue  # thrown out for an older one
            count = min(sequence.due, budget)
            if count <= 0:
                break
            if self._hold(sequence, sequence.computed + count, batch):
                batch.tokens.append((sequence, count))
                budget -= count
        while not batch.preempted and self.waiting and len(self.running) < self.max_num_seqs and budget > 0:
            sequence = self.waiting[0]
            count = min(sequence.due, budget)
            needed = self._blocks(count)
            if needed > self.free:
                break
            self.waiting.popleft()
            self.free -= needed
            sequence.blocks = needed
            self.running.append(sequence)
            batch.tokens.append((sequence, count))
            batch.admitted.append(sequence)
            budget -= count
        return batch

    def finish(self, batch: Batch) -> list[Sequence]:
        """The iteration is over: sequences that got a token, in order. Those that are complete have left."""
        answered = []
        for sequence, count in batch.tokens:
            if sequence not in self.running:
                continue
            sequence.computed += count
            if sequence.due == 0:
                sequence.generated += 1
                answered.append(sequence)
                if sequence.generated >= sequence.output:
                    self.running.remove(sequence)
                    self._release(sequence)
        return answered

    def _blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.block_size)

    def _hold(self, sequence: Sequence, tokens: int, batch: Batch) -> bool:
        """Blocks for so many tokens, if need be those of the youngest; False where it was the youngest itself."""
        needed = self._blocks(tokens) - sequence.blocks
        while needed > self.free:
            victim = self.running.pop()
            batch.tokens = [(s, count) for s, count in batch.tokens if s is not victim]
            self._release(victim)
            victim.computed, victim.preempted = 0, victim.preempted + 1
            self.waiting.appendleft(victim)
            batch.preempted.append(victim)
            if victim is sequence:
                return False
        self.free -= needed
        sequence.blocks += needed
        return True

    def _release(self, sequence: Sequence) -> None:
        self.free += sequence.blocks
        sequence.blocks = 0
