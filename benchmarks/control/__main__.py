"""`python -m benchmarks.control`: every policy on every case; tables and benchmarks/results/control.json.

Two parts: the named scenarios (a regression table, five seeds each) and incidents that a generator drew from the
report's stream of seeds. `--generated dev|report --count N --first K` and `--scenario TEXT --seeds N` run one part
alone and write no results. Finished cells are kept (benchmarks.control.cells): `--minutes N` stops after so long and
leaves the rest to the next run. `--real` measures predictions on the real ONNX Runtime demo service.
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
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path

from benchmarks.control import cost, judge, score
from benchmarks.control.cases import Case
from benchmarks.control.cells import Cells, ground_digest, loop_digest
from benchmarks.control.scenarios import SCENARIOS

RESULTS = Path(__file__).parent.parent / "results" / "control.json"
ORDER = ("slotune", "hpa", "ladder", "aimd", "random", "nothing", "oracle", "playbook")
DRAWN = ("slotune", "hpa", "ladder", "nothing", "oracle")
"""Policies on the drawn incidents."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--scenario", default="", help="only scenarios whose name holds this text")
    parser.add_argument("--seeds", type=int, default=5, help="seeds per named scenario")
    parser.add_argument("--generated", choices=("dev", "report"), help="drawn incidents of this stream instead")
    parser.add_argument("--count", type=int, default=120, help="how many drawn incidents")
    parser.add_argument("--first", type=int, default=0, help="number of the first drawn incident")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--policies", default="", help="names, separated by commas")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no further case after so long")
    parser.add_argument("--json", type=Path, default=None, help="where the figures go (default: benchmarks/results)")
    parser.add_argument("--real", action="store_true", help="predictions on the real ONNX Runtime demo service")
    args = parser.parse_args()
    if args.real:
        from benchmarks.control import real

        return real.main()
    names = tuple(args.policies.split(",")) if args.policies else DRAWN if args.generated else ORDER
    if args.generated:
        cases = [Case(args.generated, k) for k in range(args.first, args.first + args.count)]
    else:
        chosen = [i for i, scenario in enumerate(SCENARIOS) if args.scenario in scenario.name]
        cases = [Case("named", i, seed) for seed in range(1, args.seeds + 1) for i in chosen]
    found, left = _run(cases, names, args.jobs, 60.0 * args.minutes)
    if left:
        print(f"{len(cases) - left} of {len(cases)} cases are done; run the same command again for the rest")
        return 3
    results = [score.Result(**entry) for entry in found]  # type: ignore[arg-type]
    policies = {name: score.figures([r for r in results if r.policy == name]) for name in names}
    print(score.table(policies))
    kinds = [r.kind for r in results if r.policy == names[0]]
    print("cases:", {kind: kinds.count(kind) for kind in sorted(set(kinds))})
    _details(results)
    whole = not args.scenario and args.seeds >= 5 and not args.generated
    path = args.json or (RESULTS if whole else None)
    if path is not None:
        planning = cost.measure()
        print("planning:", planning)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_document(policies, results, planning), indent=1) + "\n")
    return 0


def _quiet(case: Case, names: Sequence[str], ground: Cells, loop: Cells) -> list[dict[str, object]]:
    logging.disable(logging.CRITICAL)
    return judge.one(case, names, ground, loop)


def _run(cases: list[Case], names: Sequence[str], workers: int, limit_s: float) -> tuple[list[dict[str, object]], int]:
    """Rows of all cases in their order, and how many are left when no more time was."""
    work = partial(_quiet, names=names, ground=Cells(ground_digest()), loop=Cells(loop_digest()))
    todo, done = list(cases), {}
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=workers) as pool:
        waiting = {}
        while todo or waiting:
            while todo and len(waiting) < workers and time.monotonic() - began < limit_s:
                case = todo.pop(0)
                waiting[pool.submit(work, case)] = case
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                done[waiting.pop(future)] = future.result()
            if sys.stderr.isatty():
                print(f"\r{len(done)}/{len(cases)} cases", end="", file=sys.stderr)
    return [row for case in cases for row in done.get(case, [])], len(todo)


def _details(results: list[score.Result]) -> None:
    """Where slotune did not do what it should, and how good its predictions are."""
    mine = [r for r in results if r.policy == "slotune"]
    if not mine:
        return
    best = {(r.scenario, r.seed): r for r in results if r.policy == "oracle"}
    print("\npredictions:", score.figures(mine).get("predictions"))
    for r in mine:
        for predicted, low, high, observed in r.observed:
            if not low <= observed <= high:
                print(f"  outside: {r.scenario} #{r.seed} ({r.kinds}): {predicted:.0f} ({low:.0f}-{high:.0f}) observed "
                      f"{observed:.0f} | {'; '.join(r.texts)}")  # fmt: skip
    for r in mine:
        bad = (r.kind == "curable" and not r.first) or (r.kind == "incurable" and not r.held_right) or r.wrong
        if bad:
            print(_line(r, best.get((r.scenario, r.seed))))


def _line(r: score.Result, oracle: score.Result | None) -> str:
    """One incident that went wrong: what was true, what was named and done, and what would have been right."""
    marks = f"{r.kind}{' WRONG' if r.wrong else ''}, {'/'.join(r.causes)}, named {r.cause or '-'}"
    seen = [tuple(round(x) for x in pair) for pair in r.observed]
    right = f" | oracle: {'; '.join(oracle.texts)}" if oracle is not None else ""
    return f"  {r.scenario} #{r.seed} [{r.kinds}] {marks}: {'; '.join(r.texts) or 'nothing done'} {seen}{right}"


def _document(
    policies: dict[str, dict[str, object]], results: list[score.Result], planning: dict[str, object]
) -> dict[str, object]:
    scenarios: dict[str, dict[str, object]] = {}
    for r in results:
        entry = scenarios.setdefault(r.scenario, {"kind": [], "slotune_causes": []})
        if r.policy == "slotune":
            entry["kind"].append(r.kind)  # type: ignore[attr-defined]
            entry["slotune_causes"].append(r.cause)  # type: ignore[attr-defined]
        minutes = entry.setdefault("slo_violation_min", {})
        minutes[r.policy] = round(minutes.get(r.policy, 0.0) + r.violation_min, 1)  # type: ignore[attr-defined,index]
    kinds = [r.kind for r in results if r.policy == results[0].policy]
    return {
        "command": "make bench-control",
        "simulated": True,
        "scenarios": len(scenarios),
        "seeds": len({r.seed for r in results}),
        "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "planning": planning,
        "policies": policies,
        "by_scenario": scenarios,
    }


if __name__ == "__main__":
    raise SystemExit(main())
