"""`python -m benchmarks.stress`: how far off the knee is, and how often its interval holds the truth.

Whole stress tests against queues in no time: climb, statistics and knee are those of `slotune stress`, and only the
requests are simulated (one server, Lindley recursion), so that the truth is known from runs of a million requests.
How wide an interval is was chosen on the development seeds; the report uses others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detection.model import FloatArray
from slotune.stress.climb import Done, next_step
from slotune.stress.model import OK, Plan, Raw, Seen, Step
from slotune.stress.statistics import knee, summarise

RESULTS = Path(__file__).parent.parent / "results" / "stress.json"
FIRST = {"dev": 0, "report": 10_000}
COUNT = 60


@dataclass(frozen=True)
class Queue:
    """One server with Poisson arrivals. cv: of single service times (lognormal); 0: they are fixed."""

    name: str
    service_s: float
    cv: float
    limit_ms: float
    step_s: float = 20.0

    def seen(self, rate: float, count: int, rng: np.random.Generator) -> Seen:
        gaps = rng.exponential(1 / rate, count)
        sigma2 = np.log1p(self.cv**2)
        took = self.service_s * np.exp(np.sqrt(sigma2) * rng.standard_normal(count) - sigma2 / 2)
        # W(n + 1) = max(0, W(n) + S(n) - A(n + 1))
        steps = np.concatenate([[0.0], np.cumsum(took[:-1] - gaps[1:])])
        waits = steps - np.minimum.accumulate(steps)
        return Seen(
            due_s=np.cumsum(gaps),
            lag_ms=np.full(count, 0.4),
            latency_ms=1e3 * (waits + took),
            first_ms=np.full(count, np.nan),
            status=np.full(count, OK, dtype=np.int8),
            gap_ms=np.empty(0),
            gap_of=np.empty(0, dtype=np.int64),
        )

    def knee_per_s(self) -> float:
        """The rate at which the P95 of a million requests is the limit, by bisection with the same random numbers."""
        low, high = 0.05 / self.service_s, 1 / self.service_s
        for _ in range(14):
            middle = 0.5 * (low + high)
            latency_ms = self.seen(middle, 1_000_000, np.random.default_rng(7)).latency_ms
            low, high = (middle, high) if np.quantile(latency_ms, 0.95) <= self.limit_ms else (low, middle)
        return 0.5 * (low + high)


QUEUES = (
    Queue("fixed 20 ms", 0.02, 0.0, 100.0),
    Queue("20 ms, cv 1", 0.02, 1.0, 150.0),
    Queue("5 ms, cv 0.5", 0.005, 0.5, 30.0),
    Queue("fixed 20 ms, 10 s a step", 0.02, 0.0, 100.0, 10.0),
)


@dataclass(frozen=True)
class Row:
    """One test. Rates per second. miss: distance of the truth from the knee (logarithm) over the interval's on that
    side; up to 1 the interval holds it. None: no knee was found."""

    queue: str
    seed: int
    truth: float
    knee: float | None
    low: float | None
    high: float | None
    steps: int

    @property
    def miss(self) -> float | None:
        if self.knee is None or self.low is None or self.high is None:
            return None
        off, edge = np.log(self.truth / self.knee), self.high if self.truth > self.knee else self.low
        side = abs(np.log(edge / self.knee))
        return float(abs(off) / side) if side > 0 else float("inf")


def one(queue: Queue, truth: float, seed: int) -> Row:
    """A whole test against one queue."""
    plan = Plan(
        start_per_s=truth / 7, bound_per_s=2 * truth, limits={"p95_ms": queue.limit_ms}, growth=1.3, step_s=queue.step_s
    )
    rng = np.random.default_rng(seed)
    steps: list[Step] = []
    drawn: list[Mapping[str, FloatArray]] = []
    while not isinstance(ahead := next_step(steps, plan), Done):
        rate = ahead.rate_per_s
        seen = queue.seen(rate, max(40, round(rate * queue.step_s)), rng)
        step, draws = summarise(Raw(rate, rate, 1000.0, 1000.0 + queue.step_s, seen, "", 0.1), plan, rng)
        steps.append(step)
        drawn.append(draws)
    found = knee(steps, drawn, plan)
    return Row(queue.name, seed, truth, found.value, found.low, found.high, len(steps))


def figures(rows: list[Row]) -> dict[str, object]:
    """Errors relative to the truth. factor: by how much the intervals would have to be wider to hold 90 %."""
    known = [row for row in rows if row.knee is not None]
    errors = np.array([row.knee / row.truth - 1 for row in known if row.knee is not None])
    misses = np.array([row.miss for row in known])
    return {
        "tests": len(rows),
        "no_knee": len(rows) - len(known),
        "bias": round(float(errors.mean()), 4),
        "sd": round(float(errors.std()), 4),
        "worst": round(float(np.abs(errors).max()), 4),
        "held": int((misses <= 1).sum()),
        "coverage": round(float((misses <= 1).mean()), 4),
        "factor": round(float(np.quantile(misses, 0.9)), 3),
        "width": round(float(np.median([row.high / row.low - 1 for row in known if row.high and row.low])), 4),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stress", description=__doc__)
    parser.add_argument("--stream", choices=sorted(FIRST), default="report")
    parser.add_argument("--count", type=int, default=COUNT, help="tests of each queue")
    parser.add_argument("--first", type=int, default=None, help="the first seed")
    parser.add_argument("--json", type=Path, default=None, help="where figures go (default: benchmarks/results)")
    args = parser.parse_args()
    first = FIRST[args.stream] if args.first is None else args.first
    began, rows = time.process_time(), []
    for queue in QUEUES:
        truth = queue.knee_per_s()
        mine = [one(queue, truth, first + k) for k in range(args.count)]
        rows += mine
        print(f"{queue.name:<26} knee {truth:.4g}/s: {json.dumps(figures(mine))}", flush=True)
    found = {"all": figures(rows), **{q.name: figures([r for r in rows if r.queue == q.name]) for q in QUEUES}}
    print(f"{'all':<26} {json.dumps(found['all'])}")
    whole = args.stream == "report" and args.count == COUNT and args.first is None
    if (path := args.json or (RESULTS if whole else None)) is not None:
        body = {
            "command": f"python -m benchmarks.stress --stream {args.stream} --first {first} --count {args.count}",
            "cpu_s": round(time.process_time() - began, 1), "figures": found, "rows": [asdict(row) for row in rows],
        }  # fmt: skip
        path.write_text(json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
