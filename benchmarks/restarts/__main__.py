"""Leaking replicas restarted before their limit, with real processes, without Airflow.

    python -m benchmarks.restarts [--rounds 2] [--healed 5] [--alone 1] [--seed 7]

A round takes about three minutes, all its services at once: `healed` of them slotune may restart, `alone` it only
watches, which shows what the leak does. Writes benchmarks/results/restarts.json; exit status 0 where every leak was
healed before its limit without a failed request, and every other one ended at it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.restarts.run import LIMIT_MB, Result, campaign, cases

RESULTS = Path(__file__).parents[1] / "results" / "restarts.json"


def table(results: Sequence[Result]) -> str:
    """A line for each leak."""
    names = ("service", "leak MB/s", "cause", "restarted after", "at MB", "forecast", "killed", "requests", "failed")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for one in results:
        forecast = "{:.0f} s ({:.0f} to {:.0f})".format(*one.forecast_s) if one.forecast_s is not None else "-"
        after = f"{one.restarted_s:.0f} s" if one.restarted_s is not None else "-" if one.healed else "left alone"
        lines.append(
            f"| {one.name} | {one.mb_per_s:g} | {one.cause or '-'} | {after} | {one.used_mb or 0:.0f} of {LIMIT_MB} | "
            f"{forecast} | {one.killed} | {one.sent} | {one.failed} |"
        )
    return "\n".join(lines)


def summary(results: Sequence[Result]) -> dict[str, object]:
    healed, alone = ([one for one in results if one.healed is wanted] for wanted in (True, False))
    after = sorted(one.restarted_s for one in healed if one.restarted_s is not None)
    return {
        "leaks": len(healed),
        "restarted_before_the_limit": sum(one.restarted_s is not None and not one.killed for one in healed),
        "without_a_failed_request": sum(one.well for one in healed),
        "proven": sum(one.verdict == "improved" for one in healed),
        "requests": sum(one.sent for one in healed),
        "failed_requests": sum(one.failed for one in healed),
        "restarted_after_s_median_and_longest": [after[len(after) // 2], after[-1]] if after else None,
        "left_alone": len(alone),
        "left_alone_and_killed": sum(one.killed > 0 for one in alone),
        "left_alone_failed_requests": sum(one.failed for one in alone),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restarts")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--healed", type=int, default=5)
    parser.add_argument("--alone", type=int, default=1)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    results: list[Result] = []
    for round_ in range(args.rounds):
        seed = args.seed + round_
        results += campaign(cases(args.healed, args.alone, seed), seed)
        print(table(results[-(args.healed + args.alone) :]), flush=True)
    found = summary(results)
    print(json.dumps(found, indent=2))
    command = f"python -m benchmarks.restarts --rounds {args.rounds} --healed {args.healed} --alone {args.alone}"
    body = {"command": f"{command} --seed {args.seed}", "summary": found, "leaks": [asdict(one) for one in results]}
    args.out.write_text(json.dumps(body, indent=1) + "\n")
    well = found["without_a_failed_request"] == found["leaks"] and found["left_alone_and_killed"] == found["left_alone"]
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
