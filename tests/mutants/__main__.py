"""How many small wrong changes the quick tests notice; writes benchmarks/results/mutants.json.

    python -m tests.mutants [--sample 150 | --all] [--only planning/ranking] [--seed 1] [--jobs 2]

Thresholds, comparisons, branches, boolean operators and constants of what decides (planning, policies, guards,
verification, scoring) are changed one at a time and the module's own quick tests are run. "boundary" mutants (< for <=)
are told apart: on measured numbers that are never exactly equal, many of them change nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants import runner
from tests.mutants.mutations import BOUNDARY, Mutation, mutations
from tests.mutants.targets import ROOT, modules, suite_of

RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
WANTED = 0.85
"""Share of the mutants (boundary ones apart) that has to be noticed."""


@dataclass(frozen=True)
class Found:
    """One mutant and what the tests said."""

    module: str
    line: int
    kind: str
    mutation: str
    verdict: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=150, help="so many mutants, drawn by --seed")
    parser.add_argument("--all", action="store_true", help="every mutant")
    parser.add_argument("--only", default="", help="only modules whose path holds this text")
    parser.add_argument("--kinds", default="", help="only these kinds, separated by commas")
    parser.add_argument("--lines", default="", help="only mutants of these lines: FIRST-LAST")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    args = parser.parse_args()
    chosen = _choose(args)
    if args.list:
        for module, mutation in chosen:
            print(f"{module}:{mutation.line} {mutation.kind}: {mutation.text}")
        return 0
    began = time.monotonic()
    limits = _baseline(sorted({module for module, _ in chosen}))
    found = _run(chosen, limits, args.jobs)
    survivors = [f for f in found if f.verdict == "survived"]
    print("\nsurvived:")
    for f in survivors:
        print(f"  {f.module}:{f.line} {f.kind}: {f.mutation}")
    body = _document(found, " ".join(["python -m tests.mutants", *sys.argv[1:]]), time.monotonic() - began)
    for kind, counts in body["by_kind"].items():  # type: ignore[attr-defined]
        print(f"{kind:12s} {counts['killed']:4d} of {counts['mutants']:4d}")
    print(f"killed: {body['killed_share']:.1%} of {body['mutants']} (boundary mutants apart; wanted {WANTED:.0%})")
    if not args.only and not args.kinds:
        RESULTS.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return 0 if float(str(body["killed_share"])) >= WANTED else 1


def _choose(args: argparse.Namespace) -> list[tuple[Path, Mutation]]:
    every = [
        (module, mutation)
        for module in modules()
        if args.only in str(module)
        for mutation in mutations((ROOT / module).read_text(encoding="utf-8"))
        if not args.kinds or mutation.kind in args.kinds.split(",")
    ]
    if args.lines:
        first, last = (int(part) for part in args.lines.split("-"))
        every = [(module, mutation) for module, mutation in every if first <= mutation.line <= last]
    if args.all or len(every) <= args.sample:
        return every
    picked = random.Random(args.seed).sample(range(len(every)), args.sample)
    return [every[k] for k in sorted(picked)]


def _baseline(chosen: list[Path]) -> dict[Path, float]:
    """How long a mutant's tests may take: several times what those of the module as it is took.

    Raises SystemExit where they fail without any mutant: nothing could be learned then.
    """
    runner.warm(sorted({test for module in chosen for test in suite_of(module)}))
    took: dict[tuple[str, ...], float] = {}
    limits = {}
    for module in chosen:
        tests = tuple(sorted(suite_of(module)))
        if tests not in took:
            verdict = ""
            started = runner.start(module, None, tests, 900.0)
            while not verdict:
                time.sleep(0.05)
                verdict = started.verdict()
            took[tests] = started.took_s
            print(f"{module.parent}: {len(tests)} test files, {took[tests]:.1f} s without a mutant", flush=True)
            if verdict != "survived":
                raise SystemExit(f"the tests of {module} do not pass without a mutant ({verdict})")
        limits[module] = 30.0 + 6 * took[tests]
    return limits


def _run(chosen: list[tuple[Path, Mutation]], limits: dict[Path, float], workers: int) -> list[Found]:
    found: dict[int, Found] = {}

    def tell(place: int, verdict: str, took_s: float) -> None:
        module, m = chosen[place]
        found[place] = Found(str(module), m.line, m.kind, m.text, verdict, round(took_s, 1))
        print(f"{verdict:9s} {module}:{m.line} {m.kind}: {m.text} ({took_s:.1f} s)", flush=True)

    jobs: list[runner.Job] = [(module, m.number, suite_of(module), limits[module]) for module, m in chosen]
    runner.run_all(jobs, workers, tell)
    return [found[place] for place in sorted(found)]


def _document(found: list[Found], command: str, took_s: float) -> dict[str, object]:
    counted = [f for f in found if f.verdict != "broken"]
    plain = [f for f in counted if f.kind != BOUNDARY]
    kinds, areas = Counter(f.kind for f in counted), Counter(_area(f) for f in plain)
    caught = [f for f in counted if f.verdict != "survived"]
    return {
        "command": command,
        "took_s": round(took_s, 1),
        "mutants": len(plain),
        "killed": sum(f.verdict != "survived" for f in plain),
        "killed_share": round(sum(f.verdict != "survived" for f in plain) / max(1, len(plain)), 4),
        "by_kind": {
            kind: {"mutants": count, "killed": sum(f.kind == kind for f in caught)}
            for kind, count in sorted(kinds.items())
        },
        "by_area": {
            area: {"mutants": count, "killed": sum(_area(f) == area and f.kind != BOUNDARY for f in caught)}
            for area, count in sorted(areas.items())
        },
        "broken": sum(f.verdict == "broken" for f in found),
        "survived": [asdict(f) for f in counted if f.verdict == "survived"],
    }


def _area(found: Found) -> str:
    return str(Path(found.module).parent) if found.module.startswith("tuning") else found.module


if __name__ == "__main__":
    sys.exit(main())
