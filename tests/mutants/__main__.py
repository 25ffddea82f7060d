"""How many small wrong changes the quick tests notice; writes benchmarks/results/mutants.json.

    python -m tests.mutants [--sample 150 | --all] [--only planning/ranking] [--seed 1] [--jobs 2]

Thresholds, comparisons, branches, boolean operators and constants of what decides (planning, policies, guards,
verification, scoring, training jobs) are changed one at a time, and those of the area's quick tests are run that come
to the changed line. Killed is what a test that failed has noticed. A mutant that no test comes to has survived; one that
used up its CPU time ("endless") counts as one that nobody noticed; one of which no test could be collected says nothing
of the tests and is not counted. "boundary" mutants (< for <=) are told apart: on measured numbers that are never
exactly equal, many of them change nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants import runner
from tests.mutants.mutations import BOUNDARY, Mutation, mutations
from tests.mutants.reach import Reach, reach_of
from tests.mutants.targets import ROOT, modules, suite_of

RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
UNNOTICED = (runner.SURVIVED, runner.ENDLESS)
THRESHOLDS = "tuning/planning/thresholds.py"
"""Its numbers are pinned by one table in a test, so its mutants are all killed: the share is told without it too."""
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
    parser.add_argument("--only", default="", help="only modules whose path holds one of these texts, with commas")
    parser.add_argument("--each", type=int, default=0, help="at most so many mutants of each module, drawn by --seed")
    parser.add_argument("--kinds", default="", help="only these kinds, separated by commas")
    parser.add_argument("--lines", default="", help="only mutants of these lines: FIRST-LAST")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin no mutant after that (in a drawn order: what was done is a sample)",
    )
    parser.add_argument("--kept", default="", help="a folder: which tests come to which lines, for several runs")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    args = parser.parse_args()
    chosen = _choose(args)
    if args.list:
        for module, mutation in chosen:
            print(f"{module}:{mutation.line} {mutation.kind}: {mutation.text}")
        return 0
    if args.minutes < math.inf:
        random.Random(args.seed).shuffle(chosen)
    began = time.monotonic()
    found = _run(
        chosen, _reach(sorted({module for module, _ in chosen}), args.kept), args.jobs, began + 60 * args.minutes
    )
    print("\nnot noticed:")
    for f in found:
        if f.verdict in UNNOTICED:
            print(f"  {f.module}:{f.line} {f.kind}: {f.mutation} ({f.verdict})")
    body = _document(found, " ".join(["python -m tests.mutants", *sys.argv[1:]]), time.monotonic() - began)
    for module, (killed, mutants) in _by(found, lambda f: f.module).items():
        print(f"{module:48s} {killed:4d} of {mutants:4d}")
    for kind, counts in body["by_kind"].items():  # type: ignore[attr-defined]
        print(f"{kind:12s} {counts['killed']:4d} of {counts['mutants']:4d}")
    print(f"killed: {body['killed_share']:.1%} of {body['mutants']} (boundary mutants apart; wanted {WANTED:.0%})")
    if not args.only and not args.kinds and not args.lines:
        RESULTS.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return 0 if float(str(body["killed_share"])) >= WANTED else 1


def _choose(args: argparse.Namespace) -> list[tuple[Path, Mutation]]:
    every = [
        (module, mutation)
        for module in modules()
        if any(text in str(module) for text in args.only.split(","))
        for mutation in mutations((ROOT / module).read_text(encoding="utf-8"))
        if not args.kinds or mutation.kind in args.kinds.split(",")
    ]
    if args.lines:
        first, last = (int(part) for part in args.lines.split("-"))
        every = [(module, mutation) for module, mutation in every if first <= mutation.line <= last]
    if args.each:
        return [mutant for module in modules() for mutant in _some([e for e in every if e[0] == module], args)]
    if args.all or len(every) <= args.sample:
        return every
    picked = random.Random(args.seed).sample(range(len(every)), args.sample)
    return [every[k] for k in sorted(picked)]


def _some(of_one: list[tuple[Path, Mutation]], args: argparse.Namespace) -> list[tuple[Path, Mutation]]:
    """At most `--each` of one module's mutants, drawn by the seed and its name."""
    if len(of_one) <= args.each:
        return of_one
    picked = random.Random(f"{args.seed} {of_one[0][0]}").sample(range(len(of_one)), args.each)
    return [of_one[k] for k in sorted(picked)]


def _reach(chosen: list[Path], kept: str) -> dict[Path, Reach]:
    """Which tests come to which lines of these modules; each area's tests run once for that, without a mutant.

    Raises SystemExit where they fail: nothing could be learned then.
    """
    runner.warm(sorted({test for module in chosen for test in suite_of(module)}))
    areas: dict[tuple[str, ...], list[Path]] = {}
    wanted = {tuple(sorted(suite_of(module))) for module in chosen}
    for module in modules():
        if (tests := tuple(sorted(suite_of(module)))) in wanted:
            areas.setdefault(tests, []).append(module)
    found: dict[Path, Reach] = {}
    for tests, of in areas.items():
        began = time.monotonic()
        reach = reach_of(of, runner.OPTIONS, tests, kept)
        took_s = time.monotonic() - began
        print(f"{of[0].parent}: {len(reach.took_s)} tests, {took_s:.1f} s traced, without a mutant", flush=True)
        found |= dict.fromkeys(of, reach)
    return found


def _run(chosen: list[tuple[Path, Mutation]], reach: dict[Path, Reach], workers: int, until_s: float) -> list[Found]:
    found: dict[int, Found] = {}

    def tell(place: int, verdict: str, took_s: float) -> None:
        module, m = chosen[place]
        found[place] = Found(str(module), m.line, m.kind, m.text, verdict, round(took_s, 1))
        print(f"{verdict:9s} {module}:{m.line} {m.kind}: {m.text} ({took_s:.1f} s)", flush=True)

    jobs: list[runner.Job] = []
    for module, m in chosen:
        tests = reach[module].of(module, m.lines, module.stem)
        jobs.append((module, m.number, tests, 10.0 + 2 * sum(reach[module].took_s[test] for test in tests)))
    runner.run_all(jobs, workers, tell, until_s)
    return [found[place] for place in sorted(found)]


def _document(found: list[Found], command: str, took_s: float) -> dict[str, object]:
    counted = [f for f in found if f.verdict in (runner.KILLED, *UNNOTICED)]
    plain = [f for f in counted if f.kind != BOUNDARY]
    killed = sum(f.verdict == runner.KILLED for f in plain)
    pinned = [f for f in plain if f.module == THRESHOLDS]
    return {
        "command": command,
        "took_s": round(took_s, 1),
        "mutants": len(plain),
        "killed": killed,
        "killed_share": round(killed / max(1, len(plain)), 4),
        "killed_share_without_the_table_of_thresholds": round(
            (killed - sum(f.verdict == runner.KILLED for f in pinned)) / max(1, len(plain) - len(pinned)), 4
        ),
        "by_kind": {kind: {"mutants": m, "killed": k} for kind, (k, m) in _by(counted, lambda f: f.kind).items()},
        "by_module": {name: {"mutants": m, "killed": k} for name, (k, m) in _by(plain, lambda f: f.module).items()},
        "not_counted": sum(f not in counted for f in found),
        "not_noticed": [asdict(f) for f in counted if f.verdict != runner.KILLED],
    }


def _by(found: list[Found], key: Callable[[Found], str]) -> dict[str, tuple[int, int]]:
    """Killed and counted mutants by a key, sorted."""
    counted = Counter(key(f) for f in found if f.verdict in (runner.KILLED, *UNNOTICED))
    killed = Counter(key(f) for f in found if f.verdict == runner.KILLED)
    return {name: (killed[name], counted[name]) for name in sorted(counted)}


if __name__ == "__main__":
    sys.exit(main())
