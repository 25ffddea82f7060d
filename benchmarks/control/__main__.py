"""`python -m benchmarks.control`: every policy on every scenario and seed; table and benchmarks/results/control.json.

`--scenario TEXT` and `--seeds N` narrow it. Finished cells are kept (benchmarks.control.cells): `--minutes N` stops
after so long and leaves the rest to the next run. `--real` measures predictions on the real ONNX Runtime demo service.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from benchmarks.control import cost, score
from benchmarks.control.cells import Cells, digest
from benchmarks.control.policies import POLICIES, cured, oracle
from benchmarks.control.scenarios import END_S, ONSET_S, SCENARIOS, Scenario
from benchmarks.control.simulator import SimulatedService

RESULTS = Path(__file__).parent.parent / "results" / "control.json"
ORDER = ("slotune", "hpa", "ladder", "aimd", "random", "nothing", "oracle", "playbook")


def begin(scenario: Scenario, seed: int) -> SimulatedService:
    """The service at the onset: the same history for every policy."""
    service = SimulatedService(
        scenario.profile,
        scenario.faults(seed),
        batch=scenario.batch,
        timeout_ms=scenario.timeout_ms,
        replicas=scenario.replicas,
        seed=1000 + seed,
    )
    service.advance(ONSET_S)
    if scenario.misset is not None:
        service.set_batch(*scenario.misset, delay_s=0.0)
    return service


def one(job: tuple[int, int, tuple[str, ...]]) -> list[dict[str, object]]:
    """Every policy on one scenario and seed."""
    index, seed, names = job
    logging.disable(logging.CRITICAL)
    scenario = SCENARIOS[index]
    start = begin(scenario, seed)
    idle = POLICIES["nothing"](scenario, copy.deepcopy(start), seed)
    runs = {"nothing": idle}
    for name in names:
        if name in POLICIES and name != "nothing":
            runs[name] = POLICIES[name](scenario, copy.deepcopy(start), seed)
    needless = not scenario.incident or cured(scenario, idle.service, END_S)
    planned = runs["slotune"].planned_s if "slotune" in runs else None
    best, curable = oracle(scenario, copy.deepcopy(start), planned if planned is not None else ONSET_S + 60.0)
    runs["oracle"] = best
    kind = score.kind_of(scenario, curable, needless)
    return score.rows(
        [score.judge(scenario, seed, name, runs[name], kind, idle.service) for name in names if name in runs]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    parser.add_argument("--scenario", default="", help="only scenarios whose name holds this text")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--policies", default=",".join(ORDER))
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no further cell after so long")
    parser.add_argument("--json", type=Path, default=None, help="where the figures go (default: benchmarks/results)")
    parser.add_argument("--real", action="store_true", help="predictions on the real ONNX Runtime demo service")
    args = parser.parse_args()
    if args.real:
        from benchmarks.control import real

        return real.main()
    names = tuple(args.policies.split(","))
    chosen = [i for i, scenario in enumerate(SCENARIOS) if args.scenario in scenario.name]
    jobs = [(i, seed, names) for seed in range(1, args.seeds + 1) for i in chosen]
    found, left = _run(jobs, args.jobs, 60.0 * args.minutes)
    if left:
        print(f"{len(jobs) - left} of {len(jobs)} scenarios x seeds are done; run the same command again for the rest")
        return 3
    results = [score.Result(**entry) for entry in found]  # type: ignore[arg-type]
    policies = {name: score.figures([r for r in results if r.policy == name]) for name in names}
    print(score.table(policies))
    _details(results)
    whole = not args.scenario and args.seeds >= 5
    path = args.json or (RESULTS if whole else None)
    if path is not None:
        planning = cost.measure()
        print("planning:", planning)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_document(policies, results, planning), indent=1) + "\n")
    return 0


Job = tuple[int, int, tuple[str, ...]]


def _run(jobs: list[Job], workers: int, limit_s: float) -> tuple[list[dict[str, object]], int]:
    """Results of all jobs, finished ones from the cells, and how many are left when no more time was."""
    cells = Cells(digest(jobs[0][2])) if jobs else None
    if cells is None:
        return [], 0
    key = {job: (SCENARIOS[job[0]].name, job[1]) for job in jobs}
    todo = [job for job in jobs if cells.get(*key[job]) is None]
    began = time.monotonic()
    with ProcessPoolExecutor(max_workers=workers) as pool:
        waiting = {}
        while todo or waiting:
            while todo and len(waiting) < workers and time.monotonic() - began < limit_s:
                job = todo.pop(0)
                waiting[pool.submit(one, job)] = job
            if not waiting:
                break
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                cells.put(*key[waiting.pop(future)], future.result())
            if sys.stderr.isatty():
                finished = len(jobs) - len(todo) - len(waiting)
                print(f"\r{finished}/{len(jobs)} scenarios x seeds", end="", file=sys.stderr)
    kept = [cells.get(*key[job]) for job in jobs]
    return [entry for cell in kept if cell is not None for entry in cell], sum(cell is None for cell in kept)


def _details(results: list[score.Result]) -> None:
    """Where slotune did not do what it should, and how good its predictions are."""
    mine = [r for r in results if r.policy == "slotune"]
    if not mine:
        return
    print("\npredictions:", score.figures(mine).get("predictions"))
    for r in mine:
        for predicted, low, high, observed in r.observed:
            if abs(observed / predicted - 1) > 0.2:
                print(f"  off: {r.scenario} #{r.seed}: {predicted:.0f} ({low:.0f}-{high:.0f}) observed {observed:.0f}"
                      f" | {'; '.join(r.texts)}")  # fmt: skip
    for r in mine:
        bad = (r.kind == "curable" and not r.first) or (r.kind == "incurable" and not r.held_right) or r.wrong
        if bad:
            print(f"  {r.scenario} #{r.seed} ({r.kind}, {r.cause}): {'; '.join(r.texts) or 'nothing done'}"
                  f" | {[tuple(round(x) for x in p) for p in r.observed]}")  # fmt: skip


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
