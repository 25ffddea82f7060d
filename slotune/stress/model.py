"""The values of a stress test: what is asked for, what was sent and answered, what was found. Frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray
from tuning.model import Interval

PENDING, OK, REFUSED, LOST, TIMED_OUT, LOCAL, BROKEN = range(7)
"""What became of a request: under way; answered 2xx and whole; answered otherwise; connection refused or lost; no
answer in time; not sent because of a limit of this machine; 2xx, and the stream said an error or broke off."""
FAILURES = {REFUSED: "refused", LOST: "connection lost", TIMED_OUT: "timed out", BROKEN: "broken off"}
Verdict = Literal["met", "broken", "errors", "stopped", "generator", "interrupted"]
"""Of a step. met: every objective. broken: not every one. errors, stopped: ended early at --stop-errors or --stop-p95.
generator: this machine could not send or read at that rate, so that nothing is said of the service."""


@dataclass(frozen=True)
class Plan:
    """What is to be done. Rates are requests per second at the service: what is sent here and what it gets anyway.

    other_per_s: what it gets anyway, None: nobody knows (taken as 0). start_per_s, bound_per_s: the first rate, and the
    one that is never passed. growth: from step to step. limits: by objective ("p95_ms", "ttft_p95_ms", ...), ms.
    error_rate: the promised share. stop_errors, stop_p95: where a step ends at once; stop_p95 in multiples of the
    limits. precision: the knee is narrowed until its bracket is this share wide, by at most `refinements` steps.
    """

    start_per_s: float
    bound_per_s: float
    limits: Mapping[str, float]
    other_per_s: float | None = None
    growth: float = 1.3
    step_s: float = 20.0
    error_rate: float = 0.01
    stop_errors: float = 0.05
    stop_p95: float = 3.0
    precision: float = 0.08
    refinements: int = 5
    recovery_max_s: float = 120.0

    @property
    def base_per_s(self) -> float:
        """What this test sends while it waits for the service to be well again."""
        return max(self.start_per_s - (self.other_per_s or 0.0), 0.0)


@dataclass(frozen=True, eq=False)
class Seen:
    """Requests in the order in which they were meant to be sent; arrays of one length.

    due_s: monotonic seconds. lag_ms: how late each was sent. latency_ms: from due to the whole answer; of a request
    under way its age so far, of one that failed the time to the failure. first_ms: to the first token, NaN: none came.
    status: of PENDING ... BROKEN. gap_ms: between tokens, gap_of: the place of the request that each belongs to.
    """

    due_s: FloatArray
    lag_ms: FloatArray
    latency_ms: FloatArray
    first_ms: FloatArray
    status: NDArray[np.int8]
    gap_ms: FloatArray
    gap_of: NDArray[np.int64]

    @property
    def sent(self) -> int:
        return int(self.due_s.size)

    @property
    def failed(self) -> int:
        return int(np.isin(self.status, list(FAILURES)).sum())

    @property
    def error_share(self) -> float:
        """Of what ended; 0 while nothing has."""
        ended = int((self.status != PENDING).sum()) - int((self.status == LOCAL).sum())
        return self.failed / ended if ended else 0.0

    def values(self, objective: str) -> tuple[FloatArray, FloatArray]:
        """(values in ms, due_s of each) of what an objective is promised on.

        What is under way, or was given up after a time, counts with the time it has taken so far: at least that long.
        An error that came quickly counts as an error alone.
        """
        counted = np.isin(self.status, (PENDING, OK, TIMED_OUT))
        if objective == "itl_p95_ms":
            return self.gap_ms, self.due_s[self.gap_of]
        if objective == "ttft_p95_ms":
            first = np.where(np.isfinite(self.first_ms), self.first_ms, self.latency_ms)
            return first[counted], self.due_s[counted]
        return self.latency_ms[counted], self.due_s[counted]


@dataclass(frozen=True, eq=False)
class Raw:
    """One step as it ran. seen: its measured part, without what it took to get there. *_s: epoch seconds.

    rate_per_s: at the service. stopped: why it ended early ("errors", "stopped", "interrupted"), "" where it did not.
    cpu: share of a core that this process used.
    """

    rate_per_s: float
    sent_per_s: float
    start_s: float
    end_s: float
    seen: Seen
    stopped: str
    cpu: float


@dataclass(frozen=True)
class Step:
    """What a step came to. p95: by objective, ms with a 90 % interval. errors: share. failures: by kind or status."""

    rate_per_s: float
    sent_per_s: float
    answered_per_s: float
    start_s: float
    end_s: float
    requests: int
    p50_ms: float
    p99_ms: float
    p95: Mapping[str, Interval]
    errors: float
    lag_p95_ms: float
    cpu: float
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True)
class Recovery:
    """after_per_s: the load that had been too much. back_s: from its end until every objective was met again at the
    base rate; None: not within waited_s."""

    after_per_s: float
    back_s: float | None
    waited_s: float


@dataclass(frozen=True)
class Knee:
    """The highest rate at which every objective is met. low, high: its 90 % interval; high None: not reached, the knee
    lies above `low`; value None: it lies below every rate that was tried."""

    value: float | None
    low: float
    high: float | None


@dataclass(frozen=True)
class Saturation:
    """A signal that reached its limit. at_per_s: the first rate at which it had."""

    signal: str
    at_per_s: float
    value: float
    said: str


@dataclass(frozen=True)
class Found:
    """The whole result. turn: where P95 leaves its level, None: it does not, up to the highest rate.

    ended: why the climb ended. saturated: in the order in which it happened. untold: the signals that are not exported;
    blind: why nothing can be told of what ran out, "" where it can.
    notes: what a reader has to know. learned: what the latency engine took from it. main: the objective that is drawn.
    """

    service: str
    address: str
    protocol: str
    plan: Plan
    began_s: float
    ended_s: float
    steps: tuple[Step, ...]
    recoveries: tuple[Recovery, ...]
    knee: Knee
    turn: Interval | None
    ended: str
    main: str
    saturated: tuple[Saturation, ...] = ()
    untold: tuple[str, ...] = ()
    blind: str = ""
    notes: tuple[str, ...] = ()
    learned: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)
