"""`python -m benchmarks.control`: every policy on every case; benchmarks/results/control.json and the docs' tables.

Two parts: incidents that a generator drew from the report's stream of seeds, on which no threshold was chosen, with
bootstrap intervals; and the named scenarios, a regression table. `--generated dev|report --count N --first K` and
`--named [--scenario TEXT --seeds N]` run one part alone, `--quick` a little of both; neither writes results. Finished
cells are kept (benchmarks.control.cells): `--minutes N` starts no further case after so long and leaves the rest to
the next run. `--real` measures predictions on the real ONNX Runtime demo service.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.control import cost, judge, report, score, tables
from benchmarks.control.cases import Case
from benchmarks.control.cells import Cells, ground_digest, loop_digest
from benchmarks.control.policies import POLICIES
from benchmarks.control.policies.evolved import evolved
from benchmarks.control.policies.ppo import ppo
from benchmarks.control.scenarios import SCENARIOS

POLICIES.update(evolved=evolved, ppo=ppo)
"""They run where they are asked for (`--policies`). They join here because the folder's own registry belongs to the
ground: a planner more must not throw away what everybody else's cells hold."""
RESULTS = Path(__file__).parent.parent / "results" / "control.json"
NAMED = ("slotune", "hpa", "ladder", "aimd", "random", "nothing", "oracle", "playbook")
DRAWN = ("slotune", "hpa", "ladder", "nothing", "oracle")
"""Policies on the named scenarios and on the drawn incidents."""
REPORT = "drawn"
"""Name of the part that is reported."""
COUNT, SEEDS = 120, 5
"""Drawn incidents, and seeds of each named scenario, of a whole run."""


@dataclass(frozen=True)
class Part:
    """Cases that are judged by the same policies and shown in one table."""

    title: str
    cases: tuple[Case, ...]
    policies: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--generated", choices=("dev", "report"), help="only drawn incidents, of this stream")
    parser.add_argument("--count", type=int, default=COUNT, help="how many drawn incidents")
    parser.add_argument("--first", type=int, default=0, help="number of the first drawn incident")
    parser.add_argument("--named", action="store_true", help="only the named scenarios")
    parser.add_argument("--scenario", default="", help="only named scenarios whose name holds this text")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds per named scenario")
    parser.add_argument("--quick", action="store_true", help="24 drawn incidents and one seed of each named scenario")
    parser.add_argument("--policies", default="", help="names, separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no further case after so long")
    parser.add_argument("--json", type=Path, default=None, help="where the figures go (default: benchmarks/results)")
    parser.add_argument("--real", action="store_true", help="predictions on the real ONNX Runtime demo service")
    args = parser.parse_args()
    if args.real:
        from benchmarks.control import real

        return real.main()
    parts = _parts(args)
    began = time.monotonic()
    document: dict[str, object] = {"command": "make bench-control", "simulated": True}
    for part in parts:
        left_s = 60.0 * args.minutes - (time.monotonic() - began)
        rows, left = _run(part, args.jobs, left_s)
        if left:
            done = len(part.cases) - left
            print(f"{part.title}: {done} of {len(part.cases)} cases are done; run the same command again for the rest")
            return 3
        results = [score.Result(**row) for row in rows]  # type: ignore[arg-type]
        # Whoever reads the failures of the report's stream begins to choose on it.
        report.show(part.title, results, failures=part.title != REPORT)
        document[part.title] = report.document(results)
    whole = len(parts) == 2 and not (args.quick or args.policies) and args.count >= COUNT and args.seeds >= SEEDS
    path = args.json or (RESULTS if whole else None)
    if path is not None:
        if not whole:
            document["command"] = f"python -m benchmarks.control {' '.join(sys.argv[1:])}"
        document["planning"] = cost.measure()
        print("planning:", document["planning"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
        if path == RESULTS:
            tables.write(document)
    return 0


def _parts(args: argparse.Namespace) -> list[Part]:
    count, seeds = (24, 1) if args.quick else (args.count, args.seeds)
    only_named = args.named or bool(args.scenario)
    names = tuple(args.policies.split(",")) if args.policies else ()
    parts = []
    if not only_named:
        stream = args.generated or "report"
        cases = tuple(Case(stream, k) for k in range(args.first, args.first + count))
        parts.append(Part(REPORT if stream == "report" else f"drawn ({stream})", cases, names or DRAWN))
    if not args.generated:
        chosen = [i for i, scenario in enumerate(SCENARIOS) if args.scenario in scenario.name]
        cases = tuple(Case("named", i, seed) for seed in range(1, seeds + 1) for i in chosen)
        parts.append(Part("named", cases, names or NAMED))
    return parts


def _quiet(case: Case, names: Sequence[str], ground: Cells, loop: Cells) -> list[dict[str, object]]:
    logging.disable(logging.CRITICAL)
    return judge.one(case, names, ground, loop)


def _run(part: Part, workers: int, limit_s: float) -> tuple[list[dict[str, object]], int]:
    """Rows of all cases in their order, and how many are left when no more time was."""
    work = partial(_quiet, names=part.policies, ground=Cells(ground_digest()), loop=Cells(loop_digest()))
    todo, done = list(part.cases), {}
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=workers) as pool:
        waiting: dict[Future[list[dict[str, object]]], Case] = {}
        while todo or waiting:
            while todo and len(waiting) < workers and time.monotonic() - began < limit_s:
                case = todo.pop(0)
                waiting[pool.submit(work, case)] = case
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                done[waiting.pop(future)] = future.result()
            if sys.stderr.isatty():
                print(f"\r{len(done)}/{len(part.cases)} cases", end="", file=sys.stderr)
    return [row for case in part.cases for row in done.get(case, [])], len(todo)


if __name__ == "__main__":
    raise SystemExit(main())
