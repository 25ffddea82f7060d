"""The fault campaign in full: `python -m tests.faults`; writes benchmarks/results/faults.json."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.campaign import Fault, Result, faults, play, steps_of, warm_up
from tests.faults.outside import CURE, HARM

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th step")
    parser.add_argument("--only", default="", help="only faults whose text contains this")
    parser.add_argument(
        "--others", type=int, default=1, help="only each so-many-th fault that is no kill, call or race"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many faults at once")
    parser.add_argument("--keep", type=Path, help="keep every fault's files in this folder")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="slotune-faults-") as temporary:
        folder = arguments.keep or Path(temporary)
        warm_up(folder / "warm-up")
        steps = {s.name: steps_of(s, folder / f"plain-{s.name}") for s in (CURE, HARM)}
        print(f"steps of the story: {steps}")
        found = [f for f in faults(steps, every=arguments.every) if arguments.only in f.text()]
        others = [f for f in found if f.kind not in ("kill", "apply", "race")][:: arguments.others]
        wanted = [f for f in found if f.kind in ("kill", "apply", "race")] + others
        results: list[Result] = []
        places = [
            folder / f"{number:04d}-{fault.kind}-{fault.flavour}-{fault.at}" for number, fault in enumerate(wanted)
        ]
        with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
            for result in pool.imap(_play, zip(wanted, places, strict=True)):
                results.append(result)
                if result.wrong():
                    print(f"{len(results) - 1:04d} {result.fault.text()}: {'; '.join(result.wrong())}", flush=True)
    body = summary(results, steps, time.perf_counter() - started)
    print(json.dumps(body, indent=1))
    if not arguments.only:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(body, indent=1) + "\n")
    return 1 if any(result.wrong() for result in results) else 0


def _play(what: tuple[Fault, Path]) -> Result:
    return play(*what)


def summary(results: list[Result], steps: dict[str, int], took_s: float) -> dict[str, object]:
    return {
        "command": " ".join(["python -m tests.faults", *sys.argv[1:]]),
        "what": "the loop's functions in killed processes, an SQLite ledger, a simulated service that outlives them",
        "faults": len(results),
        "faults_by_kind": dict(Counter(result.fault.kind for result in results)),
        "kill_points": steps,
        "struck": sum(result.struck for result in results),
        "orphan_changes": sum(len(result.orphan) for result in results),
        "double_changes": sum(len(result.double) for result in results),
        "unproven": sum(len(result.unproven) for result in results),
        "lost_records": sum(len(result.lost) for result in results),
        "over_rollback_time": sum(len(result.over_time) for result in results),
        "broken": sum(len(result.broken) for result in results),
        "changes_made": sum(result.landings for result in results),
        "took_s": round(took_s, 1),
        "wrong": [f"{result.fault.text()}: {'; '.join(result.wrong())}" for result in results if result.wrong()],
    }


if __name__ == "__main__":
    sys.exit(main())
