"""False and true blame of releases in a simulated service.

    python -m benchmarks.releases [--seeds report] [--harmless 210] [--bad 80] [--jobs 1]
    python -m benchmarks.releases --real 3

Development seeds are 0 and up; nothing was chosen on the seeds of the report. Writes benchmarks/results/releases.json.
--real N: N rounds of ten releases on a real Triton instead, four minutes each; benchmarks/results/releases-real.json.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from scipy import stats

from benchmarks.releases.cases import BAD, HARMLESS, Case, bad, harmless
from benchmarks.releases.run import Result, run

RESULTS = Path(__file__).parents[1] / "results" / "releases.json"
FIRST_SEED = {"dev": 0, "report": 100_000}
FALSE_LIMIT = 1 / 200


def _one(make: Callable[[int], Case], seed: int) -> Result:
    return run(make(seed))


def many(make: Callable[[int], Case], seeds: Sequence[int], jobs: int) -> list[Result]:
    found = []
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for result in pool.imap(partial(_one, make), seeds):
            found.append(result)
            print(_line(result), flush=True)
    return found


def _line(result: Result) -> str:
    slower = f" ({result.slower[0]:.2f}x, {result.slower[1]:.2f} to {result.slower[2]:.2f})" if result.slower else ""
    when = f" at {result.reverted_s:.0f} s" if result.reverted_s is not None else ""
    broke = "" if result.broke else " (SLO kept)"
    truth = f"x{result.slow:.2f} +{result.errors:.0%} load x{result.surge:.2f}"
    told = f"{result.cause or 'no incident'}, {result.first or '-'}{when}{slower}"
    return f"{result.seed} {result.kind}, {truth}{broke}: {told}"


def proportion(hits: int, of: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934)."""
    low = float(stats.beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def summary(harmless_: Sequence[Result], bad_: Sequence[Result]) -> dict[str, object]:
    false = [r for r in harmless_ if r.reverted]
    broke = [r for r in bad_ if r.broke]
    right = [r for r in broke if r.named == ("6", "7") and r.first == "release"]
    held = [r for r in broke if r.slower is not None and r.kind.startswith("slower")]
    inside = [r for r in held if r.slower is not None and r.slower[1] <= r.slow <= r.slower[2]]
    times = sorted(r.reverted_s for r in right if r.reverted_s is not None)
    return {
        "harmless": len(harmless_),
        "harmless_with_an_incident": sum(bool(r.cause) for r in harmless_),
        "false_reverts": len(false),
        "false_reverts_at_most": round(proportion(len(false), len(harmless_))[1], 4),
        "bad": len(bad_),
        "bad_that_broke_the_slo": len(broke),
        "named_and_reverted_first": len(right),
        "share": round(len(right) / len(broke), 4) if broke else None,
        "share_interval": [round(x, 4) for x in proportion(len(right), len(broke))] if broke else None,
        "factor_within_its_interval": [len(inside), len(held)],
        "reverted_s_median_and_longest": [times[len(times) // 2], times[-1]] if times else None,
        "by_kind": {
            kind: [sum(r.kind == kind for r in right), sum(r.kind == kind for r in broke)] for kind in BAD
        }
        | {kind: [sum(r.kind == kind for r in false), sum(r.kind == kind for r in harmless_)] for kind in HARMLESS},
    }


def _real(rounds: int, seed: int, out: Path) -> int:
    from benchmarks.releases import real

    done = real.campaign(rounds, seed)
    made = [one for one in done if one.made]
    harmless_, bad_ = [r for r in made if r.harmless], [r for r in made if not r.harmless]
    right = [one for one in bad_ if one.right]
    found = {
        "releases": len(made),
        "not_taken_by_triton": len(done) - len(made),
        "harmless": len(harmless_),
        "harmless_with_an_incident": sum(one.broke for one in harmless_),
        "false_reverts": sum(one.reverted for one in harmless_),
        "bad": len(bad_),
        "bad_with_an_incident": sum(one.broke for one in bad_),
        "named_and_reverted_first": len(right),
        "within_two_sweeps_and_a_look": sum(one.in_time for one in right),
        "two_sweeps_and_a_look_s": real.LIMIT_S,
        "reverted_s": sorted(one.decided_s for one in right if one.decided_s is not None),
        "by_kind": {
            kind: [sum(r.kind == kind for r in right), sum(r.kind == kind for r in bad_)]
            for kind in real.KINDS if not kind.startswith("harmless")
        },
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    body = {"command": f"python -m benchmarks.releases --real {rounds} --seed {seed}", "summary": found,
            "releases": [asdict(one) for one in done]}  # fmt: skip
    out.write_text(json.dumps(body, indent=1) + "\n")
    return 0 if not found["false_reverts"] and len(right) == len(bad_) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.releases", description=__doc__)
    parser.add_argument("--seeds", choices=sorted(FIRST_SEED), default="report")
    parser.add_argument("--harmless", type=int, default=210)
    parser.add_argument("--bad", type=int, default=80)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--real", type=int, default=0, metavar="N", help="rounds of ten releases on a real Triton")
    parser.add_argument("--seed", type=int, default=7, help="of --real: what the releases are")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if args.real:
        return _real(args.real, args.seed, args.out or RESULTS.with_name("releases-real.json"))
    first = FIRST_SEED[args.seeds]
    fine = many(harmless, range(first, first + args.harmless), args.jobs)
    wrong = many(bad, range(first, first + args.bad), args.jobs)
    found = summary(fine, wrong)
    print(json.dumps(found, indent=2))
    command = "python -m " + "benchmarks.releases " + " ".join(sys.argv[1:])
    body = {"command": command.strip(), "seeds": args.seeds, "summary": found,
            "harmless": [asdict(r) for r in fine], "bad": [asdict(r) for r in wrong]}  # fmt: skip
    (args.out or RESULTS).write_text(json.dumps(body, indent=1, default=lambda x: None if math.isnan(x) else x) + "\n")
    return 0 if sum(r.reverted for r in fine) <= max(1, FALSE_LIMIT * len(fine)) else 1


if __name__ == "__main__":
    sys.exit(main())
