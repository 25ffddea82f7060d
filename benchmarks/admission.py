"""Goodput of an overloaded service with and without the admission lever, where no variant exists.

    python -m benchmarks.admission [--seeds report] [--count 12]

The overloads of benchmarks.degrade: traffic rises to three times what is carried, and more, while replicas and batches
are at their bounds, and requests queue. Development seeds are 0 and up; nothing was chosen on the seeds of the report.
Writes benchmarks/results/admission.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.control.runs import SWEEP_S
from benchmarks.control.simulator import Faults, SimulatedService
from benchmarks.degrade import run as degrade
from benchmarks.degrade.cases import ONSET_S, Case, overload, rate_of
from benchmarks.simulated import START_S, run_until
from tests.fakes.ledger import FakeLedger
from tuning.loop.learn_latency import learn_latency
from tuning.model import Plan, Refusing

RESULTS = Path(__file__).parent / "results" / "admission.json"
FIRST_SEED = {"dev": 0, "report": 100_000}
LIMIT = 2.5
"""Goodput with the lever over that without it that should be reached."""
LEAST_SLO_MS = 1000.0
"""The simulated queue counts whom it takes in second by second."""


@dataclass(frozen=True)
class Result:
    """goodput: answers within the SLO per second over the overload; settled: from the limit on. refused: share of the
    requests from the limit on, as it was and as planned (with its interval). back_s: from the end of the overload until
    the old limit (None: it did not return). kept_after: share of quarter minutes after that that kept the SLO."""

    seed: int
    overload: float
    offered: float
    carried: float
    slo_ms: float
    goodput_without: float
    goodput_with: float
    settled_goodput: float
    limits: tuple[tuple[float, int], ...]
    refused: float
    planned: tuple[float, float, float] | None
    back_s: float | None
    kept_after: float
    cpu_s: float


class Doors(SimulatedService):
    """A service that lets in as places free, over the whole second, and not whoever comes first in it. limits: (second,
    limit) since when."""

    limits: list[tuple[float, int]]

    def set_queue_limit(self, limit: int) -> None:
        super().set_queue_limit(limit)
        self.limits.append((self.now_s, limit))

    def _let_in(self, times_s: list[float], room: int) -> list[float]:
        if len(times_s) <= room:
            return times_s
        return [times_s[k] for k in np.linspace(0, len(times_s) - 1, room).astype(int)] if room else []


def case_of(seed: int) -> Case:
    return replace(overload(seed), sheds=False)


def run(seed: int) -> Result:
    started, case = time.process_time(), case_of(seed)
    slo_ms = max(degrade.slo_of(case), LEAST_SLO_MS)
    without, _, _ = _one(case, slo_ms, admission=False)
    with_, log, ledger = _one(case, slo_ms, admission=True)
    first, normal = (log[1][0] if len(log) > 1 else case.over_s), log[0][1]
    back = [at_s for at_s, limit in log[1:] if limit == normal]
    spans = range(int(case.over_s) + 120, int(case.end_s) - 15, 15)
    settled_s = min(first + 60, case.over_s - 1)
    return Result(
        seed=seed,
        overload=round(case.overload, 2),
        offered=round(float(np.mean([rate_of(case, t) for t in range(int(ONSET_S), int(case.over_s))])), 1),
        carried=round(case.capacity_qps(), 1),
        slo_ms=round(slo_ms, 1),
        goodput_without=round(degrade.goodput(without, slo_ms, ONSET_S, case.over_s), 1),
        goodput_with=round(degrade.goodput(with_, slo_ms, ONSET_S, case.over_s), 1),
        settled_goodput=round(degrade.goodput(with_, slo_ms, settled_s, case.over_s), 1),
        limits=tuple((round(at_s, 1), limit) for at_s, limit in log[1:]),
        refused=round(_refused(with_, settled_s, case.over_s), 3),
        planned=_planned(ledger),
        back_s=round(back[-1] - case.over_s, 1) if back and log[-1][1] == normal else None,
        kept_after=round(float(np.mean([with_.p95_ms(t, t + 15) <= slo_ms for t in spans])), 3),
        cpu_s=round(time.process_time() - started, 1),
    )


def _one(case: Case, slo_ms: float, *, admission: bool) -> tuple[Doors, list[tuple[float, int]], FakeLedger]:
    faults = Faults(rate=lambda t: rate_of(case, t))
    service = Doors(case.profile, faults, batch=case.batch, timeout_ms=2.0, replicas=case.replicas, seed=case.seed)
    service.limits = [(0.0, service.profile.queue_limit)]
    service.advance(ONSET_S - 90)
    parts, ledger = degrade.parts_of(case, slo_ms, service, [(0.0, "full")], lever="admission" if admission else "")
    learn_latency(parts, START_S + service.now_s)
    run_until(parts, service, case.end_s if admission else case.over_s, SWEEP_S)
    return service, service.limits, ledger


def _refused(service: SimulatedService, start_s: float, end_s: float) -> float:
    part = service.seconds[int(start_s) : int(end_s)]
    answered, refused = sum(s.latencies.size for s in part), sum(s.errors for s in part)
    return refused / max(1, answered + refused)


def _planned(ledger: FakeLedger) -> tuple[float, float, float] | None:
    plans = [Plan.model_validate(r.body) for r in ledger.records.values() if r.kind == "choose_action"]
    found: list[Refusing] = [p.chosen.refusal for p in plans if p.chosen.refusal is not None and p.rollback_of is None]
    if not found:
        return None
    share = found[0].share
    return round(share.value, 3), round(share.low, 3), round(share.high, 3)


def summary(results: Sequence[Result]) -> dict[str, object]:
    with_, without = (sum(getattr(r, f"goodput_{name}") for r in results) for name in ("with", "without"))
    planned = [abs(r.refused - r.planned[0]) for r in results if r.planned is not None]
    of_carried = [r.settled_goodput / r.carried for r in results]
    reached = [r for r in results if r.goodput_with >= LIMIT * r.goodput_without and r.goodput_with > 0]
    back = [r.back_s for r in results if r.back_s is not None]
    return {
        "cases": len(results),
        "limited": len(planned),
        f"at_least_{LIMIT}": len(reached),
        "ratio_of_sums": round(with_ / max(without, 1e-9), 1),
        "settled_goodput_of_carried_median": round(statistics.median(of_carried), 3),
        "settled_goodput_of_carried_worst": round(min(of_carried), 3),
        "refused_off_by_median": round(statistics.median(planned), 3) if planned else None,
        "limit_back": len(back),
        "back_after_min_median": round(statistics.median(back) / 60, 1) if back else None,
        "slo_kept_after_share": round(statistics.mean(r.kept_after for r in results), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=__doc__)
    parser.add_argument("--seeds", choices=sorted(FIRST_SEED), default="report")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    first, results = FIRST_SEED[args.seeds], []
    for seed in range(first, first + args.count):
        results.append(result := run(seed))
        told = " ".join(f"{at_s - ONSET_S:+.0f}s {limit}" for at_s, limit in result.limits)
        print(f"{seed}: {result.goodput_without:g} -> {result.goodput_with:g}/s (then {result.settled_goodput:g}/s of "
              f"{result.carried:g}/s carried, {result.offered:g}/s offered), refused {result.refused} (planned "
              f"{result.planned}), {told}, back {result.back_s}, {result.cpu_s} s of CPU", flush=True)  # fmt: skip
    found = summary(results)
    print(json.dumps(found, indent=2))
    command = " ".join(["python -m benchmarks.admission", *sys.argv[1:]])
    body = {"command": command, "seeds": args.seeds, "summary": found, "cases": [asdict(r) for r in results]}
    args.out.write_text(json.dumps(body, indent=1) + "\n")
    return 0 if all(r.goodput_with >= LIMIT * r.goodput_without and r.back_s is not None for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
