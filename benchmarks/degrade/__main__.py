"""Goodput of an overloaded service with and without the variant lever.

    python -m benchmarks.degrade [--seeds report] [--count 20] [--jobs 1]

Traffic rises to three times what is carried, and more, while replicas and batches are at their bounds. Development
seeds are 0 and up; nothing was chosen on the seeds of the report. Writes benchmarks/results/degrade.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.degrade.cases import overload
from benchmarks.degrade.run import Result, run

RESULTS = Path(__file__).parents[1] / "results" / "degrade.json"
FIRST_SEED = {"dev": 0, "report": 100_000}
LIMIT = 2.5
MOST = 1000.0
"""What goodput with the lever should be at least, over goodput without it."""


def one(seed: int) -> Result:
    return run(overload(seed))


def _bounded(result: Result) -> float:
    """How many times the goodput; a service that answers nothing in time without the lever counts as MOST."""
    return min(result.ratio, MOST)


def summary(results: Sequence[Result]) -> dict[str, object]:
    reached = [r for r in results if r.ratio >= LIMIT]
    back = [r for r in results if r.back_s is not None]
    finite = sorted(_bounded(r) for r in results)
    kinds = {"refusing": [r for r in results if r.sheds], "queueing": [r for r in results if not r.sheds]}
    return {
        "cases": len(results),
        "by_kind": {
            kind: {
                "cases": len(mine),
                "ratio_median": round(statistics.median(map(_bounded, mine)), 2),
                "ratio_worst": round(min(map(_bounded, mine)), 2),
            }
            for kind, mine in kinds.items()
            if mine
        },
        "goodput_ratio_median": round(statistics.median(finite), 2),
        "goodput_ratio_worst": round(finite[0], 2),
        "ratio_of_sums": round(sum(r.goodput_with for r in results) / sum(r.goodput_without for r in results), 2),
        f"at_least_{LIMIT}": len(reached),
        "share_of_offered_in_time_once_switched": round(
            statistics.median(r.settled_goodput / r.offered for r in results), 3
        ),
        "whole_model_back": len(back),
        "back_after_min_median": round(statistics.median(r.back_s or 0.0 for r in back) / 60, 1) if back else None,
        "switches_median": statistics.median(len(r.switches) for r in results),
        "review_off_by_worst": round(max((abs(r.told - r.lost) / r.lost for r in results if r.lost > 0), default=0), 3),
        "point_minutes_median": round(statistics.median(r.lost for r in results), 1),
        "slo_kept_after_share": round(statistics.mean(r.kept_after for r in results), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.degrade", description=__doc__)
    parser.add_argument("--seeds", choices=sorted(FIRST_SEED), default="report")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    first, results = FIRST_SEED[args.seeds], []
    with multiprocessing.get_context("fork").Pool(args.jobs) as pool:
        for result in pool.imap(one, range(first, first + args.count)):
            results.append(result)
            names = " ".join(f"{at_s - 600:+.0f}s {name}" for at_s, name in result.switches)
            kind = "refuses" if result.sheds else "queues"
            print(f"{result.seed} {kind}: x{result.ratio:.1f} ({result.goodput_without:g} -> {result.goodput_with:g}/s "
                  f"of {result.offered:g}/s), {names}, {result.lost:g} point-minutes, back {result.back_s}, "
                  f"{result.cpu_s} s of CPU", flush=True)  # fmt: skip
    found = summary(results)
    print(json.dumps(found, indent=2))
    command = " ".join(["python -m benchmarks.degrade", *sys.argv[1:]])
    body = {"command": command, "seeds": args.seeds, "summary": found, "cases": [asdict(r) for r in results]}
    args.out.write_text(json.dumps(body, indent=1) + "\n")
    return 0 if len([r for r in results if r.ratio >= LIMIT and r.back_s is not None]) == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
